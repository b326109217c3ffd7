"""What is written to a machine, where pyinfra's own operations cannot say it without a change on every run."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias

from pyinfra.api.command import PyinfraCommand

Commands: TypeAlias = Generator[str | PyinfraCommand, None, None]
"""What an operation yields: nothing when all is as it should be."""
