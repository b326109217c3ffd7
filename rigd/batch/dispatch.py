"""The way of a batch from its creation to its end. The database alone says how far it is: a killed server goes on."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert
from sqlalchemy.exc import OperationalError

from rigd.base.errors import Failed
from rigd.batch import store as tables
from rigd.batch import validation
from rigd.batch.answers import error_line
from rigd.batch.config import Config
from rigd.batch.content import Content, Part
from rigd.batch.lanes import Lane, Work
from rigd.batch.objects import TERMINAL
from rigd.batch.recorder import Recorder
from rigd.batch.room import lacks_room
from rigd.batch.service import stamp
from rigd.batch.store import Pending, Result, Store

TICK = 1.0
"""Most seconds until an expiry or a full disk is noticed."""
CHUNK = 500
"""Rows that are read or removed at a time."""
UNRUN = {
    "cancelled": ("batch_cancelled", "This request was not executed because the batch was cancelled."),
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
}
"""Code and message of the lines that a batch ended without."""

_log = logging.getLogger("rig-batch")


class Dispatcher:
    """Validates, runs and ends all batches of one server."""

    def __init__(self, config: Config, store: Store, content: Content, clock: Callable[[], float]) -> None:
        self._config, self._store, self._content, self._clock = config, store, content, clock
        self._recorder = Recorder(store, self._recorded)
        self.lanes = [Lane(engine, config, store, self.gate, self._recorder.put) for engine in config.engines]
        self._served = {model for engine in config.engines for model in engine.models}
        self._works: dict[int, Work] = {}
        self._steps: dict[int, asyncio.Task[None]] = {}
        self._validation = asyncio.Semaphore(1)
        self._news = asyncio.Event()
        self._full = False
        self.statuses: Counter[str] = Counter()
        """Number of batches that have not ended, by status."""

    def wake(self) -> None:
        """There is news: a new batch, a cancellation, a result."""
        self._news.set()

    @property
    def full(self) -> bool:
        """True while the data disk is full."""
        return self._full or self._recorder.blocked

    def gate(self) -> str | None:
        """Why no engine gets lines; None if they may."""
        if self.full:
            return "the data disk is full"
        return "results wait for the disk" if self._recorder.behind else None

    async def run(self) -> None:
        """Work until cancelled. Raises whatever makes it impossible to go on."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._recorder.run())
                for lane in self.lanes:
                    group.create_task(lane.run())
                while True:
                    self._news.clear()
                    try:
                        await self._look()
                    except OperationalError as error:
                        if not lacks_room(error):
                            raise
                        _log.warning("the disk is full; tried again")
                    # Not wait_for: until Python 3.12 it loses a cancellation that comes together with news.
                    with suppress(TimeoutError):
                        async with asyncio.timeout(TICK):
                            await self._news.wait()
        finally:
            tasks = [*self._steps.values(), *(task for work in self._works.values() for task in work.tasks)]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self) -> None:
        """Begin whatever is due."""
        if not self._store.writer.works:
            raise Failed("the database's writer ended; see the lines above")
        was, self._full = self._full, self._content.free() < self._config.reserve
        if self._full and not was:
            _log.error("the data disk has less than %d bytes left: dispatch is paused", self._config.reserve)
        if was and not self._full:
            _log.info("the data disk has room again: dispatch goes on")
            for lane in self.lanes:
                lane.wake()
        # A row that was read while its step ended may be older than the step.
        busy = set(self._steps)
        unfinished, full = await asyncio.to_thread(self._store.unfinished), await asyncio.to_thread(self._store.full)
        self.statuses = Counter(row.status for row in unfinished)
        for row in unfinished:
            if row.number in busy:
                continue
            if row.ending is not None:
                self._begin(row, self._end(row))
            elif row.in_progress_at is None:
                self._begin(row, self._validate(row))
            else:
                self._advance(row)
        for row in full:
            if row.number not in busy and row.number not in self._steps:
                self._begin(row, self._empty(row))
        for identity in await asyncio.to_thread(self._store.over, self._clock()):
            await self._write(partial(tables.remove_file, identity=identity))
            self._content.remove(self._content.path(identity))

    def _begin(self, row: Row[Any], step: Coroutine[Any, Any, None]) -> None:
        """Do a step of a batch; one at a time for each."""

        async def guarded() -> None:
            try:
                await step
            except Exception as error:
                if lacks_room(error):
                    _log.warning("%s: the disk is full; tried again", row.id)
                else:
                    _log.exception("%s: a step failed; tried again", row.id)
                await asyncio.sleep(TICK)
            finally:
                self._steps.pop(row.number, None)
                self.wake()

        self._steps[row.number] = asyncio.create_task(guarded())

    async def _write(self, job: Callable[[Connection], Any]) -> Any:
        return await asyncio.wrap_future(self._store.writer.submit(job))

    # From validating to in_progress or failed.

    async def _validate(self, row: Row[Any]) -> None:
        if row.status == "cancelling":
            await self._write(partial(self._validated, identity=row.id, report=validation.Report()))
            return
        async with self._validation:
            # What a killed server left.
            while await self._write(partial(tables.drop_rows, batch=row.number, most=CHUNK)):
                pass
            report = await asyncio.to_thread(
                validation.check,
                self._content.input(row.id),
                row.endpoint,
                self._served,
                self._config.limits,
                lambda found: self._store.writer.submit(
                    partial(tables.add_lines, batch=row.number, found=found)
                ).result(),
            )
        await self._write(partial(self._validated, identity=row.id, report=report))

    def _validated(self, connection: Connection, identity: str, report: validation.Report) -> None:
        row = tables.batch_of(connection, None, identity)
        assert row is not None
        now = stamp(row, self._clock())
        if row.status == "cancelling":
            tables.change(connection, row.number, status="cancelled", cancelled_at=now)
        elif report.errors:
            errors = [error.model_dump() for error in report.errors]
            tables.change(connection, row.number, status="failed", failed_at=now, errors=errors)
        else:
            model = next(iter(report.models)) if len(report.models) == 1 else None
            tables.change(
                connection, row.number, status="in_progress", in_progress_at=now, total=report.total, model=model
            )

    # In progress.

    def _advance(self, row: Row[Any]) -> None:
        """Run a batch, stop it, or begin its end."""
        work = self._works.get(row.number)
        now = self._clock()
        over = now >= row.expires_at
        if work is None:
            if row.total == row.completed + row.failed or over or row.status == "cancelling":
                self._begin(row, self._finalize(row, "expired" if over else "completed"))
                return
            work = self._start(row)
        if work.left == 0:
            self._begin(row, self._finalize(row, "completed"))
        elif over or row.status == "cancelling":
            if not work.stopped:
                work.stopped, work.deadline = True, time.monotonic() + self._config.grace
            if over or time.monotonic() >= work.deadline:
                for task in list(work.tasks):
                    task.cancel()
            if not work.out:
                self._begin(row, self._finalize(row, "expired" if over else "cancelled"))

    def _start(self, row: Row[Any]) -> Work:
        left = row.total - row.completed - row.failed
        body = partial(_read, self._content.input(row.id))
        work = Work(row.number, row.id, row.owner, row.endpoint, left, body, self.wake)
        self._works[row.number] = work
        for lane in self.lanes:
            lane.add(work)
        return work

    def _recorded(self, found: Sequence[Result]) -> None:
        """Results are stored."""
        by_name = {lane.engine.name: lane for lane in self.lanes}
        for result in found:
            work = self._works[result.batch]
            work.out -= 1
            work.left -= 1
            by_name[result.engine].count(result)
            if work.left == 0 or work.stopped:
                self.wake()
        for lane in self.lanes:
            lane.wake()

    # From in_progress to the end.

    async def _finalize(self, row: Row[Any], ending: str) -> None:
        """From here on no result counts."""

        def step(connection: Connection) -> None:
            now = tables.batch_of(connection, None, row.id)
            assert now is not None
            if now.status == "cancelling":
                tables.change(connection, row.number, ending="cancelled")
            else:
                at = stamp(now, self._clock())
                tables.change(connection, row.number, status="finalizing", ending=ending, finalizing_at=at)

        await self._write(step)
        self._works.pop(row.number, None)

    async def _end(self, row: Row[Any]) -> None:
        """Write both files, and publish them with the last status, all at once."""
        kept: dict[str, tuple[str, Part]] = {}
        for kind in ("output", "error"):
            part = await asyncio.to_thread(self._collect, row, kind == "output")
            if not part.size:
                part.drop()
                continue
            # The same name at each attempt: what a failed one left is overwritten.
            identity = f"file-{hashlib.sha256(f'{row.id}_{kind}'.encode()).hexdigest()[:24]}"
            await asyncio.to_thread(part.finish, self._content.path(identity))
            kept[kind] = (identity, part)
        await self._write(partial(self._ended, identity=row.id, kept=kept))
        _log.info("%s: %s", row.id, row.ending)

    def _ended(self, connection: Connection, identity: str, kept: dict[str, tuple[str, Part]]) -> None:
        row = tables.batch_of(connection, None, identity)
        assert row is not None and row.status not in TERMINAL
        now = stamp(row, self._clock())
        lasts = None if row.output_expires_after is None else now + row.output_expires_after
        for kind, (name, part) in kept.items():
            values = {
                "id": name,
                "owner": row.owner,
                "bytes": part.size,
                "sha256": part.sha256,
                "created_at": now,
                "expires_at": lasts,
                "filename": f"{row.id}_{kind}.jsonl",
                "purpose": "batch_output",
            }
            connection.execute(insert(tables.files).values(values))
        # A cancellation may have come while the files were written.
        status = "cancelled" if row.status == "cancelling" else row.ending
        changes = {
            "status": status,
            f"{status}_at": now,
            "failed": row.total - row.completed,
            **{f"{kind}_file_id": name for kind, (name, _) in kept.items()},
        }
        tables.change(connection, row.number, **changes)

    async def _empty(self, row: Row[Any]) -> None:
        """Remove the rows and the input of a batch that has ended; in pieces, since others write meanwhile."""
        while await self._write(partial(tables.drop_rows, batch=row.number, most=CHUNK)):
            pass
        self._content.remove(self._content.input(row.id))
        await self._write(partial(tables.change, number=row.number, emptied=1))

    def _collect(self, row: Row[Any], good: bool) -> Part:
        part = self._content.part()
        try:
            after = 0
            while found := self._store.outcomes(row.number, good, after, CHUNK):
                part.write(b"".join(text for _, text in found))
                after = found[-1][0]
            after = 0
            while not good and (unrun := self._store.unrun(row.number, after, CHUNK)):
                code, message = UNRUN[row.ending]
                part.write(b"".join(error_line(custom_id, code, message) for _, custom_id in unrun))
                after = unrun[-1][0]
        except BaseException:
            part.drop()
            raise
        return part


def _read(path: Path, line: Pending) -> bytes:
    """A line's body, as the client wrote it."""
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), line.length, line.offset)
