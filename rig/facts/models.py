"""Model files on a machine, and the records of their verification."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

RECORDS = "/var/lib/rig/models"
"""Directory of records: one line each, ``size mtime inode sha256``, written right after the hash was computed."""


@dataclass(frozen=True)
class ModelState:
    """A model file as it lies there."""

    stat: str
    """Size, mtime and inode of the file; empty when it is missing."""
    record: str
    """What was recorded when it was last hashed; empty without a record."""

    def verified(self, size: int, sha256: str) -> bool:
        """Whether the file is the one whose hash was found right: in constant time, without reading it."""
        return (
            self.stat != "" and self.stat.split()[0] == str(size) and self.record == f"{self.stat} {sha256}"
        )


class Models(FactBase[dict[str, ModelState]]):
    """State of each named file."""

    def command(self, paths: dict[str, str]) -> str:
        pairs = " ".join(shlex.quote(f"{name}={path}") for name, path in paths.items())
        return f"""
for pair in {pairs}; do
  name=${{pair%%=*}}; path=${{pair#*=}}
  printf "%s\\t%s\\t%s\\n" "$name" "$(stat -c "%s %.Y %i" "$path" 2>/dev/null)" "$(cat "{RECORDS}/$name.verified" 2>/dev/null)"
done
true
"""

    def process(self, output: list[str]) -> dict[str, ModelState]:
        rows = (line.split("\t") for line in output)
        return {name: ModelState(stat=stat, record=record) for name, stat, record in rows}


class Bytes(FactBase[int]):
    """How many bytes of a file, or of its unfinished download, are there."""

    def command(self, paths: Iterable[str]) -> str:
        return f"stat -c %s {shlex.join(paths)} 2>/dev/null | head -n 1"

    def process(self, output: list[str]) -> int:
        return int(output[0]) if output else 0
