"""A sign of life comes from operations that run, and from no other."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from rig.operator.progress import Progress


class Host:
    """The parts of a host that the watch needs."""

    def __init__(self, name: str) -> None:
        self.print_prefix = f"[{name}] "


ONE: Any = Host("one")
TWO: Any = Host("two")
STATE: Any = SimpleNamespace(
    ops={ONE: {"first": None, "both": None}, TWO: {"both": None}},
    get_op_meta=lambda op_hash: SimpleNamespace(names={op_hash}),
)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Operations reported as still running, by machine."""
    found: list[tuple[str, str]] = []

    def spawn(_: Callable[..., None], host: Host, name: str, begin: float) -> SimpleNamespace:
        found.append((host.print_prefix, name))
        return SimpleNamespace(kill=lambda: found.remove((host.print_prefix, name)))

    monkeypatch.setattr("rig.operator.progress.gevent.spawn", spawn)
    return found


def test_an_operation_is_watched_until_it_ends(watched: list[tuple[str, str]]) -> None:
    shown = Progress()
    shown.operation_host_start(STATE, ONE, "first")
    assert watched == [("[one] ", "first")]
    shown.operation_host_success(STATE, ONE, "first")
    assert watched == []
    shown.operation_host_start(STATE, ONE, "both")
    shown.operation_host_start(STATE, TWO, "both")
    shown.operation_host_error(STATE, ONE, "both")
    assert watched == [("[two] ", "both")]


def test_an_operation_that_a_host_has_not_got_is_not_watched(watched: list[tuple[str, str]]) -> None:
    """pyinfra begins it there all the same, skips it, and tells of no end."""
    shown = Progress()
    shown.operation_host_start(STATE, TWO, "first")
    assert watched == []


def test_an_operation_whose_end_was_not_told_is_over_when_the_next_begins(watched: list[tuple[str, str]]) -> None:
    shown = Progress()
    shown.operation_host_start(STATE, ONE, "first")
    shown.operation_host_start(STATE, ONE, "both")
    assert watched == [("[one] ", "both")]
    shown.operation_host_success(STATE, ONE, "both")
    assert watched == []
