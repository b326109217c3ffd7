"""Nothing is lost and nothing doubled: kills at seeded moments, two servers, a full disk, a clock that jumps."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from rigd.batch.config import Config, Engine
from rigd.batch.content import Content
from rigd.batch.dispatch import Dispatcher
from rigd.batch.errors import Refusal
from rigd.batch.service import Service
from rigd.batch.store import Result, Store, change, record
from tests.unit.batching import CHAT, QUICK, Client, ScriptedEngine, Server, jsonl, line, until

ALL = bool(os.environ.get("RIG_TEST_ALL"))
KILLS = 100 if ALL else 4
LINES = 60


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine().running() as running:
        yield running


def committed(server: Server) -> set[str]:
    """The custom_ids whose result is in the database, read without the server."""
    path = server.folder / "data" / "queue.sqlite"
    if not path.exists():
        return set()
    with sqlite3.connect(path) as connection:
        try:
            rows = connection.execute("SELECT text FROM results").fetchall()
        except sqlite3.OperationalError:
            return set()
    connection.close()
    return {json.loads(text)["custom_id"] for (text,) in rows}


def test_kills_at_any_moment_lose_nothing_and_repeat_nothing_committed(
    engine: ScriptedEngine, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    chance = random.Random(12)
    server = Server(tmp_path, engine.settings(concurrency=4))
    client = Client(server.url)
    batches: dict[str, list[str]] = {}
    moments: dict[str, int] = {}
    server.start()
    for kill in range(KILLS):
        names = [f"{kill}-{number}" for number in range(LINES)]
        identity = client.create(jsonl(*map(line, names)))
        batches[identity] = names
        # A kill in each part of a batch's life: by the number of requests that the engine has seen, and somewhat after
        # the last of them, when files are written and published.
        target = (0, chance.randrange(1, LINES), LINES, LINES + chance.randrange(1, 20))[kill % 4]
        end = time.monotonic() + 10
        while sum(engine.seen[name] for name in names) < min(target, LINES) and time.monotonic() < end:
            time.sleep(0.0005)
        if target >= LINES:
            time.sleep((target - LINES) * 0.003)
        server.kill()
        kept, seen = committed(server), engine.seen.copy()
        status = _status(server, identity)
        moments[status] = moments.get(status, 0) + 1
        server.start()
        batch = client.ended(identity)
        output, error = client.results(batch)
        assert sorted(each["custom_id"] for each in output + error) == sorted(names)
        assert error == [] and batch["status"] == "completed"
        assert {name: engine.seen[name] for name in kept} == {name: seen[name] for name in kept}
    # Those of earlier kills are as they were.
    for identity, names in batches.items():
        output, _ = client.results(client.batch(identity))
        assert sorted(each["custom_id"] for each in output) == sorted(names)
    until(lambda: _leftovers(server) == [], "the removal of leftovers")
    server.kill()
    record_property("kills", f"{KILLS}, by the batch's status: {moments}")
    print(f"{KILLS} kills of the server, by the batch's status: {moments}")


def _status(server: Server, identity: str) -> str:
    connection = sqlite3.connect(server.folder / "data" / "queue.sqlite")
    found: tuple[str] = connection.execute("SELECT status FROM batches WHERE id = ?", (identity,)).fetchone()
    connection.close()
    return found[0]


def _leftovers(server: Server) -> list[str]:
    """Inputs and parts that nobody needs any more."""
    return [path.name for folder in ("inputs", "parts") for path in (server.folder / "data" / folder).iterdir()]


def test_a_killed_upload_leaves_nothing(engine: ScriptedEngine, tmp_path: Path) -> None:
    server = Server(tmp_path, engine.settings())
    server.start()

    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n' + b"x" * (3 << 20)
        until(lambda: any(path.stat().st_size for path in (server.folder / "data" / "parts").iterdir()))
        server.kill()
        yield b"x"

    kind = {"content-type": "multipart/form-data; boundary=x", "X-Rig-Client": "alice"}
    with pytest.raises(requests.ConnectionError):
        requests.post(f"{server.url}/files", data=endless(), headers=kind, timeout=60)
    assert len(_leftovers(server)) == 1
    with server.running():
        assert _leftovers(server) == []
        assert Client(server.url).call("GET", "/files").json()["data"] == []


def test_a_second_server_on_the_same_data_names_the_first(engine: ScriptedEngine, tmp_path: Path) -> None:
    server = Server(tmp_path, engine.settings())
    with server.running():
        assert server.process is not None
        second = subprocess.run(
            [sys.executable, "-m", "rigd.batch", "serve", "--config", str(tmp_path / "batch.json")],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode == 1
        assert second.stderr == (
            f"rig-batch: another rig-batch server is at work (PID {server.process.pid}); "
            f"only one may use {tmp_path / 'data'}\n"
        )
        assert Client(server.url).call("GET", "/batches").status_code == 200


def test_sigterm_ends_the_server_and_the_next_one_goes_on(engine: ScriptedEngine, tmp_path: Path) -> None:
    engine.delay = 0.05
    server = Server(tmp_path, engine.settings(concurrency=2))
    server.start()
    client = Client(server.url)
    names = [str(number) for number in range(20)]
    identity = client.create(jsonl(*map(line, names)))
    until(lambda: len(engine.seen) > 5)
    assert server.stop() == 0
    with server.running():
        output, error = client.results(client.ended(identity))
        assert sorted(each["custom_id"] for each in output) == sorted(names) and error == []


MOUNT = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_pauses_the_engine_and_fails_no_batch(engine: ScriptedEngine, tmp_path: Path) -> None:
    """The disk is a tmpfs of the server's own mount namespace; /proc leads the test into it."""
    (tmp_path / "data").mkdir()
    server = Server(tmp_path, engine.settings(), reserve=1 << 20)
    disk = f'mount -t tmpfs -o size=6m none {tmp_path / "data"} && exec "$@"'
    server.start(*MOUNT, disk, "sh")
    assert server.process is not None
    inside = Path(f"/proc/{server.process.pid}/root{tmp_path}/data")
    client = Client(server.url)
    engine.delay = 0.02
    names = [str(number) for number in range(60)]
    identity = client.create(jsonl(*map(line, names)))
    until(lambda: len(engine.seen) > 10)
    filler = inside / "filler"
    try:
        with filler.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
    except OSError:
        pass
    upload = client.call("POST", "/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"{}" * 1000)})
    assert (upload.status_code, upload.json()["error"]["code"]) == (507, "insufficient_storage")
    assert 0 < float(upload.headers["retry-after"]) <= 120
    until(lambda: "dispatch is paused" in server.log.read_text(), "the pause")

    def rests() -> bool:
        """While the client asks twenty times, nothing reaches the engine."""
        seen = engine.seen.total()
        statuses = [client.batch(identity)["status"] for _ in range(20)]
        return statuses == ["in_progress"] * 20 and engine.seen.total() == seen

    until(rests, "the engine's rest")
    assert engine.seen.total() < len(names)
    filler.unlink()
    output, error = client.results(client.ended(identity))
    assert sorted(each["custom_id"] for each in output) == sorted(names) and error == []
    assert client.upload(b"{}")
    server.kill()


def test_a_limit_on_the_size_of_files_is_a_full_disk_too(engine: ScriptedEngine, tmp_path: Path) -> None:
    server = Server(tmp_path, engine.settings())
    server.start("sh", "-c", 'ulimit -f 2048 && exec "$@"', "sh")
    client = Client(server.url)
    found = client.call("POST", "/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"x" * (3 << 20))})
    assert (found.status_code, found.json()["error"]["code"]) == (507, "insufficient_storage")
    assert client.ended(client.create(jsonl(line("a"))))["status"] == "completed"
    server.kill()


# The parts in this process, with a clock in the test's hand.


class Rig:
    """A server without its process."""

    def __init__(self, data: Path, engine: Engine) -> None:
        self.now = 1_000_000.0
        self.config = Config(str(data), (engine,), patience=QUICK, reserve=0)
        self.store, self.content = Store(data), Content(data)
        self.dispatcher = Dispatcher(self.config, self.store, self.content, lambda: self.now)
        self.service = Service(self.config, self.store, self.content, lambda: self.now, self.dispatcher.wake)

    async def batch(self, names: list[str], window: str) -> str:
        part = self.content.part()
        part.write(jsonl(*map(line, names)))
        file = await self.service.add_file("alice", part, "a.jsonl", {"purpose": "batch"})
        body = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": window}
        return (await self.service.create("alice", body, None, False)).id

    async def until(self, condition: Callable[[Any], bool], identity: str) -> Any:
        end = time.monotonic() + 60
        while not condition(found := await self.service.batch("alice", identity)):
            assert time.monotonic() < end, found
            await asyncio.sleep(0.01)
        return found


@contextmanager
def rig(tmp_path: Path, engine: ScriptedEngine) -> Iterator[Rig]:
    found = Rig(tmp_path, engine.settings(concurrency=2))
    yield found
    found.store.close()


def test_a_clock_that_jumps_loses_no_line(engine: ScriptedEngine, tmp_path: Path) -> None:
    async def story(found: Rig) -> Any:
        working = asyncio.create_task(found.dispatcher.run())
        identity = await found.batch([str(number) for number in range(40)], "24h")
        for jump in (3600.0, -7200.0, 3600.0, -3600.0):
            await found.until(lambda batch: batch.request_counts.completed >= 5, identity)
            found.now += jump
        batch = await found.until(lambda batch: batch.status == "completed", identity)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return batch

    engine.delay = 0.01
    with rig(tmp_path, engine) as found:
        batch = asyncio.run(story(found))
    assert (batch.request_counts.completed, batch.request_counts.total) == (40, 40)
    assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at <= batch.completed_at


def test_an_end_that_comes_together_with_news_is_not_lost(engine: ScriptedEngine, tmp_path: Path) -> None:
    async def story(found: Rig, turns: int) -> bool:
        working = asyncio.create_task(found.dispatcher.run())
        # It has looked, and waits for news.
        await asyncio.sleep(0.1)
        found.dispatcher.wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        working.cancel()
        ended, _ = await asyncio.wait([working], timeout=5)
        return bool(ended)

    with rig(tmp_path, engine) as found:
        assert [turns for turns in range(4) if not asyncio.run(story(found, turns))] == []


def test_a_window_that_closed_while_the_server_was_down_expires(engine: ScriptedEngine, tmp_path: Path) -> None:
    async def story(found: Rig) -> Any:
        identity = await found.batch(["a", "b"], "1h")
        found.now += 3601
        working = asyncio.create_task(found.dispatcher.run())
        batch = await found.until(lambda batch: batch.status == "expired", identity)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        return batch, found.content.path(batch.error_file_id).read_text()

    with rig(tmp_path, engine) as found:
        batch, error = asyncio.run(story(found))
    assert [json.loads(each)["error"]["code"] for each in error.splitlines()] == ["batch_expired"] * 2
    assert batch.output_file_id is None and not engine.seen


def test_files_go_when_their_time_is_over(engine: ScriptedEngine, tmp_path: Path) -> None:
    async def story(found: Rig) -> None:
        part = found.content.part()
        part.write(b"{}")
        fields = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
        file = await found.service.add_file("alice", part, "a.jsonl", fields)
        found.now += 3599
        assert (await found.service.file("alice", file.id)).id == file.id
        found.now += 1
        with pytest.raises(Refusal):
            await found.service.file("alice", file.id)
        working = asyncio.create_task(found.dispatcher.run())
        while found.content.path(file.id).exists():
            await asyncio.sleep(0.01)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)

    with rig(tmp_path, engine) as found:
        asyncio.run(asyncio.wait_for(story(found), 60))


def test_results_behind_the_end_do_not_count_and_none_counts_twice(engine: ScriptedEngine, tmp_path: Path) -> None:
    with rig(tmp_path, engine) as found:
        identity = asyncio.run(found.batch(["a", "b"], "24h"))
        row = found.store.batch(None, identity)
        assert row is not None

        def put(number: int) -> None:
            result = Result(row.number, number, True, b"{}\n", (1, 1, 1, 1))
            found.store.writer.submit(lambda connection: record(connection, [result])).result()

        put(1)
        with pytest.raises(Exception, match="UNIQUE"):
            put(1)
        found.store.writer.submit(lambda connection: change(connection, row.number, ending="cancelled")).result()
        put(2)
        after = found.store.batch(None, identity)
        assert after is not None and (after.completed, after.input_tokens) == (1, 1)
        assert len(found.store.outcomes(row.number, True, 0, 10)) == 1


def test_a_job_that_fails_takes_no_other_with_it(tmp_path: Path, engine: ScriptedEngine) -> None:
    with rig(tmp_path, engine) as found:
        writer = found.store.writer

        def fail(connection: Any) -> None:
            connection.exec_driver_sql("PRAGMA user_version = 7")
            raise ValueError("no")

        def version(connection: Any) -> Any:
            return connection.exec_driver_sql("PRAGMA user_version").scalar_one()

        bad, good = writer.submit(fail), writer.submit(version)
        assert good.result() == 1
        with pytest.raises(ValueError, match="no"):
            bad.result()
