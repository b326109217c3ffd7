"""The one writer of the database: a thread that commits whatever has come within a few milliseconds at once.

A commit waits for the disk. Alone, each result would wait for it; in groups, hundreds share one wait.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

T = TypeVar("T")
Job = Callable[[Connection], Any]

GATHER = 0.005
"""Most seconds that the first job of a group waits for others."""
MOST = 512
"""Most jobs of a group."""


class Writer:
    """Runs jobs in the order of their arrival. A job's future has its result only after the commit."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[Connection], T]) -> Future[T]:
        """Run a job in the next group's transaction. A job that raises is undone alone."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    @property
    def works(self) -> bool:
        """False if the thread has ended."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Commit whatever is left, and end."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            first = self._jobs.get()
            if first is None:
                return
            group, ended = self._gather(first)
            self._commit(group)

    def _gather(self, first: tuple[Job, Future[Any]]) -> tuple[list[tuple[Job, Future[Any]]], bool]:
        group, until = [first], time.monotonic() + GATHER
        while len(group) < MOST:
            try:
                item = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                return group, True
            group.append(item)
        return group, False

    def _commit(self, group: list[tuple[Job, Future[Any]]]) -> None:
        # From here on nobody can cancel them. Whoever did before does not want the job done.
        group = [(job, future) for job, future in group if future.set_running_or_notify_cancel()]
        done: list[tuple[Future[Any], Any]] = []
        try:
            with self._engine.begin() as connection:
                for job, future in group:
                    try:
                        with connection.begin_nested():
                            value = job(connection)
                        done.append((future, value))
                    except Exception as error:
                        if connection.closed or connection.invalidated or not _in_transaction(connection):
                            raise
                        future.set_exception(error)
        # Nothing of the group is stored, whatever went wrong: a full disk, most of the time.
        except Exception as error:
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        for future, value in done:
            future.set_result(value)


def _in_transaction(connection: Connection) -> bool:
    """False once SQLite itself has rolled everything back, as it does on some errors, such as a full disk."""
    raw: Any = connection.connection.dbapi_connection
    return bool(raw.in_transaction)
