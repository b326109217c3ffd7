"""State of each engine on a machine, by Docker, systemd, the kernel and an HTTP request."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from pyinfra.api import FactBase

from rig.engines.served import COMPOSE as COMPOSE_FILE
from rig.engines.served import FOLDER, path
from rig.engines.steps import EngineState
from rig.facts.secrets import KEYS
from rigd.models.manifest import IMAGES
from rigd.modes.choice import Unit

COMPOSE = f"docker compose --project-name rig --env-file {KEYS} --file {COMPOSE_FILE}"
CONFIG_HASH = "com.docker.compose.config-hash"
UNITS = "/etc/systemd/system"

# For both kinds: systemd's state, the engine's health, and its last good record. The key goes from its file to curl
# through a pipe, where nobody sees it.
_UNIT = """
systemctl show --property=ActiveState,UnitFileState,NeedDaemonReload,NRestarts {unit}
url=http://{address}:{port}
echo "Http=$(curl --silent --max-time 5 --output /dev/null --write-out "%{{http_code}}" $url/health 2>/dev/null)"
key=$(sed -n 's/^{variable}=\\(.*\\)/header = "Authorization: Bearer \\1"/p' {keys} 2>/dev/null)
models=$(printf %s "$key" | curl --config - --silent --max-time 5 $url/v1/models 2>/dev/null)
echo "Listed=$(printf %s "$models" | grep -cE '"id" ?: ?"{model}"')"
echo "Served=$(sha256sum {record} 2>/dev/null | cut -c-64)"
"""


class ContainerEngine(FactBase[EngineState]):
    """State of an engine in a container.

    Our label shows changed settings before the compose file is written. compose's own hash covers the file as it is,
    the key included: a container made from an edited file, or with another key, has another hash.
    """

    def command(self, engine: str, variable: str, address: str, port: int, model: str, on_card: bool) -> str:
        unit = shlex.quote(f"rig-container@{engine}.service")
        labels = [f'{{{{index .Config.Labels "{label}"}}}}' for label in ("rig.settings", CONFIG_HASH)]
        shown = " ".join(["{{.State.Status}} {{.State.Health.Status}} {{.RestartCount}}", *labels])
        pids = f"$(docker top rig-{engine} -eo pid 2>/dev/null | tail -n +2 | tr -d ' ')"
        card = f'nvidia-smi --query-compute-apps=pid --format=csv,noheader 2>/dev/null | grep -cxF "{pids}"'
        return _UNIT.format(
            unit=unit, address=address, port=port, variable=variable, model=model, keys=KEYS, record=path(engine)
        ) + (
            f"echo \"Container=$(docker inspect --format '{shown}' rig-{engine} 2>/dev/null)\"\n"
            f'echo "Wanted=$({COMPOSE} config --hash {engine} 2>/dev/null)"\n'
            + (f'echo "Card=$({card})"\n' if on_card else "")
        )

    def process(self, output: list[str]) -> EngineState:
        values = _values(output)
        status, verdict, restarts, settings, made_from = (*values["Container"].split(), "", "", "", "", "")[:5]
        health, evidence = _health(values)
        return EngineState(
            enabled=values["UnitFileState"] == "enabled",
            reload_needed=values["NeedDaemonReload"] == "yes",
            active=values["ActiveState"] == "active",
            running=status == "running",
            settings=settings,
            intact=values["Wanted"].split()[1:] == [made_from],
            # Docker's verdict counts failures over time; before there is one, the engine's own answer counts.
            health="unhealthy" if verdict == "unhealthy" else health,
            crashes=int(restarts) if restarts.isdecimal() else 0,
            served=values["Served"],
            evidence=evidence,
        )


class NativeEngine(FactBase[EngineState]):
    """State of an engine under systemd; its fingerprint comes from the running process' environment.

    systemd writes the credential at every start: a younger unit file was edited, or repaired, since then. Keys are
    compared on the machine, and only the verdict leaves it.
    """

    def command(self, engine: str, variable: str, address: str, port: int, model: str) -> str:
        unit = f"rig-native@{engine}.service"
        files = f"{UNITS}/rig-native@.service {UNITS}/{unit}.d/engine.conf $(ls {UNITS}/{unit} 2>/dev/null)"
        return _UNIT.format(
            unit=shlex.quote(unit),
            address=address,
            port=port,
            variable=variable,
            model=model,
            keys=KEYS,
            record=path(engine),
        ) + (
            f"pid=$(systemctl show --property=MainPID --value {shlex.quote(unit)})\n"
            'echo "Pid=$pid"\n'
            'echo "Settings=$(tr "\\0" "\\n" 2>/dev/null <"/proc/$pid/environ" | sed -n s/^RIG_SETTINGS=//p)"\n'
            f"credential=/run/credentials/{unit}/key\n"
            f'key=$(sed -n "s/^{variable}=//p" {KEYS} 2>/dev/null)\n'
            # A program that was replaced meanwhile still runs from the deleted file.
            'case $(readlink "/proc/$pid/exe" 2>/dev/null) in *" (deleted)") key= ;; esac\n'
            '[ -n "$key" ] && [ "$key" = "$(cat "$credential" 2>/dev/null)" ] && '
            f'[ -z "$(find {files} -newer "$credential" 2>&1)" ] && echo Intact=yes\n'
            "true\n"
        )

    def process(self, output: list[str]) -> EngineState:
        values = _values(output)
        health, evidence = _health(values)
        return EngineState(
            enabled=values["UnitFileState"] == "enabled",
            reload_needed=values["NeedDaemonReload"] == "yes",
            active=values["ActiveState"] == "active",
            running=values["Pid"] not in ("", "0"),
            settings=values["Settings"],
            intact="Intact" in values,
            health=health,
            crashes=int(values["NRestarts"] or 0),
            served=values["Served"],
            evidence=evidence,
        )


class Inspected(FactBase[Mapping[str, Any]]):
    """A container's configuration in Docker; empty without one. Its environment, which holds a key, is left out."""

    @staticmethod
    def default() -> Mapping[str, Any]:
        return {}

    def command(self, container: str) -> str:
        shown = '{"HostConfig":{{json .HostConfig}},"Networks":{{json .NetworkSettings.Networks}},' \
            '"User":{{json .Config.User}},"Entrypoint":{{json .Config.Entrypoint}},"Cmd":{{json .Config.Cmd}},' \
            '"Image":{{json .Config.Image}}}'
        limits = '[{{.MemoryLimit}},{{.SwapLimit}},{{.CPUCfsQuota}},{{.PidsLimit}}]'
        return (
            f"docker inspect --format '{shown}' {shlex.quote(container)} 2>/dev/null && "
            f"docker info --format '{limits}' 2>/dev/null || true"
        )

    def process(self, output: list[str]) -> Mapping[str, Any]:
        if len(output) != 2:
            return {}
        limits = zip(("memory", "swap", "cpus", "processes"), json.loads(output[1]), strict=True)
        return {**json.loads(output[0]), "Unlimited": [name for name, supported in limits if not supported]}


class Alternatives(FactBase[Mapping[str, Unit]]):
    """Boot and run state of each of these units, in the given order."""

    def command(self, units: tuple[str, ...]) -> str:
        return f"systemctl show --property=Id,ActiveState,UnitFileState {shlex.join(units)}"

    def process(self, output: list[str]) -> dict[str, Unit]:
        blocks = "\n".join(output).split("\n\n")
        found = [_values(block.splitlines()) for block in blocks]
        return {
            values["Id"]: Unit(
                enabled=values["UnitFileState"] == "enabled",
                active=values["ActiveState"] in ("active", "activating", "reloading"),
            )
            for values in found
        }


class Engines(FactBase[tuple[str, ...]]):
    """Units of every engine that is loaded, enabled or set up on the machine, whatever the settings have."""

    @staticmethod
    def default() -> tuple[str, ...]:
        return ()

    def command(self) -> str:
        patterns = "'rig-container@*.service' 'rig-native@*.service'"
        return (
            f"{{ systemctl list-units --all --plain --no-legend {patterns}; "
            f"systemctl list-unit-files --no-legend {patterns}; "
            f"ls {UNITS} {UNITS}/multi-user.target.wants; }} 2>/dev/null | "
            r"grep -oE 'rig-(container|native)@[a-z0-9-]+\.service' | sort -u"
        )

    def process(self, output: Iterable[str]) -> tuple[str, ...]:
        return tuple(output)


@dataclass(frozen=True)
class Defined:
    """The definitions of engines on a machine, as text."""

    compose: str | None = None
    """The compose file; None without one."""
    records: Mapping[str, str] = field(default_factory=dict)
    """The record of each engine's last good definition, by the engine's name."""


class Definitions(FactBase[Defined]):
    """The compose file and every record, in one round trip."""

    @staticmethod
    def default() -> Defined:
        return Defined()

    def command(self) -> str:
        return (
            f"for path in {COMPOSE_FILE} {FOLDER}/*.json; do "
            '[ ! -f "$path" ] || printf "%s\\t%s\\n" "$path" "$(base64 -w 0 "$path")"; done'
        )

    def process(self, output: list[str]) -> Defined:
        texts = {}
        for line in output:
            name, _, encoded = line.partition("\t")
            texts[name] = base64.b64decode(encoded).decode(errors="replace")
        compose = texts.pop(COMPOSE_FILE, None)
        return Defined(compose, {PurePosixPath(name).stem: text for name, text in texts.items()})


class PortHolders(FactBase[tuple[str, ...]]):
    """Units of the engines that listen on a port now; for a published container, its unit."""

    @staticmethod
    def default() -> tuple[str, ...]:
        return ()

    def command(self, port: int) -> str:
        return (
            f"{{ ss -Hltnp 'sport = :{port}' | grep -oE 'pid=[0-9]+' | sed 's/pid=//' | "
            r"while read -r pid; do grep -oE 'rig-native@[a-z0-9-]+\.service' /proc/$pid/cgroup; done; "
            f"docker ps --filter label=rig.engine --filter publish={port} "
            "--format 'rig-container@{{.Label \"rig.engine\"}}.service'; } 2>/dev/null | sort -u"
        )

    def process(self, output: Iterable[str]) -> tuple[str, ...]:
        return tuple(output)


SUMS = ".rig-sha256"
"""File with the hashes of an unpacked archive's files, in its folder."""
LINKS = ".rig-links"
"""File with the targets of its links, in the same folder."""
OWN = f"! -name {SUMS} ! -name {LINKS}"
LIST_LINKS = "find . -type l -printf '%p %l\\n' | LC_ALL=C sort"


class Unpacked(FactBase[bool]):
    """Whether an archive is unpacked in a folder, with every file unchanged, and none writable by others."""

    def command(self, directory: str, program: str) -> str:
        folder = shlex.quote(directory)
        return (
            f"cd {folder} 2>/dev/null && [ -x {shlex.quote(program)} ] && sha256sum --check --status {SUMS} 2>/dev/null"
            f' && [ "$(find . -type f {OWN} | wc -l)" = "$(wc -l <{SUMS})" ]'
            f' && [ -f {LINKS} ] && [ "$({LIST_LINKS})" = "$(cat {LINKS})" ]'
            ' && [ -z "$(find . ! -user "$(id -u)" -o ! -type l -perm /6022; find .. -maxdepth 0 -perm /022)" ]'
            " && echo yes || echo no"
        )

    def process(self, output: list[str]) -> bool:
        return output == ["yes"]


class ImagePresent(FactBase[bool]):
    """Whether Docker holds the image with this digest, from a pull that finished and reached the disk."""

    def command(self, image: str) -> str:
        name = shlex.quote(image)
        return (
            f"if grep -qxF {name} {IMAGES} 2>/dev/null && docker image inspect {name} >/dev/null 2>&1; "
            "then echo yes; else echo no; fi"
        )

    def process(self, output: list[str]) -> bool:
        return output == ["yes"]


def _values(output: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in output if "=" in line)


def _health(values: Mapping[str, str]) -> tuple[Literal["healthy", "starting", "unhealthy"], str]:
    """The verdict and its evidence. An engine that does not answer yet is starting: whether it runs at all is another
    question. One that answers without its model, or without the card that it should use, is unhealthy.
    """
    code, listed, card = values["Http"], values["Listed"] != "0", values.get("Card")
    evidence = f"asked for its health it answers {code if code != '000' else 'nothing'}"
    if code != "200":
        return "starting", evidence
    evidence += f", its model is {'' if listed else 'not '}listed"
    if card is not None:
        evidence += f", it is {'' if card != '0' else 'not '}on the graphics card"
    return "healthy" if listed and card != "0" else "unhealthy", evidence
