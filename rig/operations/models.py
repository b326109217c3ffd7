"""The installation of rigd's programs; and the fetch of models, which runs in the background until the end of a run."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from io import BytesIO

import click
from pyinfra import host, logger
from pyinfra.api import FileUploadCommand, FunctionCommand, Host, State, operation

from rig.facts.models import DESCRIPTION, LINK, LINKS, PROGRAMS, STAMP, Models, Programs, installed, older
from rig.models.fetch import RECORDS, UNIT, ModelsState, Step, causes, complete, properties, report, steps, tag
from rig.operations import Commands
from rig.operator import progress
from rig.wheel import Wheel
from rigd.models.manifest import Manifest, dump

POLL = 2.0
"""Seconds between two polls of a fetch."""
LINE_EVERY = 60.0
"""Seconds between two lines without a terminal."""


@operation()
def programs(wheel: Wheel) -> Commands:
    """This version of rigd is installed, in a virtual environment of its own.

    The two libraries it needs, requests and prometheus_client, are the distribution's: apt checks their signatures,
    security updates arrive by themselves, and the machine needs no package index.
    """
    if host.get_fact(Programs, version=wheel.version, names=tuple(wheel.programs), modules=wheel.modules):
        return
    home = f"{PROGRAMS}/{wheel.version}"
    path = f"{PROGRAMS}/{wheel.version}.{wheel.name}"
    yield f"install -d -m 0755 {PROGRAMS}"
    yield FileUploadCommand(BytesIO(wheel.content), path)
    yield f"flock {PROGRAMS} sh -c {shlex.quote(install(home, path, wheel))}"


def install(home: str, path: str, wheel: Wheel) -> str:
    """A script that installs the uploaded wheel, and begins again after an interrupted installation.

    If only the run died, its script may still work beside that of the next run. The second waits for the first, and
    then finds everything done and its own wheel removed: seen on a machine.
    """
    name = wheel.name
    programs = " ".join(f"bin/{program}" for program in wheel.programs)
    modules = ", ".join(target.partition(":")[0] for target in wheel.programs.values())
    links = "\n  ".join(
        f"ln -sfn {home}/bin/{program} {LINKS}/.{program}.new && mv -T {LINKS}/.{program}.new {LINKS}/{program}"
        for program in wheel.programs
    )
    return f"""set -eu
umask 022
if {installed(wheel.version, wheel.programs, wheel.modules)}; then
  rm -f {path}
else
  rm -rf {home}
  mkdir {home}
  touch {home}/.began
  python3 -m venv --system-site-packages {home}
  mv {path} {home}/{name}
  {home}/bin/python -m pip install --quiet --no-index --no-deps --disable-pip-version-check {home}/{name}
  {home}/bin/python -c 'import prometheus_client, requests, {modules}'
  (cd {home} && sha256sum pyvenv.cfg {programs} >.sums)
  # Everything it names before the stamp itself, or a power cut leaves a stamp on empty files.
  sync --file-system {home}
  mv {home}/.sums {home}/{STAMP}
  sync {home}
  {links}
  sync {LINKS}
fi
{older(wheel.version)} -exec rm -rf {{}} +
sync {PROGRAMS}
"""


@operation()
def started(manifest: Manifest) -> Commands:
    """A fetch runs as a unit of its own if models are missing; the run does not wait for it here."""
    for step in steps(host.get_fact(Models, manifest=dump(manifest)), manifest):
        yield _command(step, manifest)


@operation()
def fetched(manifest: Manifest) -> Commands:
    """Every model is there and correct. Waits for the fetch, and reports its progress."""
    text = dump(manifest)
    seen: ModelsState = host.get_fact(Models, manifest=text)
    for step in steps(seen, manifest):
        yield _command(step, manifest)
    if not complete(seen, manifest):
        yield FunctionCommand(_join, (manifest,), {})


def _command(step: Step, manifest: Manifest) -> str:
    if step == "stop":
        return f"systemctl stop {UNIT}"
    description = shlex.quote(DESCRIPTION + tag(manifest))
    sandbox = shlex.join(f"--property={name}={value}" for name, value in properties(manifest).items())
    # The fetch fixes or reports again what the last scrub found.
    return (
        "systemctl reset-failed rig-models-scrub.service 2>/dev/null; mkdir -p "
        f"{RECORDS} && systemd-run --quiet --collect --unit={UNIT} --description={description} {sandbox} "
        f"{LINK} fetch --wait"
    )


def _join(state: State, host: Host, manifest: Manifest) -> bool:
    """Wait for the end of the fetch; report the causes if something is missing then."""
    teller = _Teller(host)
    with progress.told_by_itself(host):
        while True:
            seen: ModelsState = host.get_fact(Models, manifest=dump(manifest))
            if complete(seen, manifest):
                return True
            if not seen.active:
                break
            if (line := report(seen, manifest)) is not None:
                teller.tell(line)
            time.sleep(POLL)
    for cause in causes(seen, manifest):
        logger.error(f"{host.print_prefix}{cause}")
    return False


class _Teller:
    """Shows one line that is kept current on a terminal; elsewhere, and beside other machines, a line a minute."""

    def __init__(self, host: Host) -> None:
        self._prefix = host.print_prefix
        self._alone = sys.stderr.isatty() and len(host.state.inventory) == 1
        self._said: float | None = None

    def tell(self, line: str) -> None:
        if self._alone:
            # A line on two rows could not be overwritten.
            line = line[: shutil.get_terminal_size().columns - len(click.unstyle(self._prefix)) - 5]
        if self._said is not None and self._alone:
            # pyinfra's spinner is on the row below: overwrite the line from there.
            click.echo("\x1b[1A\r\x1b[K", nl=False, err=True)
        elif self._said is not None and time.monotonic() - self._said < LINE_EVERY:
            return
        logger.info(f"{self._prefix}{line}")
        self._said = time.monotonic()
