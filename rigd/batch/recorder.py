"""The way of results to the database: all that have come go together, and none is dropped while the disk is full."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from rigd.batch import store as tables
from rigd.batch.room import lacks_room
from rigd.batch.store import Result, Store

AGAIN = 1.0
"""Seconds between two attempts while the disk is full."""

MOST = 1000
"""Results that wait for a commit before the engines get no more lines: their answers are in memory."""

_log = logging.getLogger("rig-batch")


class Recorder:
    """Commits results; `done` gets them after the commit."""

    def __init__(self, store: Store, done: Callable[[Sequence[Result]], None]) -> None:
        self.blocked = False
        """True while the disk is full: no engine should work for nothing."""
        self._store, self._done = store, done
        self._waiting: list[Result] = []
        self._news = asyncio.Event()

    @property
    def behind(self) -> bool:
        """True if the database is slower than the engines."""
        return len(self._waiting) >= MOST

    def put(self, result: Result) -> None:
        """Store a result with the next commit."""
        self._waiting.append(result)
        self._news.set()

    async def run(self) -> None:
        """Commit until cancelled. Raises whatever the database raises but a lack of room."""
        while True:
            await self._news.wait()
            self._news.clear()
            group, self._waiting = self._waiting, []
            while not await self._commit(group):
                await asyncio.sleep(AGAIN)
            self._done(group)

    async def _commit(self, group: Sequence[Result]) -> bool:
        try:
            await asyncio.wrap_future(self._store.writer.submit(lambda connection: tables.record(connection, group)))
        except Exception as error:
            if not lacks_room(error):
                raise
            if not self.blocked:
                _log.error("the disk is full; dispatch is paused until there is room")
            self.blocked = True
            return False
        if self.blocked:
            _log.warning("the disk has room again; dispatch goes on")
        self.blocked = False
        return True
