"""The stand-in hub: it answers like the real one, and its faults have their described effect."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from lab.hub import Published, State, serve

CONTENT = bytes(range(256)) * 1024
DIGEST = hashlib.sha256(CONTENT).hexdigest()
REVISION = "a" * 40


class Hub:
    """A running hub, with a client's requests."""

    def __init__(self, address: str, state: State) -> None:
        self.address = address
        self.state = state

    def url(self, path: str) -> str:
        return self.address + path

    def resolve(self, file: str = "model.gguf", revision: str = REVISION) -> requests.Response:
        url = self.url(f"/made/up/resolve/{revision}/{file}")
        return requests.head(url, allow_redirects=False, timeout=5)

    def get(self, **headers: str) -> requests.Response:
        url = urljoin(self.address, self.resolve().headers["Location"])
        return requests.get(url, headers=headers, timeout=5)

    def fault(self, **fault: Any) -> None:
        assert requests.post(self.url("/admin/faults"), json=fault, timeout=5).status_code == 200

    def counters(self) -> dict[str, dict[str, int]]:
        counters: dict[str, dict[str, int]] = requests.get(self.url("/admin/counters"), timeout=5).json()
        return counters


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    model = tmp_path / "model.gguf"
    model.write_bytes(CONTENT)
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/package.deb").write_bytes(b"package")
    (tmp_path / "secret").write_bytes(b"secret")
    published = [Published("made/up", REVISION, "model.gguf", model, len(CONTENT), DIGEST)]
    state = State(published, {"/archives/llama.tar.gz": model, "/docker/": tmp_path / "pool"})
    server = serve("127.0.0.1", 0, state)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield Hub(f"http://127.0.0.1:{server.server_address[1]}", state)
    server.shutdown()
    server.server_close()


def test_a_file_resolves_to_an_address_and_tells_what_it_must_be(hub: Hub) -> None:
    answer = hub.resolve()
    assert answer.status_code == 302
    assert answer.headers["X-Repo-Commit"] == REVISION
    assert answer.headers["X-Linked-Etag"] == f'"{DIGEST}"'
    assert answer.headers["X-Linked-Size"] == str(len(CONTENT))
    assert hub.get().content == CONTENT


@pytest.mark.parametrize(("file", "revision"), [("other.gguf", REVISION), ("model.gguf", "b" * 40)])
def test_what_is_not_published_is_not_found(hub: Hub, file: str, revision: str) -> None:
    assert hub.resolve(file, revision).status_code == 404


def test_the_tree_lists_files_with_their_hashes(hub: Hub) -> None:
    (entry,) = requests.get(hub.url(f"/api/models/made/up/tree/{REVISION}?recursive=true"), timeout=5).json()
    assert (entry["path"], entry["size"], entry["lfs"]["oid"]) == ("model.gguf", len(CONTENT), DIGEST)


def test_a_signed_address_expires_and_cannot_be_made_up(hub: Hub) -> None:
    late = int(time.time()) - 1
    expired = f"/blob/{DIGEST}?expires={late}&signature={hub.state.sign(DIGEST, late)}"
    forged = f"/blob/{DIGEST}?expires={late + 100}&signature={hub.state.sign(DIGEST, late)}"
    assert requests.get(hub.url(expired), timeout=5).status_code == 403
    assert requests.get(hub.url(forged), timeout=5).status_code == 403


def test_a_download_can_be_resumed_in_the_middle(hub: Hub) -> None:
    answer = hub.get(Range="bytes=1000-")
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes 1000-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert answer.content == CONTENT[1000:]
    assert hub.get(Range="bytes=5-9").content == CONTENT[5:10]
    assert hub.get(Range=f"bytes={len(CONTENT)}-").status_code == 416


def test_cut_sends_less_than_promised(hub: Hub) -> None:
    hub.fault(cut=5000)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="5000 bytes read"):
        hub.get()
    assert hub.counters()["model.gguf"]["bytes"] == 5000


def test_wrong_sends_as_many_bytes_but_others(hub: Hub) -> None:
    hub.fault(wrong=True)
    content = hub.get().content
    assert len(content) == len(CONTENT)
    assert hashlib.sha256(content).hexdigest() != DIGEST


@pytest.mark.parametrize("status", [429, 503])
def test_a_status_is_answered_instead_with_its_retry_after(hub: Hub, status: int) -> None:
    hub.fault(status=status, retry_after=7)
    answer = hub.get()
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")


def test_slow_is_as_slow_as_asked_for(hub: Hub) -> None:
    hub.fault(bytes_per_second=len(CONTENT) * 2)
    began = time.monotonic()
    assert hub.get().content == CONTENT
    assert time.monotonic() - began >= 0.4


def test_without_ranges_a_resumed_download_gets_everything_again(hub: Hub) -> None:
    hub.fault(no_range=True)
    answer = hub.get(Range="bytes=1000-")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert "Accept-Ranges" not in answer.headers


def test_a_fault_with_a_number_of_times_is_used_up(hub: Hub) -> None:
    hub.fault(status=503, times=2)
    assert [hub.get().status_code for _ in range(4)] == [503, 503, 200, 200]


def test_reset_removes_faults_and_counters(hub: Hub) -> None:
    hub.fault(status=503)
    requests.post(hub.url("/admin/reset"), timeout=5)
    assert hub.counters() == {}
    assert hub.get().status_code == 200


def test_an_unknown_fault_is_refused(hub: Hub) -> None:
    answer = requests.post(hub.url("/admin/faults"), json={"cutt": 1}, timeout=5)
    assert answer.status_code == 400
    assert "cutt" in answer.text


def test_bytes_and_requests_are_counted_for_each_file(hub: Hub) -> None:
    hub.get()
    hub.get(Range="bytes=0-9")
    assert hub.counters()["model.gguf"] == {"requests": 2, "bytes": len(CONTENT) + 10}


def test_static_files_are_served_and_nothing_beside_them(hub: Hub) -> None:
    assert requests.get(hub.url("/docker/package.deb"), timeout=5).content == b"package"
    assert requests.get(hub.url("/archives/llama.tar.gz"), timeout=5).content == CONTENT
    request = requests.Request("GET", hub.url("/docker/")).prepare()
    request.url = hub.url("/docker/../secret")
    assert requests.Session().send(request, timeout=5).status_code == 404
