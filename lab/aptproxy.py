"""A caching proxy for packages and for indexes named by their hash, which never change: each is downloaded once.

It listens inside the lab, by an inherited socket, and downloads through the operator's network.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import os
import re
import select
import shutil
import socket
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

_UNCHANGING = re.compile(r"\.deb$|/by-hash/SHA256/[0-9a-f]{64}$")
_OF_THE_CONNECTION = {
    "connection",
    "proxy-connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "upgrade",
    "host",
}
SECONDS = 60


class Handler(BaseHTTPRequestHandler):
    """One request from apt."""

    store: ClassVar[Path]
    protocol_version = "HTTP/1.1"
    timeout = SECONDS

    def do_GET(self) -> None:
        kept = self.store / hashlib.sha256(self.path.encode()).hexdigest()
        if kept.exists():
            self._give(kept)
            return
        upstream, response = self._ask()
        if response is None:
            return
        with response:
            if response.status == 200 and self.command == "GET" and _UNCHANGING.search(self.path):
                self._keep(response, kept)
            else:
                self._pass_on(response)
        upstream.close()

    do_HEAD = do_GET

    def do_CONNECT(self) -> None:
        """Pass TLS connections through: their content cannot be cached."""
        host, _, port = self.path.rpartition(":")
        try:
            other = socket.create_connection((host, int(port)), timeout=SECONDS)
        except OSError as problem:
            self.send_error(502, f"{self.path}: {problem}")
            return
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        ends = {self.connection: other, other: self.connection}
        with other:
            while ready := select.select(list(ends), [], [], SECONDS)[0]:
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    ends[end].sendall(data)

    def _ask(self) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse | None]:
        url = urlsplit(self.path)
        upstream = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=SECONDS)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_THE_CONNECTION}
        try:
            upstream.request(self.command, url._replace(scheme="", netloc="").geturl() or "/", headers=headers)
            return upstream, upstream.getresponse()
        except OSError as problem:
            self.send_error(502, f"{url.hostname}: {problem}")
            return upstream, None

    def _keep(self, response: http.client.HTTPResponse, kept: Path) -> None:
        """Store first, send then; if two request the same file at once, the later one replaces it with equal bytes."""
        with tempfile.NamedTemporaryFile(dir=self.store, prefix=".part-", delete=False) as part:
            shutil.copyfileobj(response, part)
        expected = response.headers.get("Content-Length")
        if expected is not None and Path(part.name).stat().st_size != int(expected):
            Path(part.name).unlink()
            self.send_error(502, "the archive sent less than it promised")
            return
        Path(part.name).rename(kept)
        self._give(kept)

    def _give(self, kept: Path) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(kept.stat().st_size))
        self.end_headers()
        if self.command == "GET":
            with kept.open("rb") as file:
                self.connection.sendfile(file)

    def _pass_on(self, response: http.client.HTTPResponse) -> None:
        data = response.read()
        self.send_response(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in _OF_THE_CONNECTION | {"content-length"}:
                self.send_header(name, value)
        if response.status != 304:
            self.send_header("Content-Length", response.headers.get("Content-Length") or str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        sys.stderr.write(f"{self.log_date_time_string()} {format % args}\n")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="number of an inherited listening socket")
    parser.add_argument("--store", type=Path, required=True)
    options = parser.parse_args()
    options.store.mkdir(parents=True, exist_ok=True)
    handler = type("BoundHandler", (Handler,), {"store": options.store})
    server = Server(("", 0), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=os.dup(options.socket))
    server.serve_forever()


if __name__ == "__main__":
    main()
