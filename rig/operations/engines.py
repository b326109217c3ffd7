"""Engines that run with their current settings and key, and answer."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, State, operation

from rig.engines import served
from rig.engines.inspected import differences
from rig.engines.served import Served
from rig.engines.steps import EngineState, idle_steps, in_the_way, steps
from rig.facts.engines import (
    UNITS,
    Alternatives,
    ContainerEngine,
    Definitions,
    Engines,
    ImagePresent,
    Inspected,
    NativeEngine,
    PortHolders,
)
from rig.facts.machine import FileText
from rig.operations import Commands, files, shell
from rig.render import render
from rigd.models.manifest import IMAGES
from rigd.modes.choice import chosen
from rigd.modes.switch import CRASHES

POLL = 1.0
"""Seconds between two looks at an engine that is starting."""


@dataclass(frozen=True)
class Wanted:
    """An engine as it should be, whichever way it runs."""

    engine: str
    unit: str
    variable: str
    """Of the file of keys, that holds its key."""
    timeout: int
    """Seconds it may take to become healthy."""
    record: Served
    """Its definition, kept as soon as it is healthy."""
    rivals: tuple[str, ...]
    """Units of the group of alternatives that it belongs to, its own included. Of these the one that was chosen on the
    machine runs; the others are stopped."""


@operation()
def image(reference: str) -> Commands:
    """The image, named with its digest, is on the machine."""
    if not host.get_fact(ImagePresent, image=reference):
        yield f"sh -c {shlex.quote(pull(reference))}"


def pull(reference: str) -> str:
    """A script that pulls an image, and reads it back: Docker takes layers for complete that a power cut emptied.

    `docker save` compares each file with the checksum from its pull. The line in the list of images, by which one is
    known later as one that may go, is the stamp: it is written after the layers have reached the disk.
    """
    name = shlex.quote(reference)
    return f"""set -eu
whole() {{ docker save {name} 2>/dev/null >/dev/null; }}
docker image inspect {name} >/dev/null 2>&1 || docker pull --quiet {name}
if ! whole; then
  docker ps --all --quiet --filter ancestor={name} | xargs --no-run-if-empty docker rm --force >/dev/null
  docker image rm --force {name} >/dev/null
  docker pull --quiet {name}
  whole || {{ echo {name} "is damaged on this machine's disk after a second pull;" \
    "remove it and the images that share its layers: docker image prune --all" >&2; exit 1; }}
fi
sync --file-system "$(docker info --format '{{{{.DockerRootDir}}}}')"
mkdir -p {PurePosixPath(IMAGES).parent}
touch {IMAGES}
new={IMAGES}.new
{{ grep -vxF {name} {IMAGES} || true; echo {name}; }} >"$new"
sync "$new"
mv "$new" {IMAGES}
sync {PurePosixPath(IMAGES).parent}
"""


@operation()
def defined(engine: str, wanted: Mapping[str, Any], alternatives: tuple[str, ...]) -> Commands:
    """The compose file has this engine as in the document ``wanted``, and no other that it does not serve with."""
    found = host.get_fact(Definitions)
    document = served.amended(wanted, engine, alternatives, found.compose, found.records)
    yield from files.written._inner(path=served.COMPOSE, text=render(served.COMPOSE, compose=document))


@operation()
def serving(wanted: Wanted) -> Commands:
    """The engine runs as wanted and with its current key, and is healthy in time; or runs as before."""
    seen = _look(host, wanted, wanted.record)
    yield from _idle(wanted, seen) if _is_idle(wanted) else _converge(wanted, seen)


@operation()
def retired(wanted: list[str]) -> Commands:
    """No engine runs, or starts at boot, besides the units in ``wanted``; a retired container is removed."""
    for unit in host.get_fact(Engines):
        if unit in wanted:
            continue
        quoted = shlex.quote(unit)
        kind, _, engine = unit.removesuffix(".service").partition("@")
        # A folder of the owner's may be there before any unit is.
        yield f"systemctl disable --now {quoted} || ! systemctl cat {quoted} >/dev/null 2>&1"
        if kind == "rig-container":
            yield f"docker rm --force rig-{engine}"
            if not any(other.startswith("rig-container@") for other in wanted):
                # Models that it names count as served.
                yield f"rm -f {served.COMPOSE}"
        yield f"rm -f {shlex.quote(served.path(engine))}"
        # After all else: by its folder the next run finds an engine that this one did not retire to the end.
        own = shlex.quote(f"{UNITS}/{unit}")
        yield f"rm -rf {own}.d && rm -f {own} && systemctl daemon-reload"
        # A failed unit stays listed until it is forgotten.
        yield f"systemctl reset-failed {quoted} 2>/dev/null || true"


def _is_idle(wanted: Wanted) -> bool:
    """Whether an alternative to this engine is the one that is to run."""
    return bool(wanted.rivals) and chosen(host.get_fact(Alternatives, units=wanted.rivals)) != wanted.unit


def _look(host: Host, wanted: Wanted, record: Served) -> EngineState:
    """The engine as it is now, asked where `record` has it."""
    kind = NativeEngine if record.service is None else ContainerEngine
    state: EngineState = host.get_fact(kind, engine=wanted.engine, variable=wanted.variable, **record.asked)
    if record.service is not None and state.running:
        found = differences(record.service, host.get_fact(Inspected, container=f"rig-{wanted.engine}"))
        if found:
            return replace(state, intact=False, evidence=f"{state.evidence}, it runs with other {', '.join(found)}")
    return state


def _idle(wanted: Wanted, seen: EngineState) -> Commands:
    for step in idle_steps(seen):
        if step == "daemon-reload":
            yield "systemctl daemon-reload"
        else:
            yield f"systemctl {step} {shlex.quote(wanted.unit)}"
            if step == "stop" and wanted.record.service is not None:
                # Docker itself may have started the container, without its unit.
                yield f"docker stop rig-{wanted.engine} 2>/dev/null || true"


def _converge(wanted: Wanted, seen: EngineState) -> Commands:
    for step in steps(seen, wanted.record.fingerprint):
        if step == "daemon-reload":
            yield "systemctl daemon-reload"
        elif step == "enable":
            yield f"systemctl enable {shlex.quote(wanted.unit)}"
        else:
            yield FunctionCommand(_serve, (wanted, step == "serve"), {})
    # Only what is healthy gets here.
    if seen.served != hashlib.sha256(wanted.record.text.encode()).hexdigest():
        yield _kept(served.path(wanted.engine), wanted.record.text)


def _kept(path: str, text: str) -> str:
    """A command that writes a file beside its place and renames it."""
    new = shlex.quote(f"{path}.rig-new")
    folder = shlex.quote(str(PurePosixPath(path).parent))
    return (
        f"mkdir -p {folder} && printf %s {shlex.quote(text)} >{new} && "
        f"chmod 0644 {new} && sync {new} && mv --no-target-directory {new} {shlex.quote(path)} && sync {folder}"
    )


def _serve(state: State, host: Host, wanted: Wanted, anew: bool) -> bool:
    """Wait until the engine serves. When it does not, its last lines are shown, and what served last comes back.

    `anew`: it is started first. A start that systemd or Docker refuses is trouble like any other.
    """
    displaced = _make_way(state, host, wanted) if anew else []
    if anew:
        # A unit of its own is there after a change was taken back; and compose leaves a container as it is whose
        # labels are right, whatever else was changed about it.
        own = shlex.quote(f"{UNITS}/{wanted.unit}")
        shell.run(state, host, f"[ ! -e {own} ] || {{ rm -f {own} && systemctl daemon-reload; }}")
        if wanted.record.service is not None:
            shell.run(state, host, f"docker rm --force rig-{wanted.engine}")
    trouble = _trouble(state, host, wanted, wanted.record, anew)
    if trouble is None:
        return True
    logger.error(f"{host.print_prefix}engine {wanted.engine} did not become healthy: {trouble}; its last lines:")
    for line in shell.run(state, host, _last_lines(wanted))[1]:
        logger.error(f"{host.print_prefix}  {line}")
    before = served.parse(host.get_fact(FileText, path=served.path(wanted.engine)))
    if before is not None and before.fingerprint != wanted.record.fingerprint:
        _take_back(state, host, wanted, before)
    elif displaced:
        shell.run(state, host, f"systemctl stop {shlex.quote(wanted.unit)}")
    if displaced:
        # As before, too: a run that ends here does not get to their turn.
        shell.run(state, host, _restart(*displaced))
    return False


def _make_way(state: State, host: Host, wanted: Wanted) -> list[str]:
    """Stop the engines that hold the port of this one from before; their units."""
    holders = host.get_fact(PortHolders, port=int(wanted.record.asked["port"]))
    units = in_the_way(holders, wanted.unit, wanted.rivals)
    if units:
        # Docker itself may have started a container, without its unit.
        names = [f"rig-{unit.removesuffix('.service').partition('@')[2]}" for unit in units if "-container@" in unit]
        docker = f"; docker stop {shlex.join(names)}" if names else ""
        shell.run(state, host, f"systemctl stop {shlex.join(units)}{docker}")
    return units


def _take_back(state: State, host: Host, wanted: Wanted, before: Served) -> None:
    """Let the engine run as it last served."""
    restored = before.restored(wanted.engine, host.get_fact(FileText, path=served.COMPOSE))
    commands = [_kept(path, text) for path, text in restored.items()]
    shell.run(state, host, " && ".join([*commands, "systemctl daemon-reload"]))
    trouble = _trouble(state, host, wanted, before, anew=True)
    now = "serves again as before" if trouble is None else f"does not serve as before either: {trouble}"
    logger.error(f"{host.print_prefix}engine {wanted.engine} {now}")


def _trouble(state: State, host: Host, wanted: Wanted, record: Served, anew: bool) -> str | None:
    """Why the engine does not become healthy as `record` has it; None when it does."""
    if anew and not shell.run(state, host, _restart(wanted.unit))[0]:
        return "its start failed"
    return _wait(host, wanted, record)


def _restart(*units: str) -> str:
    """A command that starts units anew."""
    names = shlex.join(units)
    # Starts that were asked for do not count as crashes: without this systemd refuses the sixth in ten minutes.
    return f"systemctl reset-failed {names} 2>/dev/null; systemctl restart {names}"


def _last_lines(wanted: Wanted) -> str:
    """A command that prints the last of what the engine and its unit said: a start may fail before the engine."""
    of_the_unit = f"journalctl --no-pager --output=cat --unit={shlex.quote(wanted.unit)}"
    if wanted.record.service is None:
        return f"{of_the_unit} --lines=20"
    return f"{of_the_unit} --lines=5; docker logs --tail 20 rig-{wanted.engine} 2>&1"


def _wait(host: Host, wanted: Wanted, record: Served) -> str | None:
    """Poll until the engine is as it should be; why it is not when it does not become so."""
    begin = time.monotonic()
    crashed: int | None = None
    while True:
        seen = _look(host, wanted, record)
        if not steps(seen, record.fingerprint):
            return None
        elapsed = time.monotonic() - begin
        crashed = seen.crashes if crashed is None else crashed
        if seen.crashes - crashed >= CRASHES:
            return f"it ended by itself {seen.crashes - crashed} times within {elapsed:.0f} s"
        # Docker calls a container unhealthy that is just being started again, too.
        if (seen.health == "unhealthy" and seen.running) or elapsed >= wanted.timeout:
            return f"{seen.evidence}, after {elapsed:.0f} s of the {wanted.timeout} s it may take"
        time.sleep(POLL)
