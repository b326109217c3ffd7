"""The HTTP interface: routes, and errors of one shape on every path. The gateway in front of it names the client."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any, BinaryIO

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rigd.batch.errors import Refusal, shape
from rigd.batch.objects import FileDeleted
from rigd.batch.room import lacks_room
from rigd.batch.service import Service, file_object, full
from rigd.batch.upload import receive

CLIENT = "X-Rig-Client"
"""Header with the client's name; the gateway removes a client's own."""
BODY = 1 << 20
"""Most bytes of a JSON body."""
PIECE = 256 << 10
RETRY_AFTER = {429: "5", 503: "5", 507: "30"}
"""Seconds. The official client does not retry at all above 120."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")

_log = logging.getLogger("rig-batch")


def build(service: Service) -> FastAPI:
    """The application. Its route table is what the tests of isolation go through."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    # Exception alone would do, but Starlette hands that on after its answer, as a failure of the server.
    for kind in (OSError, OperationalError, Exception):
        app.add_exception_handler(kind, _failed)

    @app.post("/v1/files")
    async def add_file(request: Request) -> Response:
        owner, limit = _client(request), service.config.limits.file_bytes
        declared = request.headers.get("content-length", "0")
        service.room(int(declared) if declared.isdecimal() else 0)
        part = service.content.part()
        try:
            form = await receive(request.stream(), request.headers.get("content-type"), part, limit)
            return _json(await service.add_file(owner, part, form.filename or "", form.fields))
        finally:
            # Finished, its name is gone already.
            part.drop()

    @app.get("/v1/files")
    async def list_files(request: Request) -> Response:
        return _json(await service.list_files(_client(request), _query(request)))

    @app.get("/v1/files/{file_id}")
    async def get_file(request: Request, file_id: str) -> Response:
        return _json(file_object(await service.file(_client(request), file_id)))

    @app.get("/v1/files/{file_id}/content")
    async def get_content(request: Request, file_id: str) -> Response:
        row = await service.file(_client(request), file_id)
        try:
            file = service.content.path(row.id).open("rb")
        except FileNotFoundError:
            raise Refusal(f"The file '{file_id}' has just been deleted.", 404, "id", "not_found") from None
        headers = {"content-length": str(row.bytes)}
        return StreamingResponse(_pieces(file), media_type="application/octet-stream", headers=headers)

    @app.delete("/v1/files/{file_id}")
    async def delete_file(request: Request, file_id: str) -> Response:
        await service.delete_file(_client(request), file_id)
        return _json(FileDeleted(id=file_id))

    @app.post("/v1/batches")
    async def create_batch(request: Request) -> Response:
        owner = _client(request)
        key = request.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= 255:
            raise Refusal("'Idempotency-Key' must have 1 to 255 characters.", param="Idempotency-Key")
        count = request.headers.get("x-stainless-retry-count", "0")
        retry = count.isdecimal() and int(count) > 0
        return _json(await service.create(owner, await _document(request), key, retry))

    @app.get("/v1/batches")
    async def list_batches(request: Request) -> Response:
        return _json(await service.list_batches(_client(request), _query(request)))

    @app.get("/v1/batches/{batch_id}")
    async def get_batch(request: Request, batch_id: str) -> Response:
        return _json(await service.batch(_client(request), batch_id))

    @app.post("/v1/batches/{batch_id}/cancel")
    async def cancel_batch(request: Request, batch_id: str) -> Response:
        return _json(await service.cancel(_client(request), batch_id))

    return app


class Outermost:
    """What every answer has: an id, and never the framework's own page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def with_id(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], (b"x-request-id", f"req_{secrets.token_hex(12)}".encode())]
            await send(message)

        try:
            await self._app(scope, receive, with_id)
        except ClientDisconnect:
            return
        except Exception:
            # Starlette hands it on after its answer.
            _log.exception("%s %s failed", scope["method"], scope["path"])
            if not begun:
                await _error("The server failed.", 500)(scope, receive, with_id)


def _client(request: Request) -> str:
    names = request.headers.getlist(CLIENT)
    if len(names) != 1 or not _NAME.fullmatch(names[0]):
        raise Refusal("The request names no client; use the gateway, with a key.", 401, code="invalid_api_key")
    return names[0]


def _query(request: Request) -> dict[str, str]:
    return dict(request.query_params)


async def _document(request: Request) -> Any:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY:
            raise Refusal(f"The body is larger than {BODY} bytes.", 413)
    try:
        return orjson.loads(body)
    except ValueError:
        raise Refusal("The body is not valid JSON.", code="invalid_json") from None


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _error(message: str, status: int, param: str | None = None, code: str | None = None) -> Response:
    headers = {"retry-after": RETRY_AFTER[status]} if status in RETRY_AFTER else None
    body = orjson.dumps(shape(message, status, param, code))
    return Response(body, status_code=status, media_type="application/json", headers=headers)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _error(error.message, error.status, error.param, error.code)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = {404: "There is no such path", 405: "This path has no such method"}.get(error.status_code, error.detail)
    return _error(f"{what}: {request.method} {request.url.path}", error.status_code)


async def _failed(request: Request, error: Exception) -> Response:
    if lacks_room(error):
        return await _refused(request, full())
    if isinstance(error, OSError | OperationalError):
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _error("The server failed.", 500)
