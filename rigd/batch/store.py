"""The queue and the objects, in SQLite: what is committed here has happened, and nothing else has.

Each function that takes a connection is one step of the writer's transaction; all others only read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Engine

from rigd.base.errors import Failed
from rigd.batch.lines import Line
from rigd.batch.objects import TERMINAL
from rigd.batch.writer import Writer

NAME = "queue.sqlite"
SCHEMA = 1
"""Version of the tables, in the file's user_version."""

_tables = MetaData()
files = Table(
    "files",
    _tables,
    # Newest first is by this number: many objects are made within one second.
    Column("number", Integer, primary_key=True),
    Column("id", Text, unique=True, nullable=False),
    Column("owner", Text, nullable=False),
    Column("bytes", Integer, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    # The row stays, as a place from which a client's list may go on.
    Column("deleted", Integer, nullable=False, default=0),
    Index("files_of", "owner", "number"),
    Index("files_over", "deleted", "expires_at"),
    sqlite_autoincrement=True,
)
batches = Table(
    "batches",
    _tables,
    Column("number", Integer, primary_key=True),
    Column("id", Text, unique=True, nullable=False),
    Column("owner", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text),
    Column("errors", JSON(none_as_null=True)),
    Column("input_file_id", Text, nullable=False),
    Column("completion_window", Text, nullable=False),
    Column("output_expires_after", Integer),
    Column("status", Text, nullable=False),
    # How it ends, from the moment on which no further result counts.
    Column("ending", Text),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("created_at", Integer, nullable=False),
    Column("in_progress_at", Integer),
    Column("expires_at", Integer, nullable=False),
    Column("finalizing_at", Integer),
    Column("completed_at", Integer),
    Column("failed_at", Integer),
    Column("expired_at", Integer),
    Column("cancelling_at", Integer),
    Column("cancelled_at", Integer),
    Column("total", Integer, nullable=False, default=0),
    Column("completed", Integer, nullable=False, default=0),
    Column("failed", Integer, nullable=False, default=0),
    Column("input_tokens", Integer, nullable=False, default=0),
    Column("cached_tokens", Integer, nullable=False, default=0),
    Column("output_tokens", Integer, nullable=False, default=0),
    Column("reasoning_tokens", Integer, nullable=False, default=0),
    Column("metadata", JSON(none_as_null=True)),
    Column("fingerprint", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("emptied", Integer, nullable=False, default=0),
    Index("batches_of", "owner", "number"),
    # Those that have not ended, or have ended just now: few, however many there were.
    Index("batches_at_work", "emptied"),
    Index("batches_by_key", "owner", "idempotency_key"),
    sqlite_autoincrement=True,
)
lines = Table(
    "lines",
    _tables,
    Column("batch", Integer, primary_key=True, autoincrement=False),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("custom_id", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("offset", Integer, nullable=False),
    Column("length", Integer, nullable=False),
    Column("prefix", LargeBinary, nullable=False),
    Column("strikes", Integer, nullable=False, default=0),
)
results = Table(
    "results",
    _tables,
    Column("batch", Integer, primary_key=True, autoincrement=False),
    # A second result of a line is an error of the database, not a second line of the output.
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("good", Integer, nullable=False),
    Column("text", LargeBinary, nullable=False),
)

TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")


@dataclass(frozen=True, slots=True)
class Pending:
    """A line without a result."""

    line: int
    custom_id: str
    model: str
    offset: int
    length: int
    prefix: bytes
    strikes: int


@dataclass(frozen=True, slots=True)
class Result:
    """A line's result, as it will be in the output file or in the error file."""

    batch: int
    line: int
    good: bool
    text: bytes
    tokens: tuple[int, int, int, int] = (0, 0, 0, 0)
    """In the order of TOKENS."""
    engine: str = ""
    """Name of the engine."""


class Store:
    """The database of one server; the caller holds the lock on its folder."""

    def __init__(self, folder: Path) -> None:
        address = f"sqlite:///{folder / NAME}"
        self._written = _engine(address, "BEGIN IMMEDIATE", size=1)
        self._read = _engine(address, "BEGIN", size=8)
        with self._written.begin() as connection:
            _prepare(connection)
        self.writer = Writer(self._written)

    def close(self) -> None:
        """Commit whatever is left, and close the file."""
        self.writer.close()
        self._read.dispose()
        self._written.dispose()

    def file(self, owner: str | None, identity: str, now: float) -> Row[Any] | None:
        """A file of this owner, or of anybody if None; None if there is none, or no longer."""
        with self._read.begin() as connection:
            return file_of(connection, owner, identity, now)

    def file_page(
        self, owner: str, now: float, purpose: str | None, limit: int, oldest_first: bool, after: str | None
    ) -> tuple[Sequence[Row[Any]], bool] | None:
        """Up to `limit` files, and whether there are more; None if `after` is no file of this owner."""
        query = select(files).where(files.c.owner == owner, files.c.deleted == 0, _lasts(now))
        if purpose is not None:
            query = query.where(files.c.purpose == purpose)
        return self._page(files, query, owner, limit, oldest_first, after)

    def batch(self, owner: str | None, identity: str) -> Row[Any] | None:
        """A batch of this owner, or of anybody if None."""
        with self._read.begin() as connection:
            return batch_of(connection, owner, identity)

    def batch_page(self, owner: str, limit: int, after: str | None) -> tuple[Sequence[Row[Any]], bool] | None:
        """Up to `limit` batches, newest first, and whether there are more; None if `after` is not one of them."""
        return self._page(batches, select(batches).where(batches.c.owner == owner), owner, limit, False, after)

    def _page(
        self, table: Table, query: Any, owner: str, limit: int, oldest_first: bool, after: str | None
    ) -> tuple[Sequence[Row[Any]], bool] | None:
        with self._read.begin() as connection:
            if after is not None:
                known = select(table.c.number).where(table.c.id == after, table.c.owner == owner)
                place = connection.scalar(known)
                if place is None:
                    return None
                query = query.where(table.c.number > place if oldest_first else table.c.number < place)
            query = query.order_by(table.c.number.asc() if oldest_first else table.c.number.desc())
            rows = connection.execute(query.limit(limit + 1)).all()
        return rows[:limit], len(rows) > limit

    def unfinished(self) -> Sequence[Row[Any]]:
        """The batches that have not ended, oldest first."""
        query = select(batches).where(batches.c.emptied == 0, batches.c.status.not_in(TERMINAL))
        query = query.order_by(batches.c.number)
        with self._read.begin() as connection:
            return connection.execute(query).all()

    def full(self) -> Sequence[Row[Any]]:
        """The batches that have ended, and whose lines and results are still here."""
        query = select(batches).where(batches.c.emptied == 0, batches.c.status.in_(TERMINAL))
        with self._read.begin() as connection:
            return connection.execute(query).all()

    def models(self, batch: int) -> list[str]:
        """The models of a batch's lines."""
        with self._read.begin() as connection:
            return list(connection.scalars(select(lines.c.model).where(lines.c.batch == batch).distinct()))

    def pending(self, batch: int, models: Iterable[str], after: int, limit: int) -> list[Pending]:
        """The next lines behind `after` that have no result."""
        columns = [lines.c[name] for name in Pending.__dataclass_fields__]
        query = (
            select(*columns)
            .where(lines.c.batch == batch, lines.c.line > after, lines.c.model.in_(list(models)), ~_has_result())
            .order_by(lines.c.line)
            .limit(limit)
        )
        with self._read.begin() as connection:
            return [Pending(*row) for row in connection.execute(query)]

    def outcomes(self, batch: int, good: bool, after: int, limit: int) -> list[tuple[int, bytes]]:
        """The next results of one kind behind `after`."""
        query = (
            select(results.c.line, results.c.text)
            .where(results.c.batch == batch, results.c.line > after, results.c.good == int(good))
            .order_by(results.c.line)
            .limit(limit)
        )
        with self._read.begin() as connection:
            return [(row.line, row.text) for row in connection.execute(query)]

    def unrun(self, batch: int, after: int, limit: int) -> list[tuple[int, str]]:
        """The next lines behind `after` that have no result: number and custom_id."""
        query = (
            select(lines.c.line, lines.c.custom_id)
            .where(lines.c.batch == batch, lines.c.line > after, ~_has_result())
            .order_by(lines.c.line)
            .limit(limit)
        )
        with self._read.begin() as connection:
            return [(row.line, row.custom_id) for row in connection.execute(query)]

    def stored(self) -> set[str]:
        """The ids of all files that are not deleted."""
        with self._read.begin() as connection:
            return set(connection.scalars(select(files.c.id).where(files.c.deleted == 0)))

    def over(self, now: float) -> list[str]:
        """The ids of files whose time is over."""
        query = select(files.c.id).where(files.c.deleted == 0, files.c.expires_at <= now)
        with self._read.begin() as connection:
            return list(connection.scalars(query))


def file_of(connection: Connection, owner: str | None, identity: str, now: float) -> Row[Any] | None:
    """A file that has neither been deleted nor expired."""
    query = select(files).where(files.c.id == identity, files.c.deleted == 0, _lasts(now))
    if owner is not None:
        query = query.where(files.c.owner == owner)
    return connection.execute(query).one_or_none()


def batch_of(connection: Connection, owner: str | None, identity: str) -> Row[Any] | None:
    """A batch as it is within this transaction."""
    query = select(batches).where(batches.c.id == identity)
    if owner is not None:
        query = query.where(batches.c.owner == owner)
    return connection.execute(query).one_or_none()


def remove_file(connection: Connection, identity: str) -> None:
    """Forget a file; its content is removed after the commit."""
    connection.execute(update(files).where(files.c.id == identity).values(deleted=1))


def change(connection: Connection, number: int, **values: Any) -> Row[Any]:
    """Change a batch, and return it."""
    found = connection.execute(update(batches).where(batches.c.number == number).values(values).returning(batches))
    return found.one()


def add_lines(connection: Connection, batch: int, found: Sequence[tuple[int, int, Line]]) -> None:
    """Add lines; each with its number, and the place of its first byte in the file."""
    if found:
        rows = [
            {
                "batch": batch,
                "line": number,
                "custom_id": line.custom_id,
                "model": line.model,
                "offset": place + line.start,
                "length": line.length,
                "prefix": line.prefix,
            }
            for number, place, line in found
        ]
        connection.execute(insert(lines), rows)


def drop_rows(connection: Connection, batch: int, most: int) -> int:
    """Remove up to `most` of a batch's lines and of its results; return how many were removed."""
    gone = 0
    for table in (lines, results):
        oldest = select(table.c.line).where(table.c.batch == batch).order_by(table.c.line).limit(most).subquery()
        last = connection.scalar(select(func.max(oldest.c.line)))
        if last is not None:
            gone += connection.execute(delete(table).where(table.c.batch == batch, table.c.line <= last)).rowcount
    return gone


def strike(connection: Connection, batch: int, line: int, count: int) -> None:
    """Store how often an engine failed with this line."""
    connection.execute(update(lines).where(lines.c.batch == batch, lines.c.line == line).values(strikes=count))


def record(connection: Connection, found: Sequence[Result]) -> None:
    """Store results, and count them. Those of a batch that takes no more are dropped."""
    sums: dict[int, list[int]] = {}
    for result in found:
        row = sums.setdefault(result.batch, [0] * (2 + len(TOKENS)))
        row[0 if result.good else 1] += 1
        for place, count in enumerate(result.tokens, 2):
            row[place] += count
    open_batches: set[int] = set()
    for number, (completed, failed, *tokens) in sums.items():
        values: dict[str, Any] = {
            "completed": batches.c.completed + completed,
            "failed": batches.c.failed + failed,
            **{name: batches.c[name] + count for name, count in zip(TOKENS, tokens, strict=True)},
        }
        changed = connection.execute(
            update(batches).where(batches.c.number == number, batches.c.ending.is_(None)).values(values)
        )
        if changed.rowcount:
            open_batches.add(number)
    rows = [
        {"batch": result.batch, "line": result.line, "good": int(result.good), "text": result.text}
        for result in found
        if result.batch in open_batches
    ]
    if rows:
        connection.execute(insert(results), rows)


def _lasts(now: float) -> Any:
    return files.c.expires_at.is_(None) | (files.c.expires_at > now)


def _has_result() -> Any:
    return exists().where(results.c.batch == lines.c.batch, results.c.line == lines.c.line)


def _engine(address: str, begin: str, size: int) -> Engine:
    engine = create_engine(address, pool_size=size, max_overflow=0, pool_timeout=60)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        # SQLAlchemy begins transactions, see below; the driver's own way would begin them too late.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        # NORMAL may lose the last commits in a power cut.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=10000")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _prepare(connection: Connection) -> None:
    version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    if version > SCHEMA:
        raise Failed(f"the queue was written by a newer version ({version}, and this one knows {SCHEMA}); deploy that")
    _tables.create_all(connection)
    connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA}")
