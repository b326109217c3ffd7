"""A web server on loopback that serves bytes from memory, with ranges, and with faults on request."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """The served content by path, and the received requests."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    """Answer requests for a range."""
    promised: dict[str, int] = field(default_factory=dict)
    """Content-Length of a path that is larger than the content."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header of each request."""


@contextmanager
def serving() -> Iterator[Web]:
    """A server on a free port of 127.0.0.1."""
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            web.asked.append((self.path, wanted))
            content = web.files.get(self.path)
            if content is None:
                self.send_error(404)
                return
            begin = re.fullmatch(r"bytes=(\d+)-", wanted or "") if web.ranges else None
            if begin:
                self.send_response(206)
                first = int(begin[1])
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
                content = content[first:]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(web.promised.get(self.path, len(content))))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        web.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()
