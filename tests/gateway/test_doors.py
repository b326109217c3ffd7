"""The doors: which paths, methods, headers and bodies get to an engine."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from tests.gateway.conftest import Open
from tests.gateway.door import CHAT, Door
from tests.gateway.scripted import Engine

CLOSED = (
    *("/", "/health", "/metrics", "/props", "/slots", "/slots/0?action=save", "/tokenize", "/detokenize", "/infill"),
    *("/apply-template", "/lora-adapters", "/completion", "/completions", "/chat/completions", "/embedding", "/rerank"),
    *("/v1/rerank", "/v1/messages", "/v1/audio/transcriptions", "/models/load", "/api/tags", "/cors-proxy", "/tools"),
    *("/version", "/ping", "/invocations", "/inference/v1/generate", "/pause", "/resume", "/sleep", "/wake_up"),
    *("/reset_prefix_cache", "/collective_rpc", "/server_info", "/update_weights", "/scale_elastic_ep", "/docs"),
    *("/openapi.json", "/v1/load_lora_adapter", "/v1/chat/completions/render", "/v1/responses/x/cancel", "/v1/files"),
    *("/v1/batches", "/engines/one/health", "/engines/one/metrics", "/engines/one/v1/rerank"),
    *("/engines/three/v1/models", "/load"),
    *("/engines//v1/models", "/engines/one", "/engines/one/v1", "/fingerprint"),
)
"""Routes of llama-server, of vLLM and of the gateway itself that are no doors."""

TRICKS = (
    *("//v1/chat/completions", "/v1//chat/completions", "/v1/./chat/completions", "/v1/../v1/chat/completions"),
    *("/v1/chat/%63ompletions", "/v1%2fchat%2fcompletions", "/v1/chat/completions/", "/v1/chat/completions;x"),
    *("/V1/chat/completions", "/v1/chat/completions%00", "/v1/chat/completions%20"),
    *("/v1/chat/completions/../../../slots", "/v1/chat/completions/."),
    *("/engines/one/../two/v1/chat/completions", "/engines/one/v1/../../../metrics", "/engines/one%2fv1/models"),
)
"""Other ways to write a path that is a door."""

BROKEN = (b"/v1\\chat\\completions", b"/v1/chat/completions#x", "/v1/chat/completions\u00e4".encode(), b"v1/models")
"""Paths that are no paths."""


def request(path: bytes, key: str, method: bytes = b"POST", version: bytes = b"1.1", more: bytes = b"") -> bytes:
    """The bytes of a request, with an empty JSON body if it is a POST."""
    head = b"%s %s HTTP/%s\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % (method, path, version, key.encode())
    body = b"Content-Length: 2\r\n\r\n{}" if method == b"POST" else b"\r\n"
    return head + more + b"Connection: close\r\n" + body


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_every_other_path_is_404_and_no_engine_sees_it(gate: Door, engines: dict[str, Engine], version: bytes) -> None:
    key = gate.key("alice")
    for path in (*CLOSED, *TRICKS):
        for method in (b"GET", b"POST"):
            answer = gate.raw(request(path.encode(), key, method, version))
            assert answer.split(b" ", 2)[1] == b"404", (path, method, answer)
    for broken in BROKEN:
        assert gate.raw(request(broken, key, version=version)).split(b" ", 2)[1] in (b"400", b"404"), broken
    assert engines["one"].requests == engines["two"].requests == []


def test_methods_other_than_the_doors_own_are_404(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "X"):
        assert gate.ask(key, CHAT, body=b"{}", method=method).status == 404, method
    for method in ("POST", "DELETE"):
        assert gate.ask(key, "/v1/models", body=b"{}", method=method).status == 404, method
    # An answer to HEAD has no body.
    assert gate.raw(request(b"/v1/models", key, b"HEAD")).split(b" ", 2)[1] == b"404"
    assert engines["one"].requests == []


def test_same_doors_over_http_2(gate: Door, engines: dict[str, Engine], tmp_path: Path) -> None:
    key = gate.key("alice")

    def status(path: str, *more: str) -> str:
        command = ["curl", "-s", "--path-as-is", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}"]
        command += ["-H", f"Authorization: Bearer {key}", *more, f"http://127.0.0.1:{gate.port}{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout

    for path in (*CLOSED, *TRICKS):
        assert status(path) == "404", path
        assert status(path, "-d", "{}") == "404", path
    assert engines["one"].requests == []
    assert status("/engines/one/v1/chat/completions", "-d", "{}") == "200"
    upload = ["-X", "POST", "-T", "-", "-H", "Transfer-Encoding: chunked"]
    assert status("/engines/one/v1/chat/completions", *upload) == "411"


def test_request_of_an_absolute_address_is_one_of_its_path(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    answer = gate.raw(request(b"http://x/engines/one/v1/completions?x=1", key))
    assert answer.split(b" ", 2)[1] == b"200"
    assert [seen.path for seen in engines["one"].requests] == ["/v1/completions"]


def test_engine_gets_its_own_key_and_no_header_of_the_gateways_from_a_client(
    gate: Door, engines: dict[str, Engine]
) -> None:
    key = gate.key("alice")
    forged = ["X-Rig-Client", "X-RIG-engine", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Cookie", "Upgrade"]
    answer = gate.ask(key, headers=[*((name, "forged") for name in forged), ("X-Own", "kept")])
    assert answer.status == 200
    (seen,) = engines["one"].requests
    assert seen.all("authorization") == ["Bearer key-of-one"]
    assert seen.all("x-own") == ["kept"]
    assert [name for name in forged if seen.all(name)] == []
    assert key not in str(seen)
    # Nor from an engine to a client.
    assert answer.headers["x-rig-engine"] == "one"
    assert "x-rig-client" not in answer.headers


def test_two_keys_in_one_request_are_refused(gate: Door) -> None:
    key = gate.key("alice")
    answer = gate.ask(key, headers=[("Authorization", f"Bearer {key}")])
    assert (answer.status, answer.code) == (400, "two_keys")


@pytest.mark.parametrize("given", ["a" * 65, "a b", 'a"b', "ä", ""])
def test_request_id_that_is_not_sound_is_replaced(gate: Door, engines: dict[str, Engine], given: str) -> None:
    key = gate.key("alice")
    answer = gate.ask(key, headers=[("X-Request-Id", given.encode().decode("latin-1"))])
    (seen,) = engines["one"].requests
    assert seen.all("x-request-id") == [answer.headers["x-request-id"]]
    assert len(answer.headers["x-request-id"]) == 36


def test_request_id_and_trace_of_the_client_are_kept(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    answer = gate.ask(key, headers=[("X-Request-Id", "mine-1"), ("traceparent", trace)])
    (seen,) = engines["one"].requests
    assert (seen.all("x-request-id"), seen.all("traceparent")) == (["mine-1"], [trace])
    assert answer.headers["x-request-id"] == "mine-1"


def test_trace_begins_here_where_the_client_has_none(gate: Door, engines: dict[str, Engine]) -> None:
    key = gate.key("alice")
    gate.ask(key, headers=[("traceparent", "00-x-y-01")])
    (seen,) = engines["one"].requests
    (trace,) = seen.all("traceparent")
    version, trace_id, parent, flags = trace.split("-")
    assert (version, len(trace_id), len(parent), flags) == ("00", 32, 16, "01")


def test_body_without_a_length_is_411_and_a_longer_one_than_allowed_413(
    opened: Open, engines: dict[str, Engine]
) -> None:
    gate = opened({"gateway/body/request": "1M"})
    key = gate.key("alice")
    for path in (CHAT, "/engines/one/v1/completions"):
        head = b"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % (path.encode(), key.encode())
        assert gate.raw(head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{", timeout=3).split(b" ", 2)[1] == b"411"
        long = head + b"Content-Length: 1048577\r\n\r\n{"
        assert gate.raw(long, timeout=3).split(b" ", 2)[1] == b"413"
        both = b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        for smuggled in (both, b"Content-Length: -1\r\n\r\n"):
            assert gate.raw(head + smuggled, timeout=3).split(b" ", 2)[1] in (b"400", b"411")
    assert engines["one"].requests == []


def test_connection_that_sends_its_header_slowly_is_closed(gate: Door) -> None:
    assert b" 408 " in gate.raw(b"POST /v1/chat/completions HTTP/1.1\r\n", timeout=15)


def test_upload_arrives_whole_and_takes_no_memory_of_the_gateways(opened: Open, tmp_path: Path) -> None:
    gate = opened(batch=True)
    key = gate.key("alice", batches=1)
    size = 200 * 1024 * 1024
    got: list[int] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(gate.folder / "batch.sock"))
        listener.listen()

        def serve() -> None:
            line, _ = listener.accept()
            with line:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += line.recv(65536)
                head, _, rest = data.partition(b"\r\n\r\n")
                assert b"x-rig-client: alice" in head.lower()
                assert b"authorization" not in head.lower()
                total = len(rest)
                while total < size:
                    total += len(line.recv(1 << 20))
                got.append(total)
                line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")

        thread = threading.Thread(target=serve)
        thread.start()
        before = memory(gate)
        answer = gate.ask(key, "/v1/files", body=bytes(size), timeout=60)
        thread.join(20)
    assert answer.status == 200
    assert got == [size]
    assert memory(gate) - before < 20 * 1024
    assert gate.ask(key, "/v1/files", body=b"", headers=[("Content-Length", str(size + 1))]).status in (400, 413)


def memory(gate: Door) -> int:
    """Resident KiB of the working process."""
    pid = next(line.split()[1] for line in gate.tell("show info").splitlines() if line.startswith("Pid:"))
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


def test_batches_are_for_keys_that_may_use_them(opened: Open) -> None:
    gate = opened(batch=True)
    assert gate.ask(gate.key("bob"), "/v1/batches", body=b"{}").code == "not_allowed"
    # Nobody listens at the batch server's socket.
    assert gate.ask(gate.key("alice", batches=1), "/v1/batches", body=b"{}").status == 503
