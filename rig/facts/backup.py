"""Facts of a machine's backup, in one round trip; never the password."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

from rigd.backup.config import PASSWORD


@dataclass(frozen=True)
class BackupState:
    """The password's file, and the backup on the disk."""

    password: str
    """Mode and owner of the password's file, such as ``600 root:root``; empty when it is missing."""
    repository: bool
    """Whether the present disk holds an encrypted backup, whoever made it."""


class Backup(FactBase[BackupState]):
    """State of the password and of the backup that needs it."""

    def command(self, repository: str) -> str:
        return (
            f'stat -c "password %a %U:%G" {PASSWORD} 2>/dev/null; '
            f"[ ! -e {shlex.quote(repository)}/config ] || echo repository; true"
        )

    @staticmethod
    def default() -> BackupState:
        return BackupState("", False)

    def process(self, output: list[str]) -> BackupState:
        found = [line.removeprefix("password ") for line in output if line.startswith("password ")]
        return BackupState("".join(found), "repository" in output)


class Present(FactBase[list[str]]):
    """The given files that exist."""

    @staticmethod
    def default() -> list[str]:
        return []

    def command(self, paths: Iterable[str]) -> str:
        return f"ls -1d {shlex.join(paths)} 2>/dev/null || true"

    def process(self, output: list[str]) -> list[str]:
        return output
