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
"""Seconds between two polls of a starting engine."""


@dataclass(frozen=True)
class Wanted:
    """The desired state of an engine, in a container or native."""

    engine: str
    unit: str
    variable: str
    """Variable of its key in the key store."""
    timeout: int
    """Seconds until it must be healthy."""
    record: Served
    """Its definition, recorded as soon as it is healthy."""
    rivals: tuple[str, ...]
    """Units of its group of alternatives, its own included. The one chosen on the machine runs, the others do not."""


@operation()
def image(reference: str) -> Commands:
    """The machine has the image with this digest."""
    if not host.get_fact(ImagePresent, image=reference):
        yield f"sh -c {shlex.quote(pull(reference))}"


def pull(reference: str) -> str:
    """A script that pulls an image, and reads it back: Docker accepts layers that a power cut emptied as complete.

    `docker save` compares each file with the checksum from its pull. The line in the list of images is the stamp, and
    later shows which images may be removed: it is written after the layers have reached the disk.
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
    """The compose file has this engine as in ``wanted``, and every other one in its last good definition."""
    found = host.get_fact(Definitions)
    document = served.amended(wanted, engine, alternatives, found.compose, found.records)
    yield from files.written._inner(path=served.COMPOSE, text=render(served.COMPOSE, compose=document))


@operation()
def serving(wanted: Wanted) -> Commands:
    """The engine runs as wanted with its current key, and is healthy in time; or runs as before."""
    seen = _look(host, wanted, wanted.record)
    yield from _idle(wanted, seen) if _is_idle(wanted) else _converge(wanted, seen)


@operation()
def retired(wanted: list[str]) -> Commands:
    """No engine outside ``wanted`` (units) runs or starts at boot; a retired container is removed."""
    for unit in host.get_fact(Engines):
        if unit in wanted:
            continue
        quoted = shlex.quote(unit)
        kind, _, engine = unit.removesuffix(".service").partition("@")
        # A folder of the owner's may exist before any unit does.
        yield f"systemctl disable --now {quoted} || ! systemctl cat {quoted} >/dev/null 2>&1"
        if kind == "rig-container":
            yield f"docker rm --force rig-{engine}"
            if not any(other.startswith("rig-container@") for other in wanted):
                # Models in it count as served.
                yield f"rm -f {served.COMPOSE}"
        yield f"rm -f {shlex.quote(served.path(engine))}"
        # After all else: its folder shows the next run an engine that this run did not retire completely.
        own = shlex.quote(f"{UNITS}/{unit}")
        yield f"rm -rf {own}.d && rm -f {own} && systemctl daemon-reload"
        # A failed unit stays listed until reset-failed.
        yield f"systemctl reset-failed {quoted} 2>/dev/null || true"


def _is_idle(wanted: Wanted) -> bool:
    """Whether the machine's choice is an alternative to this engine."""
    return bool(wanted.rivals) and chosen(host.get_fact(Alternatives, units=wanted.rivals)) != wanted.unit


def _look(host: Host, wanted: Wanted, record: Served) -> EngineState:
    """The current state of the engine, at the endpoint in `record`."""
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
    # Only a healthy engine gets here.
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


def _serve(state: State, host: Host, wanted: Wanted, restart: bool) -> bool:
    """Wait until the engine serves. If it fails, show its last lines and restore its last good definition.

    `restart`: start it first. A start that systemd or Docker refuses counts as any other failure.
    """
    displaced = _make_way(state, host, wanted) if restart else []
    if restart:
        # A rollback leaves a unit of its own; and compose keeps a container with the right labels, whatever else about
        # it was changed.
        own = shlex.quote(f"{UNITS}/{wanted.unit}")
        shell.run(state, host, f"[ ! -e {own} ] || {{ rm -f {own} && systemctl daemon-reload; }}")
        if wanted.record.service is not None:
            shell.run(state, host, f"docker rm --force rig-{wanted.engine}")
    trouble = _trouble(state, host, wanted, wanted.record, restart)
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
        # As before, too: this run ends here and does not reach them.
        shell.run(state, host, _restart(*displaced))
    return False


def _make_way(state: State, host: Host, wanted: Wanted) -> list[str]:
    """Stop the engines that hold this engine's port from before; returns their units."""
    holders = host.get_fact(PortHolders, port=int(wanted.record.asked["port"]))
    units = in_the_way(holders, wanted.unit, wanted.rivals)
    if units:
        # Docker itself may have started a container, without its unit.
        names = [f"rig-{unit.removesuffix('.service').partition('@')[2]}" for unit in units if "-container@" in unit]
        docker = f"; docker stop {shlex.join(names)}" if names else ""
        shell.run(state, host, f"systemctl stop {shlex.join(units)}{docker}")
    return units


def _take_back(state: State, host: Host, wanted: Wanted, before: Served) -> None:
    """Run the engine in its last good definition."""
    restored = before.restored(wanted.engine, host.get_fact(FileText, path=served.COMPOSE))
    # The template that served is the engine's own unit only while the shared one is another.
    own, template = f"{UNITS}/{wanted.unit}", f"{UNITS}/{wanted.unit.partition('@')[0]}@.service"
    if own in restored and restored[own].strip() == (host.get_fact(FileText, path=template) or "").strip():
        del restored[own]
    commands = [_kept(path, text) for path, text in restored.items()]
    shell.run(state, host, " && ".join([*commands, "systemctl daemon-reload"]))
    trouble = _trouble(state, host, wanted, before, restart=True)
    now = "serves again as before" if trouble is None else f"does not serve as before either: {trouble}"
    logger.error(f"{host.print_prefix}engine {wanted.engine} {now}")


def _trouble(state: State, host: Host, wanted: Wanted, record: Served, restart: bool) -> str | None:
    """Why the engine does not become healthy as defined in `record`; None when it does."""
    if restart and not shell.run(state, host, _restart(wanted.unit))[0]:
        return "its start failed"
    return _wait(host, wanted, record)


def _restart(*units: str) -> str:
    """A command that restarts units."""
    names = shlex.join(units)
    # Intended starts do not count as crashes: without this systemd refuses the sixth in ten minutes.
    return f"systemctl reset-failed {names} 2>/dev/null; systemctl restart {names}"


def _last_lines(wanted: Wanted) -> str:
    """A command that prints the last lines of the engine and of its unit: a start may fail before the engine."""
    of_the_unit = f"journalctl --no-pager --output=cat --unit={shlex.quote(wanted.unit)}"
    if wanted.record.service is None:
        return f"{of_the_unit} --lines=20"
    return f"{of_the_unit} --lines=5; docker logs --tail 20 rig-{wanted.engine} 2>&1"


def _wait(host: Host, wanted: Wanted, record: Served) -> str | None:
    """Poll until the engine is in its desired state; returns the reason if it does not get there, else None."""
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
        # Docker also calls a container unhealthy while it restarts.
        if (seen.health == "unhealthy" and seen.running) or elapsed >= wanted.timeout:
            return f"{seen.evidence}, after {elapsed:.0f} s of the {wanted.timeout} s it may take"
        time.sleep(POLL)
