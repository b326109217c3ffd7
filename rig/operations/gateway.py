"""The gateway: its account, the engines' keys, and a configuration that HAProxy accepted before it is in force."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from pyinfra import host
from pyinfra.api import Host, operation

from rig.facts.gateway import FOLDER, Ground, GroundState, InForce, listing
from rig.facts.in_force import InForceState
from rig.facts.units import Unit
from rig.gateway.haproxy import CONFIGURATION, ENGINE_KEYS
from rig.operations import Commands, programs
from rig.operations.files import replaced_together
from rig.systemd import units
from rigd.gateway.config import GROUP, HOME

DISTRIBUTION = "haproxy.service"
"""The unit of the distribution's package."""


@operation()
def unstarted() -> Commands:
    """The distribution's haproxy.service is masked where its package is still to come, which would start it.

    One that is there is its owner's: it has a configuration and a unit of its own, and both run beside each other.
    """
    if host.get_fact(Unit, unit=DISTRIBUTION, files=()).load == "not-found":
        yield f"systemctl mask {DISTRIBUTION}"


@operation()
def ground(engines: Mapping[str, str]) -> Commands:
    """The gateway's account and folder; it, root, and nobody else can read the keys of ``engines``.

    ``engines``: engine name to variable of the store.
    """
    state: GroundState = host.get_fact(Ground, engines=dict(engines))
    if not state.account:
        yield f"useradd --system --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin {GROUP}"
    if state.folder != FOLDER:
        yield f"install -d -m 0750 -o root -g {GROUP} {HOME}"
    if state.stale:
        script = f"""set -eu
umask 077
{listing(dict(engines))}
new={ENGINE_KEYS}.new
rm -f "$new"
listing >"$new"
chgrp {GROUP} "$new"
chmod 0640 "$new"
sync "$new"
mv "$new" {ENGINE_KEYS}
sync {CONFIGURATION}
"""
        yield f"install -d -m 0755 {CONFIGURATION}"
        yield f"flock /etc/rig sh -c {shlex.quote(script)}"


@operation()
def configured(texts: Mapping[str, str], made: Mapping[str, str]) -> Commands:
    """The files of /etc/rig/gateway hold ``texts``, by name; HAProxy accepted them before, as the gateway's account.

    If it refuses them, nothing changes, and the running gateway goes on. ``made``: further files that they name, each
    with the program that makes it.
    """
    new = f"{CONFIGURATION}.new"
    # The same files, named where they lie now.
    there_now = f"sed -e 's,{CONFIGURATION}/\\(.*[.]lua\\),{new}/\\1,' -e 's,{CONFIGURATION}/patterns,{new}/patterns,'"
    checks = [
        f"{there_now} haproxy.cfg >checked.cfg && chmod 0644 checked.cfg",
        *(f"{{ [ -e {path} ] || {program}; }}" for path, program in made.items()),
        f"runuser -u {GROUP} -- /usr/sbin/haproxy -c -q -f {new}/checked.cfg",
    ]
    # They run in the folder: HAProxy needs a working directory into which its account may look.
    yield from replaced_together(CONFIGURATION, texts, checks)


@operation()
def running(unit: str, files: Sequence[str], port: int, fingerprint: str) -> Commands:
    """The gateway runs by its ``unit``'s file, and the configuration with this ``fingerprint`` is in force.

    ``files``: whatever it reads at its start and at a reload. ``port``: of its metrics.
    """
    seen = host.get_fact(Unit, unit=unit, files=(f"/etc/systemd/system/{unit}",))
    steps = units.steps(seen)
    yield from programs.take(unit, steps)
    question = {"unit": unit, "port": port, "files": tuple(files)}

    def loaded(host: Host) -> bool:
        return bool(host.get_fact(InForce, **question).fingerprint == fingerprint)

    if host.get_fact(InForce, **question) != InForceState(fingerprint, fresh=True) or programs.starts(steps):
        yield from programs.reload(unit, steps, loaded)


@operation()
def retired(unit: str, files: Sequence[str]) -> Commands:
    """The gateway does not run, and its configuration is removed; the clients' keys stay."""
    path = f"/etc/systemd/system/{unit}"
    if host.get_fact(Unit, unit=unit, files=()).load != "not-found":
        yield from programs.remove(unit, [path, *files], folder=CONFIGURATION)


@operation()
def unscheduled(timer: str, files: Sequence[str]) -> Commands:
    """``timer`` is gone, with its ``files``."""
    if host.get_fact(Unit, unit=timer, files=()).load != "not-found":
        yield f"systemctl disable --now {timer}"
        yield f"rm -f {shlex.join(files)} && systemctl daemon-reload"
