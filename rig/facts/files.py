"""A file on the machine, looked at in one round trip."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from pyinfra.api import FactBase


@dataclass(frozen=True)
class FileState:
    """A regular file."""

    access: str
    """Mode, owner and group, such as ``644 root:root``."""
    sha256: str


class Written(FactBase[FileState | None]):
    """State of a regular file; None when there is none under this name, or something else such as a link."""

    def command(self, path: str) -> str:
        quoted = shlex.quote(path)
        return f'[ ! -f {quoted} ] || [ -L {quoted} ] || {{ stat -c "%a %U:%G" {quoted}; sha256sum <{quoted}; }}'

    def process(self, output: list[str]) -> FileState | None:
        return FileState(access=output[0], sha256=output[1].split()[0])
