"""What the tests of the batch server share: a scripted engine, the server as a process, and a client of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import requests
from aiohttp import web

from rigd.batch.config import Config, Engine, Patience, dump
from tests.unit.project import ROOT

CHAT = "/v1/chat/completions"
BOUND = 60.0
"""Seconds after which a wait counts as failed."""


def until(condition: Callable[[], Any], what: str = "it") -> Any:
    """Wait for a condition."""
    end = time.monotonic() + BOUND
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.01)
    return found


def free_port() -> int:
    """A port that nobody has, and that the kernel gives to no client while a server is down between two starts."""
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def line(custom_id: str, content: str | None = None, model: str = "m", **more: Any) -> dict[str, Any]:
    """A line whose prompt is its custom_id, by which the engine counts."""
    body = {"model": model, "messages": [{"role": "user", "content": content or custom_id}], **more}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def jsonl(*lines: dict[str, Any]) -> bytes:
    """Lines as a file."""
    return b"".join(json.dumps(each).encode() + b"\n" for each in lines)


def answer(text: str, model: str = "m", size: int = 0) -> dict[str, Any]:
    """What an engine answers."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text + "x" * size}}
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 1},
        },
    }


@dataclass
class ScriptedEngine:
    """An engine that does as it is told; it counts what it gets by the last message."""

    script: Callable[[web.Request, dict[str, Any], str], Any] | None = None
    """Answers a request, or returns None for an ordinary answer; may be a coroutine function."""
    models: tuple[str, ...] = ("m",)
    delay: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)
    bodies: list[bytes] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    flight: int = 0
    most: int = 0
    port: int = field(default_factory=free_port)
    _loop: asyncio.AbstractEventLoop | None = None
    _runner: web.AppRunner | None = None

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        name = body["messages"][-1]["content"]
        self.seen[name] += 1
        self.order.append(name)
        self.bodies.append(raw)
        self.flight += 1
        self.most = max(self.most, self.flight)
        try:
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.script is not None:
                found = self.script(request, body, name)
                if asyncio.iscoroutine(found):
                    found = await found
                if found is not None:
                    assert isinstance(found, web.StreamResponse)
                    return found
            return web.json_response(answer(name, body["model"]))
        finally:
            self.flight -= 1

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": name} for name in self.models]})

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post(CHAT, self._chat)
        app.router.add_get("/v1/models", self._models)
        self._runner = web.AppRunner(app, shutdown_timeout=0.0, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()

    async def _stop(self) -> None:
        assert self._runner is not None
        server = self._runner.server
        if server is not None:
            # As a process dies: connections end in the middle.
            for connection in list(server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
        await self._runner.cleanup()

    def _do(self, step: Any) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(step, self._loop).result(30)

    def up(self) -> None:
        """Listen."""
        self._do(self._start())

    def down(self) -> None:
        """Die: nobody listens on the port any more."""
        self._do(self._stop())

    @contextmanager
    def running(self) -> Iterator[ScriptedEngine]:
        """Listen until the end."""
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        self.up()
        try:
            yield self
        finally:
            self.down()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    def settings(self, **more: Any) -> Engine:
        """The engine, for the server's settings."""
        values: dict[str, Any] = {"name": "scripted", "models": self.models, "concurrency": 8, "timeout": 30.0}
        return Engine(url=f"http://127.0.0.1:{self.port}", **(values | more))


QUICK = Patience(probe=0.02, pause=0.02, seconds=5.0)
"""For engines whose trouble lasts a moment."""


class Server:
    """The server, as a process of its own."""

    def __init__(self, folder: Path, *engines: Engine, **more: Any) -> None:
        self.folder = folder
        self.port = free_port()
        values: dict[str, Any] = {"patience": QUICK, "reserve": 0, "socket": None} | more
        self.config = Config(str(folder / "data"), engines, port=self.port, **values)
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.log = folder / "log"

    def settings(self, **changes: Any) -> None:
        """Change the settings for the next start."""
        self.config = replace(self.config, **changes)

    def start(self, *wrapper: str, wait: bool = True) -> None:
        """Start it; `wrapper`: a command that runs it."""
        path = self.folder / "batch.json"
        path.write_text(dump(self.config), encoding="utf-8")
        command = [*wrapper, sys.executable, "-m", "rigd.batch", "serve", "--config", str(path)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log, env={**os.environ})
        if wait:
            until(self._answers, "the server's start")

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            return requests.get(f"{self.url}/batches", timeout=10).status_code == 401
        except requests.ConnectionError:
            return False

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Run until the end."""
        self.start()
        try:
            yield self
        finally:
            self.kill()


@dataclass
class Client:
    """A client of the server; the gateway would name it."""

    url: str
    name: str = "alice"

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        """One request."""
        headers = {"X-Rig-Client": self.name, **more.pop("headers", {})}
        return requests.request(method, f"{self.url}{path}", headers=headers, timeout=60, **more)

    def upload(self, content: bytes, filename: str = "a.jsonl", **fields: str) -> str:
        """Upload a file; its id."""
        found = self.call("POST", "/files", data={"purpose": "batch", **fields}, files={"file": (filename, content)})
        assert found.status_code == 200, found.text
        identity: str = found.json()["id"]
        return identity

    def create(self, content: bytes, window: str = "24h", **more: Any) -> str:
        """Upload a file and make a batch from it; the batch's id."""
        body = {"input_file_id": self.upload(content), "endpoint": CHAT, "completion_window": window, **more}
        found = self.call("POST", "/batches", json=body)
        assert found.status_code == 200, found.text
        identity: str = found.json()["id"]
        return identity

    def batch(self, identity: str) -> dict[str, Any]:
        """The batch now."""
        found: dict[str, Any] = self.call("GET", f"/batches/{identity}").json()
        return found

    def ended(self, identity: str) -> dict[str, Any]:
        """The batch at its end."""
        found: dict[str, Any] = until(lambda: self._ended(identity), "the batch's end")
        return found

    def _ended(self, identity: str) -> dict[str, Any] | None:
        found = self.batch(identity)
        return found if found["status"] in ("completed", "failed", "expired", "cancelled") else None

    def lines(self, identity: str | None) -> list[dict[str, Any]]:
        """The lines of a file; none without a file."""
        if identity is None:
            return []
        found = self.call("GET", f"/files/{identity}/content")
        assert found.status_code == 200
        return [json.loads(each) for each in found.content.split(b"\n")[:-1]]

    def results(self, batch: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The lines of both files, after the invariants of every batch that got past validation."""
        output, error = self.lines(batch["output_file_id"]), self.lines(batch["error_file_id"])
        counts = batch["request_counts"]
        assert (len(output), len(error)) == (counts["completed"], counts["failed"])
        assert counts["completed"] + counts["failed"] == counts["total"]
        assert all(each["response"]["status_code"] == 200 and each["error"] is None for each in output)
        assert all(each["response"] is None or each["response"]["status_code"] >= 400 for each in error)
        names = [each["custom_id"] for each in output + error]
        assert len(names) == len(set(names))
        assert batch["output_file_id"] is not None or not output
        return output, error
