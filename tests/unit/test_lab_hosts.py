"""The options with which a lab's disk can start."""

from __future__ import annotations

import pytest

from lab.hosts import Remembered

CONTAINER = Remembered("trixie", 7)
WITH_CARD = Remembered("trixie", 7, gpu=True)
WHOLE = Remembered("trixie", 7, vm=True)


@pytest.mark.parametrize("before", [CONTAINER, WITH_CARD, WHOLE])
def test_a_disk_starts_as_what_it_was(before: Remembered) -> None:
    assert before.may_become("trixie", before.gpu, before.vm)
    assert not before.may_become("bookworm", before.gpu, before.vm)


@pytest.mark.parametrize("gpu", [False, True])
def test_a_containers_disk_becomes_a_whole_machines(gpu: bool) -> None:
    assert CONTAINER.may_become("trixie", gpu, vm=True)


@pytest.mark.parametrize(
    ("before", "gpu", "vm"),
    [
        # Its disk names a kernel that only /proc of the container shows.
        (WITH_CARD, True, True),
        (WITH_CARD, False, False),
        (CONTAINER, True, False),
        (WHOLE, False, False),
        (WHOLE, True, True),
    ],
)
def test_a_disk_starts_as_nothing_else(before: Remembered, gpu: bool, vm: bool) -> None:
    assert not before.may_become("trixie", gpu, vm)
