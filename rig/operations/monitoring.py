"""Monitoring programs that run with their current settings, which were checked before they were put in place."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import FunctionCommand, Host, operation

from rig.facts.files import WrittenTogether
from rig.facts.in_force import InForceState
from rig.facts.monitoring import (
    FOLDER,
    Copies,
    CopyState,
    Loaded,
    Serving,
    ServingState,
    Telling,
    TellingState,
)
from rig.facts.secrets import KEYS as STORE
from rig.facts.units import Unit
from rig.monitoring.prometheus import CONFIGURATION, KEYS
from rig.operations import Commands, packages, programs
from rig.operations.files import replaced_together
from rig.operations.waiting import wait
from rig.systemd import units
from rigd.modes.switch import CRASHES


@operation()
def keys(engines: Mapping[str, str]) -> Commands:
    """Prometheus and root, but nobody else, can read the keys of ``engines``: engine name to variable of the store."""
    state: CopyState = host.get_fact(Copies, engines=dict(engines))
    if state.folder != FOLDER:
        yield f"install -d -m 0750 -o root -g prometheus {KEYS}"
    if state.stale or state.needless:
        script = _copy({name: engines[name] for name in state.stale}, state.needless)
        yield f"flock /etc/rig sh -c {shlex.quote(script)}"


def _copy(engines: Mapping[str, str], needless: tuple[str, ...]) -> str:
    """A script: each copy is written for root alone, opened to Prometheus, then renamed, as each scrape reads it."""
    pairs = " ".join(f"{shlex.quote(engine)}={variable}" for engine, variable in engines.items())
    return f"""set -eu
umask 077
cd {KEYS}
rm -f .new {shlex.join(needless)}
for pair in {pairs}; do
  engine=${{pair%%=*}}; variable=${{pair#*=}}
  sed -n "s/^$variable=//p" {STORE} | tr -d "\\n" >.new
  chgrp prometheus .new
  chmod 0640 .new
  sync .new
  mv .new "$engine"
done
sync {KEYS}
"""


@operation()
def configured(texts: Mapping[str, str], checks: list[str]) -> Commands:
    """The files of /etc/rig/prometheus hold ``texts``, by name; each of ``checks`` accepted them all beforehand.

    ``checks``: commands that run in the folder of the new files. If one of them fails, nothing changes.
    """
    yield from replaced_together(CONFIGURATION, texts, checks)


@operation()
def prometheus(unit: str, drop_in: str, files: list[str], port: int, fingerprint: str) -> Commands:
    """Prometheus runs with its ``drop_in``, and has loaded the ``files`` with this ``fingerprint``."""
    steps = units.steps(host.get_fact(Unit, unit=unit, files=(drop_in,)))
    yield from programs.take(unit, steps)
    question = {"unit": unit, "port": port, "files": tuple(files)}

    def loaded(host: Host) -> bool:
        return bool(host.get_fact(Loaded, **question).fingerprint == fingerprint)

    if host.get_fact(Loaded, **question) != InForceState(fingerprint, fresh=True):
        yield from programs.reload(unit, steps, loaded)


@operation()
def alertmanager(unit: str, drop_in: str, secrets: list[str], port: int, loaded_as: int) -> Commands:
    """Alertmanager runs with its ``drop_in`` and the current ``secrets``, and has loaded this configuration."""
    state: TellingState = host.get_fact(Telling, port=port, secrets=tuple(secrets))
    if state.open:
        yield f"chown root:root {shlex.join(state.open)} && chmod 0600 {shlex.join(state.open)}"
    steps = units.steps(host.get_fact(Unit, unit=unit, files=(drop_in, *secrets)))
    yield from programs.take(unit, steps)

    def loaded(host: Host) -> bool:
        return bool(host.get_fact(Telling, port=port, secrets=()).loaded == loaded_as)

    if state.loaded != loaded_as or programs.starts(steps):
        yield from programs.reload(unit, steps, loaded)


@operation()
def grafana(unit: str, files: list[str], port: int) -> Commands:
    """Grafana runs, was started after the last change of ``files``, and reports that it is healthy."""
    question = {"unit": unit, "port": port}
    seen: ServingState = host.get_fact(Serving, **question)
    steps = units.steps(host.get_fact(Unit, unit=unit, files=tuple(files)))
    if not seen.well and not programs.starts(steps):
        steps.append("restart")
    yield from programs.take(unit, steps)
    if programs.starts(steps):
        crashed: int | None = None

        def well(host: Host) -> bool | None:
            nonlocal crashed
            now: ServingState = host.get_fact(Serving, **question)
            crashed = now.crashes if crashed is None else crashed
            lost = now.active in ("inactive", "failed") or now.crashes - crashed >= CRASHES
            return now.well or (None if lost else False)

        yield FunctionCommand(wait, (unit, well, "is not well"), {})


@operation()
def without_grafana(unit: str, home: str) -> Commands:
    """Grafana does not run, and only its image is left."""
    path = f"/etc/systemd/system/{unit}"
    state = host.get_fact(Unit, unit=unit, files=())
    if state.load != "not-found":
        yield from programs.remove(unit, [path], folder=home)


@operation()
def retired(services: list[str], timer: str, files: list[str]) -> Commands:
    """The packages of ``services`` are not installed, and our ``files`` for them are removed; the recorded data stay.

    The files go last: without them a remaining package would listen on every address.
    """
    for unit in (timer, *services):
        if host.get_fact(Unit, unit=unit, files=()).enabled == "enabled":
            yield f"systemctl disable --now {unit}"
    yield from packages.absent._inner(packages=[unit.removesuffix(".service") for unit in services])
    there = host.get_fact(WrittenTogether, paths=tuple(files))
    if there:
        folders = [str(PurePosixPath(path).parent) for path in there if path.endswith(".d/rig.conf")]
        yield f"rm -rf {CONFIGURATION} {KEYS} && rm -f {shlex.join(there)}"
        yield f"rmdir --ignore-fail-on-non-empty {shlex.join(folders)} && systemctl daemon-reload"
