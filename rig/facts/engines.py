"""State of each engine on a machine, by Docker, systemd, the kernel and an HTTP request."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Literal

from pyinfra.api import FactBase

from rig.engines import EngineState
from rig.facts.secrets import KEYS

# Shared by both: what systemd says, and the engine's own word on its health. 503 means that it is loading.
_UNIT = """
systemctl show --property=ActiveState,UnitFileState,NeedDaemonReload {unit}
key=$(sed -n "s/^{variable}=//p" {keys} 2>/dev/null)
health=http://{address}:{port}/health
echo "Http=$(curl --silent --max-time 5 --output /dev/null --write-out "%{{http_code}}" $health 2>/dev/null)"
"""


class ContainerEngine(FactBase[EngineState]):
    """State of an engine in a container. Keys are compared on the machine: only the verdict leaves it."""

    def command(self, engine: str, variable: str, address: str, port: int) -> str:
        unit = shlex.quote(f"rig-container@{engine}.service")
        shown = '{{.State.Status}} {{.State.Health.Status}} {{index .Config.Labels "rig.settings"}}'
        environment = "{{range .Config.Env}}{{println .}}{{end}}"
        return _UNIT.format(unit=unit, variable=variable, keys=KEYS, address=address, port=port) + (
            f"echo \"Container=$(docker inspect --format '{shown}' rig-{engine} 2>/dev/null)\"\n"
            f"held=$(docker inspect --format '{environment}' rig-{engine} 2>/dev/null | sed -n s/^LLAMA_API_KEY=//p)\n"
            'if [ -n "$key" ] && [ "$key" = "$held" ]; then echo Key=current; else echo Key=stale; fi\n'
        )

    def process(self, output: list[str]) -> EngineState:
        values = _values(output)
        status, health, settings = (*values["Container"].split(), "", "", "")[:3]
        return EngineState(
            enabled=values["UnitFileState"] == "enabled",
            reload_needed=values["NeedDaemonReload"] == "yes",
            active=values["ActiveState"] == "active",
            running=status == "running",
            settings=settings,
            key_current=values["Key"] == "current",
            # Docker's verdict counts failures over time; before it has one, the engine is asked itself.
            health="unhealthy" if health == "unhealthy" else _health(values["Http"]),
        )


class NativeEngine(FactBase[EngineState]):
    """State of an engine that systemd runs; its fingerprint is read from the running process' environment."""

    def command(self, engine: str, variable: str, address: str, port: int) -> str:
        unit = f"rig-native@{engine}.service"
        return _UNIT.format(unit=shlex.quote(unit), variable=variable, keys=KEYS, address=address, port=port) + (
            f"pid=$(systemctl show --property=MainPID --value {shlex.quote(unit)})\n"
            'echo "Pid=$pid"\n'
            'echo "Settings=$(tr "\\0" "\\n" 2>/dev/null <"/proc/$pid/environ" | sed -n s/^RIG_SETTINGS=//p)"\n'
            f"held=$(cat {shlex.quote(f'/run/credentials/{unit}/key')} 2>/dev/null)\n"
            'if [ -n "$key" ] && [ "$key" = "$held" ]; then echo Key=current; else echo Key=stale; fi\n'
        )

    def process(self, output: list[str]) -> EngineState:
        values = _values(output)
        return EngineState(
            enabled=values["UnitFileState"] == "enabled",
            reload_needed=values["NeedDaemonReload"] == "yes",
            active=values["ActiveState"] == "active",
            running=values["Pid"] not in ("", "0"),
            settings=values["Settings"],
            key_current=values["Key"] == "current",
            health=_health(values["Http"]),
        )


class Engines(FactBase[tuple[str, ...]]):
    """Units of every engine that is loaded or enabled on the machine, whatever the settings say."""

    @staticmethod
    def default() -> tuple[str, ...]:
        return ()

    def command(self) -> str:
        patterns = "'rig-container@*.service' 'rig-native@*.service'"
        return (
            f"{{ systemctl list-units --all --plain --no-legend {patterns}; "
            f"systemctl list-unit-files --no-legend {patterns}; "
            "ls /etc/systemd/system/multi-user.target.wants; } 2>/dev/null | "
            r"grep -oE 'rig-(container|native)@[a-z0-9-]+\.service' | sort -u"
        )

    def process(self, output: Iterable[str]) -> tuple[str, ...]:
        return tuple(output)


class ImagePresent(FactBase[bool]):
    """Whether Docker holds the image with this digest."""

    def command(self, image: str) -> str:
        return f"if docker image inspect {shlex.quote(image)} >/dev/null 2>&1; then echo yes; else echo no; fi"

    def process(self, output: list[str]) -> bool:
        return output == ["yes"]


def _values(output: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output if "=" in line)


def _health(code: str) -> Literal["healthy", "starting", "unhealthy"]:
    """An engine that does not answer yet is starting: whether it runs at all is another question."""
    return "healthy" if code == "200" else "starting"
