"""The server's process: the lock, the sockets, and the parts put together."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rigd.base import lock
from rigd.base.errors import BadInput, Failed
from rigd.batch import api, metrics
from rigd.batch.config import Config
from rigd.batch.content import Content
from rigd.batch.dispatch import Dispatcher
from rigd.batch.errors import shape
from rigd.batch.service import Service
from rigd.batch.store import Store

BACKLOG = 512
KEEP = 75
"""Seconds that an idle connection of the gateway is kept."""
CLOSE = 5
"""Seconds that open requests get at the end."""


class Protocol(H11Protocol):
    """HTTP/1.1, where even a request that is no HTTP gets an error of the interface's shape."""

    def send_400_response(self, msg: str) -> None:
        """Answer and close."""
        import h11
        import orjson

        body = orjson.dumps(shape("The request is not valid HTTP.", 400))
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        head = h11.Response(status_code=400, headers=[*headers, (b"connection", b"close")], reason=b"Bad Request")
        self.transport.write(self.conn.send(head) or b"")
        self.transport.write(self.conn.send(h11.Data(data=body)) or b"")
        self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()


def run(config: Config, clock: Callable[[], float] = time.time) -> int:
    """Serve until SIGTERM. Raises Failed if another server has the data, BadInput if the folder cannot be used."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(message)s")
    data = Path(config.data)
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"the folder {data} cannot be made ({error.strerror}); set batch's data elsewhere") from None
    with lock.held(data, wait=False, program="rig-batch server", look=f"only one may use {data}"):
        return asyncio.run(_serve(config, data, clock))


async def _serve(config: Config, data: Path, clock: Callable[[], float]) -> int:
    store, content = Store(data), Content(data)
    content.sweep(store.stored(), (row.id for row in [*store.unfinished(), *store.full()]))
    dispatcher = Dispatcher(config, store, content, clock)
    if config.metrics is not None:
        metrics.serve(dispatcher, config.metrics)
    service = Service(config, store, content, clock, dispatcher.wake)
    app = api.Outermost(api.build(service))
    options: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "lifespan": "off",
        "server_header": False,
        "timeout_graceful_shutdown": CLOSE,
        "timeout_keep_alive": KEEP,
    }
    server = uvicorn.Server(uvicorn.Config(app, http=Protocol, ws="none", **options))
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn sends itself the signal again at its end, which would be ours before the database is closed.
        asyncio.get_running_loop().add_signal_handler(number, partial(setattr, server, "should_exit", True))
    serving = asyncio.create_task(server.serve(sockets=_sockets(config)))
    working = asyncio.create_task(dispatcher.run())
    await asyncio.wait((serving, working), return_when=asyncio.FIRST_COMPLETED)
    # Whatever ended first ends the other: a server that does not work should not take batches.
    server.should_exit = True
    await serving
    working.cancel()
    found = (await asyncio.gather(working, return_exceptions=True))[0]
    store.close()
    if isinstance(found, Exception):
        raise found
    return 0


def _sockets(config: Config) -> list[socket.socket]:
    found: list[socket.socket] = []
    if config.socket is not None:
        path = Path(config.socket)
        # That of a killed server: the lock says that nobody listens there.
        path.unlink(missing_ok=True)
        local = socket.socket(socket.AF_UNIX)
        local.bind(str(path))
        # The folder says who may come: it belongs to the gateway's group.
        path.chmod(0o660)
        found.append(local)
    if config.port is not None:
        listener = socket.socket(socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", config.port))
        except OSError as error:
            raise Failed(f"127.0.0.1:{config.port} cannot be used ({error.strerror}); set another port") from None
        found.append(listener)
    for each in found:
        each.listen(BACKLOG)
        each.setblocking(False)
    return found
