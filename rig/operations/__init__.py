"""Operations of our own, for changes that pyinfra's cannot make without reporting a change on every run."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias

from pyinfra.api.command import PyinfraCommand

Commands: TypeAlias = Generator[str | PyinfraCommand, None, None]
"""The commands of an operation: none when all is as it should be."""
