"""The settings that the monitoring programs have loaded, and Prometheus' copies of the engines' keys."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

from rig.facts import in_force
from rig.facts.in_force import InForceState
from rig.facts.secrets import KEYS as STORE
from rig.monitoring.prometheus import KEYS

FOLDER = "750 root:prometheus"
FILE = "640 root:prometheus"


@dataclass(frozen=True)
class CopyState:
    """Verdicts on the copies of keys; never a key."""

    folder: str
    """Mode and owner, such as ``750 root:prometheus``; empty when it is missing."""
    stale: tuple[str, ...]
    """Engines whose copy is missing, differs from the store, or is readable by others."""
    needless: tuple[str, ...]
    """Files of engines that are no longer scraped."""


class Copies(FactBase[CopyState]):
    """State of the copies, compared on the machine by shell builtins: no key leaves it, and none is an argument."""

    def command(self, engines: dict[str, str]) -> str:
        pairs = " ".join(f"{shlex.quote(engine)}={variable}" for engine, variable in engines.items())
        return f"""
stat -c "folder %a %U:%G" {KEYS} 2>/dev/null
for pair in {pairs}; do
  engine=${{pair%%=*}}; variable=${{pair#*=}}; own={KEYS}/$engine
  if [ "$(stat -c "%a %U:%G" "$own" 2>/dev/null)" != "{FILE}" ] ||
     [ "$(cat "$own")" != "$(sed -n "s/^$variable=//p" {STORE} 2>/dev/null)" ]; then echo "stale $engine"; fi
done
for own in {KEYS}/* {KEYS}/.new; do
  [ -e "$own" ] || continue
  case " {pairs} " in *" ${{own##*/}}="*) ;; *) echo "needless ${{own##*/}}" ;; esac
done
true
"""

    def process(self, output: list[str]) -> CopyState:
        found: dict[str, list[str]] = {}
        for line in output:
            verdict, _, name = line.partition(" ")
            found.setdefault(verdict, []).append(name)
        return CopyState(
            folder="".join(found.get("folder", [])),
            stale=tuple(found.get("stale", [])),
            needless=tuple(found.get("needless", [])),
        )


class Loaded(FactBase[InForceState]):
    """Prometheus' own fingerprint; and the age of its files, as an edited file that was loaded has the same one."""

    def command(self, unit: str, port: int, files: Iterable[str]) -> str:
        rules = f"http://127.0.0.1:{port}/api/v1/rules?type=record"
        shown = f"""curl --silent --max-time 10 '{rules}' | grep -o '"fingerprint":"[0-9a-f]*"' | cut -d'"' -f4"""
        return in_force.script(shown, unit, files)

    def process(self, output: list[str]) -> InForceState:
        return in_force.state(output)


@dataclass(frozen=True)
class TellingState:
    """The configuration that the running Alertmanager has loaded, and access to the receivers' secrets."""

    loaded: int | None
    """Alertmanager's hash of the configuration; None if it does not answer yet."""
    open: tuple[str, ...]
    """Files of secrets that users other than root can read or change."""


class Telling(FactBase[TellingState]):
    """Alertmanager's hash, and access to files; no secret is read."""

    def command(self, port: int, secrets: Iterable[str]) -> str:
        return f"""
curl --silent --max-time 10 http://127.0.0.1:{port}/metrics | sed -n 's/^alertmanager_config_hash /loaded /p'
stat -c "%a %U:%G %n" {shlex.join(secrets) or "/dev/null"} 2>/dev/null | grep -v -e "^600 root:root " -e " /dev/null$"
true
"""

    def process(self, output: list[str]) -> TellingState:
        loaded = [int(float(line.split()[1])) for line in output if line.startswith("loaded ")]
        opened = tuple(line.split(" ", 2)[2] for line in output if not line.startswith("loaded "))
        return TellingState(loaded[0] if loaded else None, opened)

    @staticmethod
    def default() -> TellingState:
        return TellingState(None, ())


@dataclass(frozen=True)
class ServingState:
    """The health of Grafana."""

    well: bool
    """It answers, and reports that it is healthy."""
    active: str
    """systemd's state of its unit."""
    crashes: int
    """Restarts after it had ended by itself."""


class Serving(FactBase[ServingState]):
    """Grafana's own health (/api/health, which needs no login), and systemd's state."""

    def command(self, unit: str, port: int) -> str:
        url = f"http://127.0.0.1:{port}/api/health"
        return (
            f'echo "Well=$(curl --silent --fail --max-time 10 {url} | grep -cE \'"database": *"ok"\')"; '
            f"systemctl show --property=ActiveState,NRestarts {unit}"
        )

    def process(self, output: list[str]) -> ServingState:
        values = dict(line.split("=", 1) for line in output)
        return ServingState(values["Well"] == "1", values["ActiveState"], int(values["NRestarts"]))
