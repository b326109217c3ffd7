"""The interface: objects, pages, refusals, and errors of one shape on every path; each client sees its own alone."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from fastapi.routing import APIRoute

from rigd.batch import api
from rigd.batch.config import Limits
from tests.unit.batching import CHAT, Client, ScriptedEngine, Server, jsonl, line, until

FILE = jsonl(line("a"), line("b"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ScriptedEngine().running() as engine:
        limits = Limits(file_bytes=1 << 20)
        with Server(tmp_path_factory.mktemp("server"), engine.settings(), limits=limits).running() as running:
            yield running


@pytest.fixture
def client(server: Server, request: pytest.FixtureRequest) -> Client:
    """A client of this test alone."""
    return Client(server.url, re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:32])


def error(response: requests.Response) -> dict[str, Any]:
    """The error of an answer, whose shape is the interface's."""
    assert response.headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[a-z0-9]+", response.headers["x-request-id"])
    body = response.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert isinstance(body["error"]["message"], str) and body["error"]["message"]
    assert body["error"]["type"] == {401: "authentication_error"}.get(
        response.status_code, "invalid_request_error" if response.status_code < 500 else "server_error"
    )
    assert "retry-after" not in response.headers or 0 < float(response.headers["retry-after"]) <= 120
    found: dict[str, Any] = body["error"]
    return found


def refused(response: requests.Response, status: int, param: str | None, code: str | None) -> str:
    """Check a refusal; its message."""
    found = error(response)
    assert (response.status_code, found["param"], found["code"]) == (status, param, code), found
    message: str = found["message"]
    return message


def test_a_file_is_stored_as_it_was_sent(client: Client) -> None:
    identity = client.upload(FILE, "größe .jsonl")
    found = client.call("GET", f"/files/{identity}").json()
    assert found.pop("created_at") + 30 * 86_400 == found.pop("expires_at")
    assert found == {
        "id": identity,
        "object": "file",
        "bytes": len(FILE),
        "filename": "größe .jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }
    content = client.call("GET", f"/files/{identity}/content")
    assert content.content == FILE and content.headers["content-length"] == str(len(FILE))
    assert client.call("DELETE", f"/files/{identity}").json() == {"id": identity, "object": "file", "deleted": True}
    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        refused(client.call(method, f"/files/{identity}{path}"), 404, "id", "not_found")


@pytest.mark.parametrize(
    ("fields", "filename", "param", "code"),
    [
        ({}, "a.jsonl", "purpose", "missing_required_parameter"),
        ({"purpose": "vision"}, "a.jsonl", "purpose", "invalid_value"),
        ({"purpose": "batch"}, "a.txt", None, None),
        ({"purpose": "batch", "expires_after[anchor]": "now"}, "a.jsonl", "expires_after[anchor]", "invalid_value"),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
            "a.jsonl",
            "expires_after[seconds]",
            "invalid_value",
        ),
    ],
)
def test_an_upload_that_cannot_be_used_is_refused(
    fields: dict[str, str], filename: str, param: str | None, code: str | None, client: Client
) -> None:
    found = client.call("POST", "/files", data=fields, files={"file": (filename, FILE)})
    refused(found, 400, param, code)
    assert client.call("GET", "/files").json()["data"] == []


def test_the_order_of_fields_does_not_matter(client: Client) -> None:
    parts = [
        ("file", ("a.jsonl", FILE)),
        ("expires_after[seconds]", (None, "3600")),
        ("expires_after[anchor]", (None, "created_at")),
        ("purpose", (None, "batch")),
    ]
    found = client.call("POST", "/files", files=parts).json()
    assert found["expires_at"] == found["created_at"] + 3600


def form() -> tuple[bytes, dict[str, str]]:
    """An upload's body and its type."""
    fields = {"purpose": "batch"}
    prepared = requests.Request("POST", "http://x/", data=fields, files={"file": ("a.jsonl", FILE)}).prepare()
    assert isinstance(prepared.body, bytes)
    return prepared.body, {"content-type": prepared.headers["content-type"]}


def test_uploads_without_a_length_are_taken(client: Client) -> None:
    prepared = requests.Request(
        "POST", client.url, data={"purpose": "batch"}, files={"file": ("a.jsonl", FILE)}
    ).prepare()
    assert isinstance(prepared.body, bytes)
    pieces = iter([prepared.body[:7], prepared.body[7:150], prepared.body[150:]])
    kind = {"content-type": prepared.headers["content-type"]}
    assert client.call("POST", "/files", data=pieces, headers=kind).json()["bytes"] == len(FILE)


@pytest.mark.parametrize("cut", [10, 200, -4])
def test_a_form_that_ends_in_the_middle_is_refused(cut: int, client: Client, server: Server) -> None:
    prepared = requests.Request(
        "POST", client.url, data={"purpose": "batch"}, files={"file": ("a.jsonl", FILE)}
    ).prepare()
    assert isinstance(prepared.body, bytes)
    kind = {"content-type": prepared.headers["content-type"]}
    refused(client.call("POST", "/files", data=prepared.body[:cut], headers=kind), 400, None, None)
    until(lambda: not list((server.folder / "data" / "parts").iterdir()), "the removal")


def test_an_upload_that_is_not_a_form_is_refused(client: Client) -> None:
    refused(client.call("POST", "/files", data=FILE), 400, None, None)
    refused(
        client.call("POST", "/files", data={"purpose": "batch"}, files={"x": FILE}),
        400,
        "file",
        "missing_required_parameter",
    )


def test_a_file_over_the_limit_is_refused_and_leaves_nothing(client: Client, server: Server) -> None:
    found = client.call("POST", "/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b"x" * (3 << 20))})
    refused(found, 413, "file", "file_too_large")
    assert list((server.folder / "data" / "parts").iterdir()) == []


def create(client: Client, **values: Any) -> requests.Response:
    body = {"input_file_id": client.upload(FILE), "endpoint": CHAT, "completion_window": "24h"} | values
    return client.call("POST", "/batches", json={name: value for name, value in body.items() if value != "left out"})


@pytest.mark.parametrize(
    ("values", "param", "code"),
    [
        ({"input_file_id": "left out"}, "input_file_id", "missing_required_parameter"),
        ({"endpoint": "left out"}, "endpoint", "missing_required_parameter"),
        ({"completion_window": "left out"}, "completion_window", "missing_required_parameter"),
        ({"endpoint": 7}, "endpoint", "invalid_type"),
        ({"endpoint": "/v1/images/edits"}, "endpoint", "invalid_value"),
        ({"completion_window": "soon"}, "completion_window", "invalid_value"),
        ({"completion_window": "31d"}, "completion_window", "invalid_value"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": {"k" * 65: ""}}, "metadata", "invalid_value"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "invalid_value"),
        ({"metadata": {"k": 1}}, "metadata", "invalid_type"),
        ({"metadata": []}, "metadata", "invalid_type"),
        ({"output_expires_after": {"anchor": "x"}}, "output_expires_after[anchor]", "invalid_value"),
        ({"output_expires_after": {"anchor": "created_at"}}, "output_expires_after[seconds]", "invalid_value"),
        ({"priority": 1}, "priority", "unknown_parameter"),
    ],
)
def test_a_batch_that_cannot_be_made_is_refused(values: dict[str, Any], param: str, code: str, client: Client) -> None:
    refused(create(client, **values), 400, param, code)
    assert client.call("GET", "/batches").json()["data"] == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"metadata":"\xff"}'])
def test_a_body_that_is_no_object_is_refused(body: bytes, client: Client) -> None:
    assert error(client.call("POST", "/batches", data=body))["param"] is None


def test_an_output_file_is_no_input(client: Client) -> None:
    batch = client.ended(create(client).json()["id"])
    refused(create(client, input_file_id=batch["output_file_id"]), 400, "input_file_id", "invalid_value")


def test_a_batch_shows_what_it_was_made_from(client: Client) -> None:
    metadata = {f"{number:02}" + "k" * 62: "v" * 512 for number in range(16)}
    found = create(client, metadata=metadata, completion_window="48h").json()
    assert found["status"] == "validating" and found["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (found["metadata"], found["endpoint"], found["completion_window"]) == (metadata, CHAT, "48h")
    assert found["expires_at"] == found["created_at"] + 48 * 3600
    batch = client.ended(found["id"])
    assert batch["model"] == "m"
    assert batch["usage"] == {
        "input_tokens": 6,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 10,
    }
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"]
    name = client.call("GET", f"/files/{batch['output_file_id']}").json()
    assert (name["filename"], name["purpose"]) == (f"{batch['id']}_output.jsonl", "batch_output")
    assert name["expires_at"] is None


def test_output_files_expire_after_their_own_making(client: Client) -> None:
    batch = client.ended(create(client, output_expires_after={"anchor": "created_at", "seconds": 3600}).json()["id"])
    found = client.call("GET", f"/files/{batch['output_file_id']}").json()
    assert found["expires_at"] == found["created_at"] + 3600


def test_an_invalid_file_makes_a_failed_batch(client: Client) -> None:
    batch = client.ended(client.create(FILE + b"nonsense\n"))
    assert batch["status"] == "failed" and batch["failed_at"] is not None
    assert batch["errors"]["data"] == [
        {
            "code": "invalid_json_line",
            "line": 3,
            "message": "This line is not parseable as valid JSON.",
            "param": None,
        }
    ]
    assert (batch["output_file_id"], batch["error_file_id"]) == (None, None)
    message = refused(client.call("POST", f"/batches/{batch['id']}/cancel"), 400, None, "batch_not_cancellable")
    assert "failed" in message


def test_the_input_may_be_deleted_while_the_batch_runs(client: Client) -> None:
    found = create(client).json()
    client.call("DELETE", f"/files/{found['input_file_id']}")
    assert client.ended(found["id"])["status"] == "completed"


def test_a_repeated_creation_finds_its_batch(client: Client) -> None:
    body = {"input_file_id": client.upload(FILE), "endpoint": CHAT, "completion_window": "24h"}
    other = body | {"metadata": {"k": "v"}}

    def make(values: dict[str, Any], **headers: str) -> requests.Response:
        return client.call("POST", "/batches", json=values, headers=headers)

    first = make(body).json()["id"]
    again = {"x-stainless-retry-count": "1"}
    assert make(body, **again).json()["id"] == first
    assert make(other, **again).json()["id"] != first
    assert make(body, **{"x-stainless-retry-count": "0"}).json()["id"] != first
    keyed = make(body, **{"Idempotency-Key": "k"}).json()["id"]
    assert keyed != first and make(body, **{"Idempotency-Key": "k"}).json()["id"] == keyed
    refused(make(other, **{"Idempotency-Key": "k"}), 400, None, "idempotency_key_reused")
    assert make(other, **{"Idempotency-Key": "l"}).json()["id"] != keyed
    stranger = Client(client.url, "stranger")
    refused(stranger.call("POST", "/batches", json=body, headers={"Idempotency-Key": "k"}), 404, "id", "not_found")


def pages(client: Client, path: str, between: Any = lambda: None, **query: Any) -> list[str]:
    """The ids of all pages, in the way of the official client."""
    found: list[str] = []
    while True:
        page = client.call("GET", path, params=query).json()
        ids = [each["id"] for each in page["data"]]
        assert (page["first_id"], page["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))
        found += ids
        if not page["has_more"] or not ids:
            return found
        query["after"] = ids[-1]
        between()


def test_pages_have_each_object_once_while_new_ones_are_made(client: Client) -> None:
    files = [client.upload(FILE) for _ in range(7)]
    assert pages(client, "/files", lambda: client.upload(FILE), limit=2) == files[::-1]
    old = [client.create(FILE) for _ in range(7)]
    assert pages(client, "/batches", lambda: client.create(FILE), limit=3) == old[::-1]
    assert pages(client, "/files", limit=4, order="asc", purpose="batch")[:7] == files
    # Deleted meanwhile, it still says where the next page begins.
    client.call("DELETE", f"/files/{files[3]}")
    assert pages(client, "/files", limit=2, after=files[3]) == files[2::-1]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "limit=-1", "limit=10001", "after=gone", "order=up", "limit=1e3"]
)
def test_a_page_that_cannot_be_is_refused(query: str, client: Client) -> None:
    refused(client.call("GET", f"/files?{query}"), 400, query.partition("=")[0], "invalid_value")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "after=gone"])
def test_a_page_of_batches_that_cannot_be_is_refused(query: str, client: Client) -> None:
    refused(client.call("GET", f"/batches?{query}"), 400, query.partition("=")[0], "invalid_value")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/files/", 404),
        ("GET", "/batches/a/b/c", 404),
        ("PUT", "/files", 405),
        ("DELETE", "/batches", 405),
        ("GET", "/batches/x/cancel", 405),
        ("OPTIONS", "/files", 405),
        ("GET", "/../docs", 404),
        ("GET", "/../openapi.json", 404),
    ],
)
def test_every_path_has_errors_of_one_shape(method: str, path: str, status: int, client: Client) -> None:
    found = client.call(method, path)
    assert found.status_code == status
    error(found)


def test_a_request_that_is_no_http_gets_the_same_shape(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(1000), b""))
    head, body = answer.split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def routes() -> list[tuple[str, str]]:
    """Method and path of every route, so that none can be forgotten."""
    app = api.build(SimpleNamespace())  # type: ignore[arg-type]
    return [
        (method, route.path) for route in app.routes if isinstance(route, APIRoute) for method in route.methods or ()
    ]


def test_there_are_no_routes_but_these() -> None:
    assert len(routes()) == 9
    assert len(routes()) == len(api.build(SimpleNamespace()).routes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "path"), routes())
def test_no_route_answers_a_request_without_a_client(method: str, path: str, server: Server) -> None:
    address = server.url + path.removeprefix("/v1").format(file_id="x", batch_id="x")
    for headers in ({}, {"X-Rig-Client": ""}, {"X-Rig-Client": "Not A Name"}, {"X-Rig-Client": "a, b"}):
        refused(requests.request(method, address, headers=headers, timeout=30), 401, None, "invalid_api_key")


@pytest.mark.parametrize(("method", "path"), routes())
def test_no_route_shows_another_clients_objects(method: str, path: str, client: Client, server: Server) -> None:
    batch = client.ended(client.create(FILE))
    ids = {"file_id": batch["output_file_id"], "batch_id": batch["id"]}
    stranger = Client(server.url, f"{client.name[:28]}-str")
    body = {"input_file_id": batch["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
    found = stranger.call(method, path.removeprefix("/v1").format(**ids), json=body if path == "/v1/batches" else None)
    if "{" in path:
        never = stranger.call(method, path.removeprefix("/v1").format(file_id="file-none", batch_id="batch_none"))
        assert refused(found, 404, "id", "not_found") == error(never)["message"].replace(
            "file-none", ids["file_id"]
        ).replace("batch_none", ids["batch_id"])
    elif method == "GET":
        assert found.json()["data"] == []
        assert stranger.call("GET", f"{path.removeprefix('/v1')}?after={ids['batch_id']}").status_code == 400
    elif path == "/v1/batches":
        refused(found, 404, "id", "not_found")
    assert client.batch(batch["id"]) == batch
    assert len(client.lines(batch["output_file_id"])) == 2
