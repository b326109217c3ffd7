"""Whole machines for the tests: emulated, one at a time, each on a leash like those of the lab tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import Machines, sweep


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Boots machines that live until the file's last test ends, so that there is never more than one."""
    sweep()
    machines = Machines()
    yield machines
    machines.end_all()
