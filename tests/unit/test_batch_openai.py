"""The official openai client, unmodified, is a client of the server; and its types are ours, field by field."""

from __future__ import annotations

import json
import socket
import threading
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import openai.types
import pydantic
import pytest
from openai.types.batch_usage import BatchUsage, InputTokensDetails, OutputTokensDetails

from rigd.batch import objects
from tests.unit.batching import ScriptedEngine, Server, jsonl, line, until

FILE = jsonl(line("a"), line("b"))

PAIRS: list[tuple[type[pydantic.BaseModel], type[pydantic.BaseModel]]] = [
    (objects.FileObject, openai.types.FileObject),
    (objects.FileDeleted, openai.types.FileDeleted),
    (objects.Batch, openai.types.Batch),
    (objects.BatchError, openai.types.BatchError),
    (objects.RequestCounts, openai.types.BatchRequestCounts),
    (objects.Usage, BatchUsage),
    (objects.InputTokensDetails, InputTokensDetails),
    (objects.OutputTokensDetails, OutputTokensDetails),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda kind: kind.__name__)
def test_our_fields_are_the_clients(ours: type[pydantic.BaseModel], theirs: type[pydantic.BaseModel]) -> None:
    assert set(ours.model_fields) == set(theirs.model_fields)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda kind: kind.__name__)
def test_what_the_client_requires_is_never_null(
    ours: type[pydantic.BaseModel], theirs: type[pydantic.BaseModel]
) -> None:
    needed = {name for name, found in theirs.model_fields.items() if found.is_required()}
    assert {name for name in needed if type(None) in typing.get_args(ours.model_fields[name].annotation)} == set()


def test_statuses_and_purposes_are_the_clients() -> None:
    assert set(typing.get_args(objects.Status)) == set(
        typing.get_args(openai.types.Batch.model_fields["status"].annotation)
    )
    assert set(typing.get_args(objects.Purpose)) <= set(
        typing.get_args(openai.types.FileObject.model_fields["purpose"].annotation)
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine().running() as running:
        yield running


@pytest.fixture(scope="module")
def server(engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), engine.settings()).running() as running:
        yield running


def connect(url: str, name: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=url, api_key="sk-none", default_headers={"X-Rig-Client": name})


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return connect(server.url, "official")


def ended(client: openai.OpenAI, identity: str) -> openai.types.Batch:
    terminal = ("completed", "failed", "expired", "cancelled")

    def look() -> openai.types.Batch | None:
        found = client.batches.retrieve(identity)
        return found if found.status in terminal else None

    found: openai.types.Batch = until(look, "the batch's end")
    return found


def strict(found: pydantic.BaseModel) -> None:
    """The client accepts everything; its types alone say if an answer is right."""
    type(found).model_validate_json(found.model_dump_json(exclude={"_request_id"}), strict=True)
    assert found.model_extra in (None, {})


def test_files(client: openai.OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "open.jsonl"
    path.write_bytes(FILE)
    with path.open("rb") as file:
        first = client.files.create(file=file, purpose="batch")
    lasting = client.files.create(
        file=("bytes.jsonl", FILE), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    for found in (first, lasting):
        strict(found)
    assert lasting.expires_at == lasting.created_at + 3600
    assert first._request_id is not None and first._request_id.startswith("req_")
    assert client.files.wait_for_processing(first.id).status == "processed"
    assert client.files.retrieve(first.id) == first
    assert [each.id for each in client.files.list(purpose="batch", limit=1)][:2] == [lasting.id, first.id]
    assert client.files.content(first.id).read() == FILE
    strict(client.files.delete(first.id))
    with pytest.raises(openai.NotFoundError) as caught:
        client.files.content(first.id)
    assert (caught.value.code, caught.value.param) == ("not_found", "id")


def test_a_batch_from_file_to_answers(client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", FILE), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"k": "v"}
    )
    strict(made)
    batch = ended(client, made.id)
    strict(batch)
    assert batch.output_file_id is not None and batch.error_file_id is None
    lines = [json.loads(each) for each in client.files.content(batch.output_file_id).text.splitlines()]
    assert sorted(each["custom_id"] for each in lines) == ["a", "b"]
    for each in lines:
        openai.types.chat.ChatCompletion.model_validate(each["response"]["body"])


def test_an_invalid_file_shows_its_lines(client: openai.OpenAI) -> None:
    file = client.files.create(file=("a.jsonl", b"x\n" + FILE + b"[]\n"), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    batch = ended(client, made.id)
    strict(batch)
    assert batch.status == "failed" and batch.errors is not None and batch.errors.data is not None
    assert [(each.line, each.code) for each in batch.errors.data] == [(1, "invalid_json_line"), (4, "invalid_request")]
    with pytest.raises(openai.BadRequestError) as caught:
        client.batches.cancel(made.id)
    assert caught.value.code == "batch_not_cancellable"
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"


def test_its_pages_have_each_batch_once_while_new_ones_are_made(server: Server) -> None:
    client = connect(server.url, "pager")
    file = client.files.create(file=("a.jsonl", FILE), purpose="batch").id

    def make() -> str:
        made = client.batches.create(input_file_id=file, endpoint="/v1/chat/completions", completion_window="24h")
        return made.id

    old = [make() for _ in range(13)]
    seen = []
    for number, batch in enumerate(client.batches.list(limit=5)):
        seen.append(batch.id)
        if number % 5 == 3:
            make()
    assert seen == old[::-1]


def test_a_lost_answer_makes_no_second_batch(server: Server) -> None:
    with Dropping(server.port) as dropping:
        other = connect(f"http://127.0.0.1:{dropping.port}/v1", "loser")
        mine = other.files.create(file=("a.jsonl", FILE), purpose="batch").id
        dropping.drop = 1
        made = other.batches.create(input_file_id=mine, endpoint="/v1/chat/completions", completion_window="24h")
        assert dropping.drop == 0
        assert [each.id for each in other.batches.list()] == [made.id]


class Dropping:
    """A proxy that loses the answers to the next creations of batches."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.drop = 0
        self._creates = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Dropping:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass, args=(connection,), daemon=True).start()

    def _pass(self, connection: socket.socket) -> None:
        with connection, socket.create_connection(("127.0.0.1", self._to)) as server:
            back = threading.Thread(target=self._answer, args=(server, connection), daemon=True)
            back.start()
            while request := connection.recv(1 << 16):
                # A body may come by itself, and begins with none of these.
                if request.startswith((b"GET ", b"POST ", b"DELETE ")):
                    self._creates = request.startswith(b"POST /v1/batches ")
                server.sendall(request)
            server.shutdown(socket.SHUT_RDWR)
            back.join()

    def _answer(self, server: socket.socket, connection: socket.socket) -> None:
        while answer := server.recv(1 << 16):
            if self.drop and self._creates:
                self.drop -= 1
                connection.shutdown(socket.SHUT_RDWR)
                return
            connection.sendall(answer)
