"""A machine as a value, for comparison with another machine, or with its own earlier state."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lab.machine import Lab
from tests.lab.traces import eventually

COLLECT = Path(__file__).with_name("collect.py")


@dataclass(frozen=True)
class Fingerprint:
    """The contents of a machine, each item by its name."""

    state: dict[str, str]
    """The state that two machines with the same settings share: packages, files, units, containers and so on."""
    secrets: dict[str, str]
    """Fingerprints of the keys, by variable: random, and constant on one machine."""

    @classmethod
    def of(cls, lab: Lab) -> Fingerprint:
        # An engine answers a moment before Docker's check.
        eventually(lambda: lab.sudo("docker ps --quiet --filter health=starting", check=False).stdout, seconds=60)
        return cls(**_collect(lab, "state", "secrets"))


def differences(before: Fingerprint, after: Fingerprint) -> list[str]:
    """Differences on one and the same machine, a line each."""
    return _differences(before.state, after.state) + _differences(before.secrets, after.secrets)


def differences_between(one: Fingerprint, other: Fingerprint) -> list[str]:
    """Differences between two machines, a line each: their keys have the same names and must differ."""
    found = _differences(one.state, other.state)
    found += [
        f"{name} is the same on both" for name, key in one.secrets.items() if other.secrets.get(name) == key
    ]
    return found + [f"{name} is on one machine only" for name in one.secrets.keys() ^ other.secrets.keys()]


def lives(lab: Lab) -> dict[str, str]:
    """Every lasting service and container of the machine, with a value that changes at each start."""
    return _collect(lab, "lives")["lives"]


def restarted(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Services and containers that did not simply keep running: restarted, gone, or new."""
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def _collect(lab: Lab, *parts: str) -> dict[str, dict[str, str]]:
    subnet = lab.address.rpartition(".")[0] + "."
    shown = lab.sudo(f"python3 - {subnet} {' '.join(parts)}", input=COLLECT.read_text())
    found: dict[str, dict[str, str]] = json.loads(shown.stdout)
    return found


def _differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    return [
        f"{name}: {one.get(name, 'missing')} became {other.get(name, 'missing')}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]
