"""Fixture of the tests on a throwaway root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.local.throwaway import Throwaway, throwaway


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Throwaway]:
    """A fresh root, for this test alone."""
    with throwaway(tmp_path) as made:
        yield made
