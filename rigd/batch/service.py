"""The operations of the interface on files and batches, each for one client."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, insert, select

from rigd.batch import store as tables
from rigd.batch.config import ENDPOINTS, Config
from rigd.batch.content import Content, Part
from rigd.batch.errors import Refusal, invalid, missing, not_found
from rigd.batch.objects import (
    TERMINAL,
    Batch,
    BatchList,
    Errors,
    FileList,
    FileObject,
    InputTokensDetails,
    OutputTokensDetails,
    RequestCounts,
    Usage,
)
from rigd.batch.store import Store

T = TypeVar("T")

DAY = 86_400
REPETITION = 600
"""Seconds in which a client's own retry finds the batch of its first attempt."""
PARAMETERS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
_WINDOW = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": DAY}


class Service:
    """Files and batches; `wake` tells the dispatcher that there is news."""

    def __init__(
        self, config: Config, store: Store, content: Content, clock: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self.config, self.store, self.content, self.clock, self.wake = config, store, content, clock, wake

    async def write(self, job: Callable[[Connection], T]) -> T:
        """Run a step in the writer's next transaction; return after the commit."""
        return await asyncio.wrap_future(self.store.writer.submit(job))

    def room(self, size: int) -> None:
        """Refuse an upload that the disk has no room for. Raises Refusal."""
        if self.content.free() < size + self.config.reserve:
            raise full()

    async def add_file(self, owner: str, part: Part, filename: str, fields: dict[str, str]) -> FileObject:
        """Store an upload as a file. Raises Refusal and OSError."""
        purpose = fields.get("purpose")
        if purpose is None:
            raise missing("purpose")
        if purpose != "batch":
            raise invalid("purpose", "The purpose must be 'batch': this server has no other use for a file.")
        if not filename.endswith(".jsonl"):
            raise Refusal("Invalid file format for Batch API. Must be .jsonl")
        now = int(self.clock())
        seconds = _expires_after(
            {
                name: fields[f"expires_after[{name}]"]
                for name in ("anchor", "seconds")
                if f"expires_after[{name}]" in fields
            },
            "expires_after",
        )
        identity = f"file-{secrets.token_hex(12)}"
        await asyncio.to_thread(part.finish, self.content.path(identity))
        row = {
            "id": identity,
            "owner": owner,
            "bytes": part.size,
            "sha256": part.sha256,
            "created_at": now,
            "expires_at": now + (30 * DAY if seconds is None else seconds),
            "filename": filename,
            "purpose": purpose,
        }
        try:
            found = await self.write(lambda connection: _add_file(connection, row))
        except Exception:
            self.content.remove(self.content.path(identity))
            raise
        return file_object(found)

    async def file(self, owner: str, identity: str) -> Row[Any]:
        """A file's row. Raises Refusal."""
        found = await asyncio.to_thread(self.store.file, owner, identity, self.clock())
        if found is None:
            raise not_found("file", identity)
        return found

    async def list_files(self, owner: str, query: dict[str, str]) -> FileList:
        """A page of files. Raises Refusal."""
        limit = _limit(query, 10_000, 10_000)
        order = query.get("order", "desc")
        if order not in ("asc", "desc"):
            raise invalid("order", "'order' must be 'asc' or 'desc'.")
        after = query.get("after")
        page = await asyncio.to_thread(
            self.store.file_page, owner, self.clock(), query.get("purpose"), limit, order == "asc", after
        )
        if page is None:
            raise invalid("after", f"'after' names no file: '{after}'.")
        data = [file_object(row) for row in page[0]]
        first, last = _ends(data)
        return FileList(data=data, first_id=first, last_id=last, has_more=page[1])

    async def delete_file(self, owner: str, identity: str) -> None:
        """Delete a file; batches go on with their own copy. Raises Refusal."""

        def step(connection: Connection) -> None:
            if tables.file_of(connection, owner, identity, self.clock()) is None:
                raise not_found("file", identity)
            tables.remove_file(connection, identity)

        await self.write(step)
        self.content.remove(self.content.path(identity))

    async def create(self, owner: str, body: Any, key: str | None, retry: bool) -> Batch:
        """Create a batch, or return that of an earlier identical request. Raises Refusal."""
        values = _creation(body)
        row = await self.file(owner, values["input_file_id"])
        if row.purpose != "batch":
            raise invalid("input_file_id", "The file's purpose must be 'batch'.")
        now = int(self.clock())
        identity = f"batch_{secrets.token_hex(16)}"
        window = _window(values["completion_window"])
        new = {
            "id": identity,
            "owner": owner,
            "endpoint": values["endpoint"],
            "input_file_id": row.id,
            "completion_window": values["completion_window"],
            "output_expires_after": values["output_expires_after"],
            "metadata": values["metadata"],
            "status": "validating",
            "created_at": now,
            "expires_at": now + window,
            "fingerprint": hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(),
            "idempotency_key": key,
        }
        try:
            await asyncio.to_thread(self.content.keep_input, row.id, identity)
        except FileNotFoundError:
            raise not_found("file", row.id) from None
        try:
            found = await self.write(lambda connection: _add_batch(connection, new, retry))
        except Exception:
            self.content.remove(self.content.input(identity))
            raise
        if found.id != identity:
            self.content.remove(self.content.input(identity))
        self.wake()
        return batch_object(found)

    async def batch(self, owner: str, identity: str) -> Batch:
        """A batch. Raises Refusal."""
        found = await asyncio.to_thread(self.store.batch, owner, identity)
        if found is None:
            raise not_found("batch", identity)
        return batch_object(found)

    async def list_batches(self, owner: str, query: dict[str, str]) -> BatchList:
        """A page of batches, newest first. Raises Refusal."""
        after = query.get("after")
        page = await asyncio.to_thread(self.store.batch_page, owner, _limit(query, 20, 100), after)
        if page is None:
            raise invalid("after", f"'after' names no batch: '{after}'.")
        data = [batch_object(row) for row in page[0]]
        first, last = _ends(data)
        return BatchList(data=data, first_id=first, last_id=last, has_more=page[1])

    async def cancel(self, owner: str, identity: str) -> Batch:
        """Stop a batch; whatever is finished is kept. Raises Refusal."""

        def step(connection: Connection) -> Row[Any]:
            row = tables.batch_of(connection, owner, identity)
            if row is None:
                raise not_found("batch", identity)
            if row.status in ("cancelling", "cancelled"):
                return row
            if row.status in TERMINAL:
                # The official client would repeat the request on 409.
                raise Refusal(
                    f"The batch is {row.status}, and can no longer be cancelled.", code="batch_not_cancellable"
                )
            return tables.change(connection, row.number, status="cancelling", cancelling_at=stamp(row, self.clock()))

        found = await self.write(step)
        self.wake()
        return batch_object(found)


def _ends(page: Sequence[FileObject | Batch]) -> tuple[str, str] | tuple[None, None]:
    """The ids of a page's first and last objects, by which a client pages on."""
    return (page[0].id, page[-1].id) if page else (None, None)


def full() -> Refusal:
    """The answer while the disk is full."""
    return Refusal("The server's disk is full; try again later.", 507, code="insufficient_storage")


def stamp(row: Row[Any], now: float) -> int:
    """The time of a batch's next step: not before its last one, even if the clock was set back."""
    earlier: tuple[int | None, ...] = (row.created_at, row.in_progress_at, row.finalizing_at, row.cancelling_at)
    return max(int(now), *(time for time in earlier if time is not None))


def file_object(row: Row[Any]) -> FileObject:
    """A row of files as its object."""
    return FileObject(
        id=row.id,
        bytes=row.bytes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        filename=row.filename,
        purpose=row.purpose,
    )


def batch_object(row: Row[Any]) -> Batch:
    """A row of batches as its object."""
    return Batch(
        id=row.id,
        endpoint=row.endpoint,
        model=row.model,
        errors=None if row.errors is None else Errors(data=row.errors),
        input_file_id=row.input_file_id,
        completion_window=row.completion_window,
        status=row.status,
        output_file_id=row.output_file_id,
        error_file_id=row.error_file_id,
        created_at=row.created_at,
        in_progress_at=row.in_progress_at,
        expires_at=row.expires_at,
        finalizing_at=row.finalizing_at,
        completed_at=row.completed_at,
        failed_at=row.failed_at,
        expired_at=row.expired_at,
        cancelling_at=row.cancelling_at,
        cancelled_at=row.cancelled_at,
        request_counts=RequestCounts(total=row.total, completed=row.completed, failed=row.failed),
        usage=Usage(
            input_tokens=row.input_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=row.cached_tokens),
            output_tokens=row.output_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=row.reasoning_tokens),
            total_tokens=row.input_tokens + row.output_tokens,
        ),
        metadata=row.metadata,
    )


def _add_file(connection: Connection, values: dict[str, Any]) -> Row[Any]:
    return connection.execute(insert(tables.files).values(values).returning(tables.files)).one()


def _add_batch(connection: Connection, values: dict[str, Any], retry: bool) -> Row[Any]:
    batches, now = tables.batches, values["created_at"]
    own = select(batches).where(batches.c.owner == values["owner"]).order_by(batches.c.number.desc()).limit(1)
    if values["idempotency_key"] is not None:
        same_key = own.where(batches.c.idempotency_key == values["idempotency_key"], batches.c.created_at > now - DAY)
        found = connection.execute(same_key).one_or_none()
        if found is not None:
            if found.fingerprint != values["fingerprint"]:
                raise Refusal(
                    f"This Idempotency-Key was used for {found.id} with other parameters; use another key.",
                    code="idempotency_key_reused",
                )
            return found
    elif retry:
        same = own.where(batches.c.fingerprint == values["fingerprint"], batches.c.created_at > now - REPETITION)
        found = connection.execute(same).one_or_none()
        if found is not None:
            return found
    return connection.execute(insert(batches).values(values).returning(batches)).one()


def _creation(body: Any) -> dict[str, Any]:
    """The parameters of a new batch. Raises Refusal."""
    if not isinstance(body, dict):
        raise Refusal("The body must be a JSON object.")
    for name in PARAMETERS[:3]:
        if body.get(name) is None:
            raise missing(name)
        if not isinstance(body[name], str):
            raise Refusal(f"'{name}' must be a string.", param=name, code="invalid_type")
    unknown = next((name for name in body if name not in PARAMETERS), None)
    if unknown is not None:
        raise Refusal(f"Unknown parameter: '{unknown}'.", param=unknown, code="unknown_parameter")
    if body["endpoint"] not in ENDPOINTS:
        raise invalid("endpoint", f"'endpoint' must be one of: {', '.join(ENDPOINTS)}.")
    _window(body["completion_window"])
    return {
        **{name: body[name] for name in PARAMETERS[:3]},
        "metadata": _metadata(body.get("metadata")),
        "output_expires_after": _expires_after(body.get("output_expires_after"), "output_expires_after"),
    }


def _window(text: str) -> int:
    """Seconds. OpenAI has 24h alone."""
    found = _WINDOW.fullmatch(text)
    seconds = 0 if found is None else int(found[1]) * _UNITS[found[2]]
    if not 1 <= seconds <= 30 * DAY:
        raise invalid("completion_window", "'completion_window' must be '24h', or another time up to '30d'.")
    return seconds


def _metadata(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Refusal("'metadata' must be an object of strings.", param="metadata", code="invalid_type")
    if len(value) > 16:
        raise invalid("metadata", "'metadata' must have at most 16 pairs.")
    if any(len(name) > 64 or len(text) > 512 for name, text in value.items()):
        raise invalid("metadata", "A key of 'metadata' has at most 64 characters, and a value at most 512.")
    return value


def _expires_after(value: Any, name: str) -> int | None:
    """Seconds; None if nothing is said. Text counts as a number, since forms have nothing else."""
    if value is None or value == {}:
        return None
    if not isinstance(value, dict) or value.get("anchor") != "created_at":
        raise invalid(f"{name}[anchor]", f"'{name}' must have the anchor 'created_at'.")
    seconds = value.get("seconds")
    if isinstance(seconds, str) and re.fullmatch(r"[0-9]{1,9}", seconds):
        seconds = int(seconds)
    if not isinstance(seconds, int) or isinstance(seconds, bool) or not 3600 <= seconds <= 30 * DAY:
        raise invalid(f"{name}[seconds]", f"'{name}' must have seconds from 3600 to {30 * DAY}.")
    return seconds


def _limit(query: dict[str, str], default: int, most: int) -> int:
    text = query.get("limit", str(default))
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise invalid("limit", f"'limit' must be a number from 1 to {most}.")
    return int(text)
