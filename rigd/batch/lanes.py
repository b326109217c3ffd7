"""One engine's lane: which line it gets next, and how it goes on after the engine's trouble.

No line is blamed for an engine's trouble at first: the lane pauses, and the line is sent again. A line in whose midst
the engine died or did not come to an end is sent alone from then on; a line that fails again and again while others
succeed is given up.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import add

from sqlalchemy.exc import OperationalError

from rigd.batch.answers import NONE, Answer, Tokens, Trouble, answer_line, error_line
from rigd.batch.calls import Calls
from rigd.batch.config import Config, Engine
from rigd.batch.pace import LONGEST, Pace
from rigd.batch.store import Pending, Result, Store, strike

AGAIN = 1.0
"""Seconds until the database is read again after an error."""
ALONE = ("died", "timeout")
"""Causes after which a line is sent while nothing else is."""

_log = logging.getLogger("rig-batch")


@dataclass
class Work:
    """A batch that is being run."""

    number: int
    identity: str
    owner: str
    endpoint: str
    left: int
    """Lines whose result is not stored."""
    body: Callable[[Pending], bytes]
    """Reads a line's body from the input."""
    news: Callable[[], None]
    """Notes that a line left the engine."""
    out: int = 0
    """Lines that are at an engine, or whose result is not stored yet."""
    stopped: bool = False
    """True if no further line is sent."""
    deadline: float = 0.0
    """When requests in flight end after that, on the monotonic clock."""
    tasks: set[asyncio.Task[bool]] = field(default_factory=set)


@dataclass
class _Job:
    """A line on its way."""

    work: Work
    line: Pending
    strikes: int
    first: float | None = None
    """When it failed first."""
    successes: int = 0
    """How many other lines had succeeded by then."""


class _Share:
    """The lines of one batch for one engine, a window at a time, ordered by their beginnings."""

    def __init__(
        self, work: Work, store: Store, models: tuple[str, ...], window: int, news: Callable[[], None]
    ) -> None:
        self.work = work
        self.again: deque[_Job] = deque()
        self._store, self._models, self._window, self._news = store, models, window, news
        self._lines: deque[Pending] = deque()
        self._last, self._ended = 0, not models
        self._load: asyncio.Task[None] | None = None

    def take(self) -> _Job | None:
        """The next line; None if there is none, or none yet."""
        if self.work.stopped:
            return None
        if self.again:
            return self.again.popleft()
        if len(self._lines) <= self._window // 4 and not self._ended and self._load is None:
            self._load = asyncio.create_task(self._next_window())
        if not self._lines:
            return None
        line = self._lines.popleft()
        return _Job(self.work, line, line.strikes)

    @property
    def empty(self) -> bool:
        """True if nothing is left to take."""
        return self.work.stopped or (self._ended and not self._lines and not self.again)

    async def _next_window(self) -> None:
        try:
            found = await asyncio.to_thread(
                self._store.pending, self.work.number, self._models, self._last, self._window
            )
        except Exception:
            _log.exception("%s: its lines cannot be read; tried again", self.work.identity)
            await asyncio.sleep(AGAIN)
            found = None
        self._load = None
        if found is None:
            self._news()
            return
        self._ended = len(found) < self._window
        if found:
            self._last = found[-1].line
        self._lines.extend(sorted(found, key=lambda line: (line.prefix, line.line)))
        self._news()


class Lane:
    """The lines' way to one engine."""

    def __init__(
        self,
        engine: Engine,
        config: Config,
        store: Store,
        gate: Callable[[], str | None],
        put: Callable[[Result], None],
    ) -> None:
        self.engine = engine
        self.paused: str | None = "it has not been probed"
        """Why the engine gets no lines; None if it does."""
        self.flight = 0
        self.completed = self.failed = 0
        self.tokens: tuple[int, ...] = NONE
        self.troubles: Counter[str] = Counter()
        self._config, self._store, self._gate, self._put = config, store, gate, put
        self._calls = Calls(engine, config.limits)
        self._pace = Pace(engine.concurrency, config.patience.pause)
        self._news = asyncio.Event()
        self._shares: OrderedDict[str, list[_Share]] = OrderedDict()
        self._suspects: deque[_Job] = deque()
        self._alone = False
        self._successes = 0
        self._recovery: asyncio.Task[None] | None = None
        self._wait = 0.0

    @property
    def limit(self) -> int:
        """Most requests at this time."""
        return self._pace.limit

    @property
    def busy(self) -> bool:
        """True if there are lines for this engine."""
        return bool(self._shares or self._suspects or self.flight)

    def count(self, result: Result) -> None:
        """A result of this engine is stored."""
        if result.good:
            self.completed += 1
            self.tokens = tuple(map(add, self.tokens, result.tokens))
        else:
            self.failed += 1

    def add(self, work: Work) -> None:
        """Run this batch's lines for this engine."""
        share = _Share(work, self._store, self.engine.models, self._config.window, self.wake)
        self._shares.setdefault(work.owner, []).append(share)
        self.wake()

    def wake(self) -> None:
        """There is news: lines, room, an answer."""
        self._news.set()

    async def run(self) -> None:
        """Send lines until cancelled."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                self._send_what_fits()
        finally:
            if self._recovery is not None:
                self._recovery.cancel()
            await self._calls.close()

    def _send_what_fits(self) -> None:
        while self._gate() is None and not self._alone:
            if self.paused is not None:
                if self._recovery is None and (self._shares or self._suspects):
                    self._recovery = asyncio.create_task(self._recover())
                return
            job = self._next()
            if job is None:
                return
            self.flight += 1
            job.work.out += 1
            task = asyncio.create_task(self._send(job))
            job.work.tasks.add(task)
            # Not at the end of `_send`: a task that is cancelled before its first step never gets there.
            task.add_done_callback(partial(self._sent, job))

    def _next(self) -> _Job | None:
        while self._suspects:
            if self._suspects[0].work.stopped:
                self._suspects.popleft()
            elif self.flight:
                return None
            else:
                self._alone = True
                return self._suspects.popleft()
        if self.flight >= self._pace.limit:
            return None
        # Owners in turn; of one owner, the oldest batch first.
        for owner in list(self._shares):
            shares = [share for share in self._shares[owner] if not share.empty]
            self._shares[owner] = shares
            if not shares:
                del self._shares[owner]
                continue
            for share in shares:
                job = share.take()
                if job is not None:
                    self._shares.move_to_end(owner)
                    if job.strikes:
                        self._suspects.append(job)
                        return self._next()
                    return job
        return None

    async def _send(self, job: _Job) -> bool:
        """Send a line; True if it has its result, False if it is to be sent again."""
        try:
            return await self._try(job)
        except Exception as error:
            _log.exception("engine %s, %s: the server failed", self.engine.name, job.work.identity)
            self._pause(Trouble("failing", f"the server failed: {error}"))
            self._again(job)
            return False

    def _sent(self, job: _Job, task: asyncio.Task[bool]) -> None:
        """A line left the engine, with a result or without one."""
        job.work.tasks.discard(task)
        self.flight -= 1
        self._alone = False
        if task.cancelled() or not task.result():
            job.work.out -= 1
        self.wake()
        job.work.news()

    async def _try(self, job: _Job) -> bool:
        body = await asyncio.to_thread(job.work.body, job.line)
        found = await self._calls.post(job.work.endpoint, body)
        if isinstance(found, Answer) and found.model not in (None, job.line.model):
            # Names may differ without harm; the engine's own list decides.
            reason = await self._calls.probe()
            if reason is not None:
                found = Trouble("model", reason)
        elif isinstance(found, Trouble) and found.cause == "model" and found.answer is not None:
            # If the engine serves its models, this is the line's own error.
            found = found.answer if await self._calls.probe() is None else found
        if isinstance(found, Answer):
            self._successes += 1
            self._pace.success()
            self._finish(job, answer_line(job.line.custom_id, found), found.good, found.tokens)
            return True
        return await self._handle(job, found)

    def _finish(self, job: _Job, text: bytes, good: bool, tokens: Tokens = NONE) -> None:
        self._put(Result(job.work.number, job.line.line, good, text, tokens if good else NONE, self.engine.name))

    async def _handle(self, job: _Job, trouble: Trouble) -> bool:
        """Pause if due; blame the line if due, or let it be sent again."""
        self.troubles[trouble.cause] += 1
        single = trouble.cause == "failing" and job.first is None and self._successes > 0
        if not single:
            self._pause(trouble)
        if trouble.cause in ("died", "timeout", "failing"):
            if job.first is None:
                job.first, job.successes = time.monotonic(), self._successes
            job.strikes += 1
            if self._is_to_blame(job, trouble):
                self._give_up(job, trouble)
                return True
        if trouble.cause in ALONE:
            # Stored: the next server, too, sends it alone.
            step = partial(strike, batch=job.work.number, line=job.line.line, count=job.strikes)
            with suppress(OperationalError):
                await asyncio.wrap_future(self._store.writer.submit(step))
            self._suspects.append(job)
        elif trouble.cause == "failing":
            wait = min(LONGEST, self._config.patience.pause * 2 ** (job.strikes - 1))
            asyncio.get_running_loop().call_later(wait, self._again, job)
        else:
            self._again(job)
        return False

    def _again(self, job: _Job) -> None:
        for share in self._shares.get(job.work.owner, []):
            if share.work is job.work:
                share.again.append(job)
                self.wake()
                return
        share = _Share(job.work, self._store, (), self._config.window, self.wake)
        share.again.append(job)
        self._shares.setdefault(job.work.owner, []).append(share)
        self.wake()

    def _is_to_blame(self, job: _Job, trouble: Trouble) -> bool:
        patience = self._config.patience
        if job.strikes < (patience.tries if trouble.cause == "failing" else patience.strikes):
            return False
        if trouble.cause == "died" or self._successes > job.successes:
            return True
        return job.first is not None and time.monotonic() - job.first >= patience.seconds

    def _give_up(self, job: _Job, trouble: Trouble) -> None:
        _log.warning("engine %s, %s: a line is given up: %s", self.engine.name, job.work.identity, trouble.detail)
        custom_id = job.line.custom_id
        if trouble.answer is not None:
            text = answer_line(custom_id, trouble.answer)
        else:
            code = {"died": "engine_died", "timeout": "request_timeout"}.get(trouble.cause, "engine_error")
            text = error_line(
                custom_id, code, f"The engine failed with this line {job.strikes} times: {trouble.detail}."
            )
        self._finish(job, text, False)

    def _pause(self, trouble: Trouble) -> None:
        if self.paused is not None:
            return
        if trouble.cause == "overload":
            self._wait = max(trouble.wait, self._pace.overload())
        elif trouble.cause in ("failing", "key"):
            self._wait = self._pace.failure()
        self.paused = trouble.detail
        _log.warning("engine %s: paused: %s", self.engine.name, trouble.detail)

    async def _probe(self) -> str | None:
        """The probe, whose failure must not end the recovery."""
        try:
            return await self._calls.probe()
        except Exception as error:
            _log.exception("engine %s: the probe failed", self.engine.name)
            return f"the probe failed ({error})"

    async def _recover(self) -> None:
        """Wait until the engine can work."""
        await asyncio.sleep(self._wait)
        first = True
        while (reason := await self._probe()) is not None:
            if first or reason != self.paused:
                _log.warning("engine %s: waiting: %s", self.engine.name, reason)
            self.paused, first = reason, False
            await asyncio.sleep(self._config.patience.probe)
        _log.info("engine %s: goes on", self.engine.name)
        self.paused, self._wait, self._recovery = None, 0.0, None
        self.wake()
