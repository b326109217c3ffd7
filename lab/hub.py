"""The stand-in for the web: a model hub that misbehaves on request, and the files of vendors.

A fault is set with POST /admin/faults and a JSON object; it stays until replaced or, with `times`, used up:
  {"cut": N}              close the connection after N bytes of the file, whatever the headers promised
  {"wrong": true}         the right number of wrong bytes
  {"status": 429, "retry_after": 1}   this status instead; any status
  {"bytes_per_second": N} at this rate
  {"no_range": true}      ignore Range, as some mirrors do
  {"times": N}            only for the next N downloads it applies to
POST /admin/reset removes faults and counters; GET /admin/counters returns requests and bytes for each path.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import re
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

CHUNK = 64 * 1024
ADDRESS_SECONDS = 60
PAGE = 1000
"""Files in one answer of the tree API."""
SMALL = (".json", ".txt", ".md", ".py")
"""Endings of files that the hub keeps in git itself, and sends without a redirect."""
_RESOLVE = re.compile(r"/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_TREE = re.compile(r"/api/models/(?P<repository>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass(frozen=True)
class Published:
    """A file of a repository on the hub."""

    repository: str
    revision: str
    file: str
    path: Path
    size: int
    sha256: str

    @property
    def large(self) -> bool:
        """True if the hub keeps it outside git, and so knows its SHA-256."""
        return not self.file.endswith(SMALL)

    @property
    def blob(self) -> str:
        """git's name for the content."""
        content = self.path.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@dataclass
class Fault:
    """The fault of the next downloads."""

    cut: int | None = None
    wrong: bool = False
    status: int | None = None
    retry_after: int | None = None
    bytes_per_second: int | None = None
    no_range: bool = False
    times: int | None = None


@dataclass
class Counter:
    """The requests and bytes of one path."""

    requests: int = 0
    bytes: int = 0


@dataclass
class State:
    """Everything the handlers share."""

    published: list[Published]
    static: dict[str, Path]
    fault: Fault = field(default_factory=Fault)
    counters: dict[str, Counter] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    signature: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    def sign(self, digest: str, expires: int) -> str:
        return hmac.new(self.signature, f"{digest} {expires}".encode(), hashlib.sha256).hexdigest()

    def take_fault(self) -> Fault:
        """The fault for one download; counts it down."""
        with self.lock:
            fault = self.fault
            if fault.times is not None:
                if fault.times <= 1:
                    self.fault = Fault()
                fault.times -= 1
            return fault

    def asked(self, path: str) -> Counter:
        """The counter of a new request for `path`. A reset detaches it: whatever an older connection still sends,
        perhaps to a machine that is gone, is not counted with later requests."""
        with self.lock:
            counter = self.counters.setdefault(path, Counter())
            counter.requests += 1
            return counter

    def sent(self, counter: Counter, size: int) -> None:
        """Count `size` more bytes."""
        with self.lock:
            counter.bytes += size


class Handler(BaseHTTPRequestHandler):
    """One request."""

    state: ClassVar[State]
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if match := _RESOLVE.fullmatch(url.path):
            self._resolve(match["repository"], match["revision"], match["file"])
        elif match := _TREE.fullmatch(url.path):
            self._tree(match["repository"], match["revision"], parse_qs(url.query))
        elif url.path.startswith("/blob/"):
            self._blob(url.path.removeprefix("/blob/"), parse_qs(url.query))
        elif url.path == "/admin/counters":
            with self.state.lock:
                counters = {path: asdict(counter) for path, counter in self.state.counters.items()}
            self._json(counters)
        else:
            self._static(url.path)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/admin/faults":
            try:
                fault = Fault(**json.loads(body))
            except (TypeError, ValueError) as problem:
                self._refuse(HTTPStatus.BAD_REQUEST, f"no such fault: {problem}")
                return
            with self.state.lock:
                self.state.fault = fault
            self._json(asdict(fault))
        elif self.path == "/admin/reset":
            with self.state.lock:
                self.state.fault = Fault()
                self.state.counters.clear()
            self._json({})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "nothing to post to here")

    # The hub

    def _resolve(self, repository: str, revision: str, file: str) -> None:
        """Answer like the real hub: a redirect to the bytes; the headers give their size and hash."""
        for entry in self._at(repository, revision):
            if entry.file == file:
                break
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"no {file} in {repository} at {revision}")
            return
        if not entry.large:
            self._file(entry.path, file, {"X-Repo-Commit": entry.revision, "ETag": f'"{entry.blob}"'})
            return
        self.state.asked(self.path)
        expires = int(time.time()) + ADDRESS_SECONDS
        self.send_response(HTTPStatus.FOUND)
        self.send_header(
            "Location",
            f"/blob/{entry.sha256}?expires={expires}&signature={self.state.sign(entry.sha256, expires)}",
        )
        self.send_header("X-Repo-Commit", entry.revision)
        self.send_header("X-Linked-Etag", f'"{entry.sha256}"')
        self.send_header("X-Linked-Size", str(entry.size))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _at(self, repository: str, revision: str) -> list[Published]:
        """The files of a repository; its main branch points to the revision of the first."""
        found = [entry for entry in self.state.published if entry.repository == repository]
        wanted = found[0].revision if found and revision == "main" else revision
        return [entry for entry in found if entry.revision == wanted]

    def _tree(self, repository: str, revision: str, query: dict[str, list[str]]) -> None:
        """A page of the list, with a link to the next one."""
        files = [
            {
                "type": "file",
                "path": entry.file,
                "size": entry.size,
                "oid": entry.blob,
                **({"lfs": {"oid": entry.sha256, "size": entry.size, "pointerSize": 134}} if entry.large else {}),
            }
            for entry in self._at(repository, revision)
        ]
        if not files:
            self._refuse(HTTPStatus.NOT_FOUND, f"no {repository} at {revision}")
            return
        start = int(query.get("cursor", ["0"])[0])
        following = f"http://{self.headers['Host']}{urlsplit(self.path).path}?recursive=true&cursor={start + PAGE}"
        more = {"Link": f'<{following}>; rel="next"'} if start + PAGE < len(files) else {}
        self._json(files[start : start + PAGE], more)

    def _blob(self, digest: str, query: dict[str, list[str]]) -> None:
        expires = int(query.get("expires", ["0"])[0])
        signature = query.get("signature", [""])[0]
        if expires < time.time() or not hmac.compare_digest(signature, self.state.sign(digest, expires)):
            self._refuse(HTTPStatus.FORBIDDEN, "this address has expired; resolve the file again")
            return
        for entry in self.state.published:
            if entry.sha256 == digest:
                self._file(entry.path, entry.file)
                return
        self._refuse(HTTPStatus.NOT_FOUND, "no such file")

    def _static(self, path: str) -> None:
        for prefix, root in self.state.static.items():
            if path == prefix and root.is_file():
                self._file(root, path)
                return
            inside = (root / path.removeprefix(prefix)).resolve()
            if path.startswith(prefix) and inside.is_relative_to(root.resolve()) and inside.is_file():
                self._file(inside, path)
                return
        self._refuse(HTTPStatus.NOT_FOUND, f"nothing at {path}")

    # Bytes

    def _file(self, path: Path, name: str, headers: Mapping[str, str] | None = None) -> None:
        fault = self.state.take_fault() if self.command == "GET" else Fault()
        if fault.status is not None:
            self._refuse(HTTPStatus(fault.status), "as was asked for", fault.retry_after)
            return
        size = path.stat().st_size
        start, end = 0, size
        wanted = None if fault.no_range else _RANGE.fullmatch(self.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            end = min(size, int(wanted[2]) + 1 if wanted[2] else size)
            if start >= size:
                self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"the file has {size} bytes", size=size)
                return
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        if not fault.no_range:
            self.send_header("Accept-Ranges", "bytes")
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        counter = self.state.asked(name)
        for data in _portions(path, start, end, fault):
            self.wfile.write(data)
            self.state.sent(counter, len(data))
        if fault.cut is not None and fault.cut < end - start:
            self.close_connection = True

    def _json(self, content: Any, headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(HTTPStatus.OK)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: HTTPStatus, reason: str, retry_after: int | None = None, size: int | None = None) -> None:
        data = (reason + "\n").encode()
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        if size is not None:
            self.send_header("Content-Range", f"bytes */{size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        sys.stderr.write(f"{self.log_date_time_string()} {self.client_address[0]} {format % args}\n")


def _portions(path: Path, start: int, end: int, fault: Fault) -> Iterator[bytes]:
    """The bytes to send, changed by the fault."""
    left = end - start if fault.cut is None else min(fault.cut, end - start)
    chunk = CHUNK if fault.bytes_per_second is None else max(1, min(CHUNK, fault.bytes_per_second // 10))
    with path.open("rb") as file:
        file.seek(start)
        while left:
            data = file.read(min(chunk, left))
            if not data:
                return
            left -= len(data)
            if fault.bytes_per_second is not None:
                time.sleep(len(data) / fault.bytes_per_second)
            yield bytes(255 - byte for byte in data) if fault.wrong else data


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a client that hangs up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(address: str, port: int, state: State) -> Server:
    """A hub at `address`; the caller runs serve_forever."""
    handler = type("BoundHandler", (Handler,), {"state": state})
    return Server((address, port), handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--publish", action="append", default=[], help="REPOSITORY REVISION FILE PATH", nargs=4)
    parser.add_argument("--static", action="append", default=[], help="PREFIX PATH", nargs=2)
    options = parser.parse_args()
    published = []
    for repository, revision, file, name in options.publish:
        path = Path(name)
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        published.append(Published(repository, revision, file, path, path.stat().st_size, digest))
    static = {prefix: Path(root) for prefix, root in options.static}
    serve(options.address, options.port, State(published, static)).serve_forever()


if __name__ == "__main__":
    main()
