"""Files on the machine, read in one round trip."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase


@dataclass(frozen=True)
class FileState:
    """A regular file."""

    access: str
    """Mode, owner and group, such as ``644 root:root``."""
    sha256: str


class Written(FactBase[FileState | None]):
    """State of a regular file; None if there is none at this path, or something else such as a link."""

    def command(self, path: str) -> str:
        quoted = shlex.quote(path)
        return f'[ ! -f {quoted} ] || [ -L {quoted} ] || {{ stat -c "%a %U:%G" {quoted}; sha256sum <{quoted}; }}'

    def process(self, output: list[str]) -> FileState | None:
        return FileState(access=output[0], sha256=output[1].split()[0])


class WrittenTogether(FactBase[dict[str, FileState]]):
    """State of several regular files, by path; any other path is left out."""

    @staticmethod
    def default() -> dict[str, FileState]:
        return {}

    def command(self, paths: Iterable[str]) -> str:
        return (
            f"for path in {shlex.join(paths)}; do "
            '[ ! -f "$path" ] || [ -L "$path" ] || '
            '{ stat -c "%a %U:%G" "$path"; sha256sum <"$path"; printf "%s\\n" "$path"; }; done'
        )

    def process(self, output: list[str]) -> dict[str, FileState]:
        triples = zip(output[::3], output[1::3], output[2::3], strict=True)
        return {path: FileState(access, digest.split()[0]) for access, digest, path in triples}
