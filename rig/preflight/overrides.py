"""Files of others that undo what a deploy writes or runs, at the next boot for one: each with its remedy."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from rig.backup import CRON_UNIT
from rig.monitoring import grafana, prometheus
from rig.preflight.machine import Overrides
from rig.settings import Settings
from rigd.gateway.config import UNIT as GATEWAY

OURS = {"sysctl": "60-rig.conf", "journald": "60-rig.conf", "periodic": "20auto-upgrades"}
UNATTENDED = "52rig-unattended-upgrades"
DROP_INS = ("rig.conf", "models.conf", "engine.conf")
"""Names of the drop-ins that Rig writes."""
ETC = PurePosixPath("/etc/systemd/system")
ALWAYS = ("systemd-journald.service", "apt-daily.timer", "apt-daily-upgrade.timer", "docker.service", "docker.socket")
"""Units that run with any settings."""


def problems(settings: Settings, found: Overrides) -> list[str]:
    """Every file that undoes ours, each a sentence with its remedy."""
    return [
        *_sysctl(settings, found.sysctl),
        *_journald(settings, found.journald),
        *_apt(settings, found.apt),
        *_drop_ins(found.drop_ins),
        *_masks(settings, found.masks),
    ]


def _later(found: Mapping[str, str], ours: str) -> Iterator[tuple[str, str]]:
    """Files read after ours: by name, whatever folder they are in."""
    for path, text in found.items():
        where = PurePosixPath(path)
        if where.parent.name.endswith(".d") and where.name > ours:
            yield path, text


def _assignments(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, separator, value = line.strip().partition("=")
        if separator and not key.startswith(("#", ";")):
            yield key.strip(), value.strip()


def _sysctl(settings: Settings, found: Mapping[str, str]) -> Iterator[str]:
    for name, wanted in settings.machine.sysctl.items():
        if wanted is None:
            continue
        for path, text in _later(found, OURS["sysctl"]):
            for key, value in _assignments(text):
                pattern = key.lstrip("-").replace("/", ".")
                if fnmatch.fnmatchcase(name, pattern) and value.split() != str(wanted).split():
                    yield (
                        f"{path} sets {name} to {value} at each boot, after machine.sysctl's {wanted}; remove that "
                        f"line, or write '{name}: {value}' in machine.sysctl"
                    )


def _journald(settings: Settings, found: Mapping[str, str]) -> Iterator[str]:
    journald = settings.machine.journald
    wanted = {
        "Storage": "persistent",
        "SystemMaxUse": journald.max_use,
        "MaxRetentionSec": journald.max_retention,
    }
    for path, text in _later(found, OURS["journald"]):
        for key, value in _assignments(text):
            if key in wanted and value != str(wanted[key]):
                yield f"{path} sets {key}={value}, after Rig's own {wanted[key]} (machine.journald); remove that line"


def _apt(settings: Settings, found: Mapping[str, str]) -> Iterator[str]:
    enabled = str(int(settings.machine.security_updates.enabled))
    scalars = {
        "apt::periodic::update-package-lists": (OURS["periodic"], enabled),
        "apt::periodic::unattended-upgrade": (OURS["periodic"], enabled),
        "apt::periodic::enable": ("", "1"),
        "unattended-upgrade::automatic-reboot": (UNATTENDED, "false"),
    }
    for path, text in found.items():
        name = PurePosixPath(path).name
        # /etc/apt/apt.conf is read after all files of the folder.
        last = path == "/etc/apt/apt.conf"
        if name in (OURS["periodic"], UNATTENDED):
            continue
        for key, value in apt_options(text):
            ours, wanted = scalars.get(key.lower(), ("", ""))
            if key.lower() in scalars and (last or name > ours) and value != wanted:
                yield f'{path} sets {key} to "{value}", and machine.security_updates has "{wanted}"; remove that line'
            pattern = key.lower().startswith(("unattended-upgrade::origins-pattern", "unattended-upgrade::allowed-"))
            if pattern and (last or name > UNATTENDED) and "-security" not in value:
                yield f"{path} has {value or 'nothing'} installed unattended ({key}), not security updates; remove it"


def apt_options(text: str) -> Iterator[tuple[str, str]]:
    """Names and values in an apt.conf(5), in both its notations; a list's entry has the list's name."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    scope: list[str] = []
    name = ""
    # A string first, as two slashes in it begin no comment.
    for token in re.findall(r'"[^"\n]*"|//[^\n]*|#[^\n]*|[{};]|[^\s"{};]+', text):
        if token.startswith(("//", "#")):
            continue
        if token == "{":
            scope.append(name)
            name = ""
        elif token == "}":
            if scope:
                scope.pop()
            name = ""
        elif token == ";":
            name = ""
        elif token.startswith('"'):
            yield "::".join(part.strip(":") for part in (*scope, name) if part.strip(":")), token.strip('"')
        else:
            name = token


def _drop_ins(found: Iterable[str]) -> Iterator[str]:
    for path in found:
        where = PurePosixPath(path)
        if where.parent.parent != ETC or where.name not in DROP_INS:
            unit = where.parent.name.removesuffix(".d")
            yield (
                f"{path} changes {unit}, which is Rig's; remove it (sudo rm {path} && sudo systemctl daemon-reload), "
                "and write into group_data/ what you want otherwise"
            )


def _masks(settings: Settings, found: Iterable[str]) -> Iterator[str]:
    needed = set(_units(settings))
    for path in map(PurePosixPath, found):
        if path.name in needed:
            runtime = "--runtime " if path.is_relative_to("/run") else ""
            yield (
                f"{path.name} is masked, so that nothing starts it; unmask it (sudo systemctl unmask "
                f"{runtime}{path.name}), or take out of group_data/ what needs it"
            )


def _units(settings: Settings) -> Iterator[str]:
    """Units that a deploy runs with these settings."""
    yield from ALWAYS
    yield from map(settings.unit, settings.enabled_engines)
    if settings.backup.enabled:
        yield CRON_UNIT
    if settings.monitoring.enabled:
        yield from (*prometheus.UNITS, grafana.UNIT)
    if settings.gateway_wanted:
        yield GATEWAY
