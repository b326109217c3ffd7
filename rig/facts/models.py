"""Model files on a machine, and the records of their verification."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra.api import FactBase

RECORDS = "/var/lib/rig/models"
"""Directory of records: one line each, what STAT says and the hash, written right after that was computed."""

STAT = "%s %.Y %.Z %i"
"""Size, times of the last change of content and status, and inode. Nobody can set the status time back, as ``touch``
does with the other one."""


@dataclass(frozen=True)
class ModelState:
    """A model file as it lies there."""

    stat: str
    """What STAT says of the file; empty when it is missing."""
    record: str
    """What was recorded when it was last hashed; empty without a record."""

    def verified(self, size: int, sha256: str) -> bool:
        """Whether the file is the one whose hash was found right: in constant time, without reading it."""
        return self.stat != "" and self.stat.split()[0] == str(size) and self.record == f"{self.stat} {sha256}"


class Models(FactBase[dict[str, ModelState]]):
    """State of each named file."""

    def command(self, paths: dict[str, str]) -> str:
        pairs = " ".join(shlex.quote(f"{name}={path}") for name, path in paths.items())
        return f"""
for pair in {pairs}; do
  name=${{pair%%=*}}; path=${{pair#*=}}
  record=$(cat "{RECORDS}/$name.verified" 2>/dev/null)
  printf "%s\\t%s\\t%s\\n" "$name" "$(stat -c "{STAT}" "$path" 2>/dev/null)" "$record"
done
true
"""

    def process(self, output: list[str]) -> dict[str, ModelState]:
        rows = (line.split("\t") for line in output)
        return {name: ModelState(stat=stat, record=record) for name, stat, record in rows}
