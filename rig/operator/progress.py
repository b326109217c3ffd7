"""A sign of life for every operation that takes longer than a few seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
from pyinfra import logger
from pyinfra.api import BaseStateCallback, Host, State

FIRST = 5
"""Seconds of silence before the first line."""
EVERY = 15
"""Seconds between two lines."""


_silent: set[Host] = set()


@contextmanager
def told_by_itself(host: Host) -> Iterator[None]:
    """A context for an operation that reports its own progress."""
    _silent.add(host)
    try:
        yield
    finally:
        _silent.discard(host)


def show(state: State) -> None:
    """Report slow operations; deploy.py runs once for each host, and one reporter serves them all."""
    if not any(isinstance(handler, Progress) for handler in state.callback_handlers):
        state.add_callback_handler(Progress())  # type: ignore[no-untyped-call]


class Progress(BaseStateCallback):
    """Reports a running operation and its time so far; and its duration at the end."""

    def __init__(self) -> None:
        self._watches: dict[Host, tuple[gevent.Greenlet, float]] = {}

    def operation_host_start(self, state: State, host: Host, op_hash: str) -> None:  # type: ignore[override]
        self._end(host)
        # pyinfra begins every operation on every host, even on hosts without it, whose end it never reports.
        if op_hash not in state.ops[host]:
            return
        name = ", ".join(sorted(state.get_op_meta(op_hash).names))
        begin = time.monotonic()
        self._watches[host] = (gevent.spawn(_watch, host, name, begin), begin)

    def operation_host_success(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0
    ) -> None:
        self._end(host)

    def operation_host_error(  # type: ignore[override]
        self, state: State, host: Host, op_hash: str, retry_count: int = 0, max_retries: int = 0
    ) -> None:
        self._end(host)

    def _end(self, host: Host) -> None:
        """End a host's operation; pyinfra reports the end, or the next one begins."""
        if host not in self._watches:
            return
        watch, begin = self._watches.pop(host)
        watch.kill()
        if (took := time.monotonic() - begin) >= FIRST:
            logger.info(f"{host.print_prefix}took {took:.0f} s")


def _watch(host: Host, name: str, begin: float) -> None:
    gevent.sleep(FIRST)
    while True:
        if host not in _silent:
            logger.info(f"{host.print_prefix}{name}: still at it after {time.monotonic() - begin:.0f} s")
        gevent.sleep(EVERY)
