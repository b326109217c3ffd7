"""The container engine in the settings' version, and its configuration, merged into the owner's."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from pyinfra import host
from pyinfra.api import OperationError, operation
from pyinfra.operations import files as pyinfra_files

from rig.containers import Offered, due, no_such_version, pattern
from rig.daemon import content
from rig.facts.backup import Present
from rig.facts.containers import DAEMON, Daemon, Offers, Translating
from rig.facts.units import Unit
from rig.operations import Commands, files
from rig.operations.packages import INSTALL, UPDATE, kept
from rig.systemd import units

SERVICE = "docker.service"
BEFORE = f"{DAEMON}.rig-before"
"""The daemon.json of Docker's last start; kept from its replacement until Docker has started again."""

# With the flags of its unit: a key that repeats a flag is refused at the start. Docker 23 has --validate.
_CHECK = f"""
dockerd --help 2>/dev/null | grep -q -- --validate || exit 0
words=$(systemctl show --property=ExecStart --value {SERVICE} |
  sed -n 's/.*argv\\[\\]=[^ ]*\\(.*\\) ; ignore_errors=.*/\\1/p' | sed 's/ \\$[A-Za-z_{{}}]*//g')
said=$(dockerd $words --validate --config-file {DAEMON}.rig-new 2>&1) && exit 0
rm {DAEMON}.rig-new
echo "Docker does not take containers.daemon: $(echo "$said" | tail -n 1 | sed s/.rig-new//); correct it there," \\
  "or in {DAEMON} where the key is yours; that file is as it was" >&2
exit 1
"""

# Once Docker has started with a newer daemon.json, this one is outdated.
_FORGET = f"rm -f {BEFORE}"
_KEEP = f"[ -e {BEFORE} ] || cp --preserve {DAEMON} {BEFORE} 2>/dev/null || echo '{{}}' >{BEFORE}"

_PUT_BACK = f"""
[ -e {BEFORE} ] || exit 1
said=$(journalctl --unit={SERVICE} --lines=100 --output=cat | grep '^failed to start daemon: ' | tail -n 1)
mv --no-target-directory {BEFORE} {DAEMON}
systemctl reset-failed {SERVICE} docker.socket
systemctl restart {SERVICE}
echo "Docker does not start with containers.daemon (${{said:-journalctl --unit={SERVICE} says why}});" \\
  "correct it there; {DAEMON} is as it was" >&2
exit 1
"""


@operation()
def upgraded(packages: Sequence[str], version: str) -> Commands:
    """The packages, the engine first, have the newest versions that apt's pins allow, except those on hold.

    The pin on the engine's version is already written. apt's own lists decide whether an upgrade is due; they are
    fetched again only then.
    """
    there: dict[str, Offered] = host.get_fact(Offers, packages=tuple(packages))
    if due(packages, there, version):
        yield f"sh -c {shlex.quote(UPDATE)}"
        yield offered(packages[0], version)
        wanted = [name for name in packages if name not in there or not there[name].held]
        yield f"{INSTALL} {shlex.join(wanted)}"
    yield from kept([name for name in packages if name in there and there[name].installed is not None])


def offered(package: str, version: str) -> str:
    """A command that fails with a sentence if apt's candidate has another version: the repositories lack this one."""
    candidate = f"LC_ALL=C apt-cache policy {shlex.quote(package)} | sed -n 's/^  Candidate: //p'"
    otherwise = shlex.quote(no_such_version(package, version))
    return f"{candidate} | grep -qE {shlex.quote(pattern(version))} || {{ echo {otherwise} >&2; exit 1; }}"


@operation()
def daemon(wanted: Mapping[str, Any]) -> Commands:
    """daemon.json holds ``wanted`` and the owner's other keys; Docker has checked it beforehand."""
    there = host.get_fact(Daemon)
    whole = content(there, wanted)
    if whole != there:
        text = json.dumps(whole, indent=2) + "\n"
        first = [f"sh -c {shlex.quote(_CHECK)}", _KEEP]
        if not units.steps(host.get_fact(Unit, unit=SERVICE, files=(DAEMON,))):
            first.insert(1, _FORGET)
        yield from files.written._inner(path=DAEMON, text=text, first=first)
    elif whole:
        # Not written again for its layout, which is the owner's.
        yield from pyinfra_files.file._inner(path=DAEMON, user="root", group="root", mode="644")


@operation()
def running() -> Commands:
    """Docker is enabled, active, and younger than daemon.json; a daemon.json that stops it is rolled back.

    Its rules are in the kernel: whoever flushes all rules cuts its containers off.
    """
    seen = host.get_fact(Unit, unit=SERVICE, files=(DAEMON,))
    refusal = units.refusal(SERVICE, seen)
    if refusal:
        raise OperationError(refusal)
    steps = units.steps(seen)
    if not {"start", "restart"} & set(steps) and not host.get_fact(Translating):
        steps.append("restart")
    if not steps and host.get_fact(Present, paths=(BEFORE,)):
        yield _FORGET
    for step in steps:
        if step in ("start", "restart"):
            script = f"systemctl {step} {SERVICE} && rm -f {BEFORE} && exit 0{_PUT_BACK}"
            yield f"sh -c {shlex.quote(script)}"
        else:
            yield "systemctl daemon-reload" if step == "daemon-reload" else f"systemctl {step} {SERVICE}"
