#!/usr/bin/python3 -I
"""Grafana's server where its image is not to be had: the same variables, files and user, and an answer to /api/health.

Nothing is drawn. It stops at what the real one stops at: another user than the image's, a data folder or a /tmp that
cannot be written, a folder of what it is provisioned with, or of its dashboards, that cannot be read.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

WELL = {"database": "ok", "version": "12.4.2"}


def main() -> None:
    """`grafana server`, for ever."""
    # A script is called python3 otherwise, and the real one is known by its name.
    Path("/proc/self/comm").write_text("grafana")
    _stop_at_surroundings()
    # Without an address it would listen on every one, as the real one.
    address = os.environ.get("GF_SERVER_HTTP_ADDR", ""), int(os.environ.get("GF_SERVER_HTTP_PORT", "3000"))
    # The first process of a container gets no signal that it has not asked for.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    print(f"Grafana stand-in: HTTP Server Listen on {address}", flush=True)
    ThreadingHTTPServer(address, Handler).serve_forever()


def _stop_at_surroundings() -> None:
    if (os.getuid(), os.getgid()) != (472, 0):
        _stop(f"it runs as {os.getuid()}:{os.getgid()}")
    for folder in (os.environ.get("GF_PATHS_DATA", "/var/lib/grafana"), "/tmp"):
        try:
            (Path(folder) / "written").touch()
        except OSError:
            _stop(f"{folder} cannot be written")
    provisioning = Path(os.environ.get("GF_PATHS_PROVISIONING", "/etc/grafana/provisioning"))
    _read(provisioning / "datasources", "*.yaml")
    for text in _read(provisioning / "dashboards", "*.yaml"):
        for folder in re.findall(r"(?m)^ *path: (.+)$", text):
            for dashboard in _read(Path(folder), "*.json"):
                json.loads(dashboard)


def _read(folder: Path, pattern: str) -> list[str]:
    try:
        texts = [path.read_text(encoding="utf-8") for path in folder.iterdir() if path.match(pattern)]
    except OSError:
        _stop(f"{folder} cannot be read")
    return texts or _stop(f"{folder} is empty")


def _stop(reason: str) -> NoReturn:
    print(f"Grafana stand-in: {reason}", file=sys.stderr, flush=True)
    raise SystemExit(1)


class Handler(BaseHTTPRequestHandler):
    """Answers as far as a health check looks."""

    def do_GET(self) -> None:
        well = self.path == "/api/health"
        body = json.dumps(WELL if well else {"message": "Not found"}, indent=2).encode()
        self.send_response(200 if well else 404)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


if __name__ == "__main__":
    main()
