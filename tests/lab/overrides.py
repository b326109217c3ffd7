"""A lab with other settings or another login: an entry of its own for the same machine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lab.machine import NAME, Lab


def altered(lab: Lab, directory: Path, settings: Mapping[str, Any] | None = None, **connection: Any) -> dict[str, str]:
    """The environment of a command that sees the lab's machine with this entry.

    ``settings`` are merged into the machine's own; ``connection`` replaces address, port, user and the like.
    """
    directory.mkdir(parents=True, exist_ok=True)
    hosts = yaml.safe_load((lab.directory / "hosts.yml").read_text())
    entry = hosts["hosts"][NAME]
    entry["settings"] = merged(entry["settings"], settings or {})
    entry |= connection
    (directory / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False))
    shutil.copyfile(lab.directory / "running", directory / "running")
    return {"RIG_LAB": str(directory)}


def merged(own: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``own``: mappings merge, anything else is replaced."""
    result = dict(own)
    for key, value in over.items():
        there = result.get(key)
        both = isinstance(there, Mapping) and isinstance(value, Mapping)
        result[key] = merged(there, value) if both else value  # type: ignore[arg-type]
    return result
