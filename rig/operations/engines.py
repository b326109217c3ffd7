"""Engines that run with their current settings and key, and answer."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable
from typing import TypeAlias

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, State, operation

from rig.engines import EngineState, idle_steps, steps
from rig.facts.engines import Alternatives, ContainerEngine, Engines, ImagePresent, NativeEngine
from rig.operations import Commands
from rigd.modes.choice import chosen

_Fact: TypeAlias = tuple[type[ContainerEngine] | type[NativeEngine], dict[str, str | int]]
"""A fact and its arguments, to be read again while an engine starts."""

POLL = 1.0
"""Seconds between two looks at an engine that is starting."""


@operation()
def image(reference: str) -> Commands:
    """The image, named with its digest, is on the machine."""
    if not host.get_fact(ImagePresent, image=reference):
        yield f"docker pull --quiet {shlex.quote(reference)}"


@operation()
def container(
    engine: str, fingerprint: str, address: str, port: int, timeout: int, rivals: tuple[str, ...] = ()
) -> Commands:
    """The engine's container runs with ``fingerprint`` and its current key, healthy within ``timeout`` seconds.

    ``rivals``: units of the group of alternatives that it belongs to, its own included. Of these the one that was
    chosen on the machine runs; the others are stopped.
    """
    fact: _Fact = (ContainerEngine, {"engine": engine, "address": address, "port": port})
    logs = f"docker logs --tail 20 rig-{engine} 2>&1"
    unit = f"rig-container@{engine}.service"
    if _is_idle(unit, rivals):
        yield from _idle(unit, fact, f"docker stop rig-{engine} 2>/dev/null || true")
    else:
        yield from _converge(engine, unit, fact, fingerprint, timeout, logs)


@operation()
def native(
    engine: str,
    fingerprint: str,
    variable: str,
    address: str,
    port: int,
    timeout: int,
    rivals: tuple[str, ...] = (),
) -> Commands:
    """The engine's service runs with ``fingerprint`` and its current key, healthy within ``timeout`` seconds.

    ``rivals``: as of a container.
    """
    fact: _Fact = (NativeEngine, {"engine": engine, "variable": variable, "address": address, "port": port})
    unit = f"rig-native@{engine}.service"
    logs = f"journalctl --no-pager --output=cat --lines=20 --unit={shlex.quote(unit)}"
    if _is_idle(unit, rivals):
        yield from _idle(unit, fact)
    else:
        yield from _converge(engine, unit, fact, fingerprint, timeout, logs)


@operation()
def retired(wanted: list[str]) -> Commands:
    """No engine runs, or starts at boot, besides the units in ``wanted``; a retired container is removed."""
    for unit in host.get_fact(Engines):
        if unit in wanted:
            continue
        quoted = shlex.quote(unit)
        kind, _, engine = unit.removesuffix(".service").partition("@")
        yield f"systemctl disable --now {quoted}"
        if kind == "rig-container":
            yield f"docker rm --force rig-{engine}"
        yield f"rm -rf {shlex.quote(f'/etc/systemd/system/{unit}.d')} && systemctl daemon-reload"
        # A failed unit stays listed until it is forgotten.
        yield f"systemctl reset-failed {quoted} 2>/dev/null || true"


def _is_idle(unit: str, rivals: tuple[str, ...]) -> bool:
    """Whether an alternative to this unit is the one that is to run."""
    return bool(rivals) and chosen(host.get_fact(Alternatives, units=rivals)) != unit


def _idle(unit: str, fact: _Fact, besides: str | None = None) -> Commands:
    kind, arguments = fact
    for step in idle_steps(host.get_fact(kind, **arguments)):
        if step == "daemon-reload":
            yield "systemctl daemon-reload"
        else:
            yield f"systemctl {step} {shlex.quote(unit)}"
            if step == "stop" and besides is not None:
                # Docker itself may have started the container, without its unit.
                yield besides


def _converge(engine: str, unit: str, fact: _Fact, fingerprint: str, timeout: int, logs: str) -> Commands:
    kind, arguments = fact
    for step in steps(host.get_fact(kind, **arguments), fingerprint):
        if step == "wait":
            yield FunctionCommand(_wait, (engine, fact, fingerprint, timeout, logs), {})
        elif step == "daemon-reload":
            yield "systemctl daemon-reload"
        else:
            yield f"{_forget(unit) if step == 'restart' else ''}systemctl {step} {shlex.quote(unit)}"


def _forget(unit: str) -> str:
    """Starts that were asked for do not count as crashes: without this systemd refuses the sixth in ten minutes."""
    return f"systemctl reset-failed {shlex.quote(unit)} 2>/dev/null; "


def _wait(state: State, host: Host, engine: str, fact: _Fact, fingerprint: str, timeout: int, logs: str) -> bool:
    """Poll until the engine is as it should be; its last log lines are shown when it does not become so."""
    kind, arguments = fact
    begin = time.monotonic()
    while (elapsed := time.monotonic() - begin) < timeout:
        seen: EngineState = host.get_fact(kind, **arguments)
        if not steps(seen, fingerprint):
            return True
        if seen.health == "unhealthy":
            break
        time.sleep(POLL)
    logger.error(
        f"{host.print_prefix}engine {engine} did not become healthy within {elapsed:.0f} of {timeout} s; "
        "its last lines:"
    )
    for line in _lines(host, logs):
        logger.error(f"{host.print_prefix}  {line}")
    return False


def _lines(host: Host, command: str) -> Iterable[str]:
    _, output = host.run_shell_command(command, _sudo=bool(host.state.config.SUDO))
    return output.stdout_lines
