"""A gateway's folders with a real HAProxy that knows clients by the map; the programs themselves do the work."""

from __future__ import annotations

import grp
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from rigd.gateway import cli
from rigd.gateway import config as configs
from rigd.gateway.config import Config, Limits
from tests.unit.project import ROOT

CFG = """
global
    stats socket {root}/admin.sock mode 600 level admin
defaults
    mode http
    timeout client 10s
    timeout connect 10s
    timeout server 10s
frontend api
    bind unix@{root}/api.sock
    http-request set-var(txn.client) http_auth_bearer,sha2(256),hex,lower,map_str({root}/home/keys.map)
    http-request deny deny_status 401 unless {{ var(txn.client) -m found }}
    http-request return status 200 content-type text/plain lf-string "%[var(txn.client)]"
"""


class Gateway:
    """Everything below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = Config(
            engines=("one", "two"),
            limits=Limits(rate=60, burst=10, concurrency=4),
            socket=str(root / "admin.sock"),
            map=str(root / "home/keys.map"),
            records=str(root / "home/keys.json"),
            group=grp.getgrgid(os.getgid()).gr_name,
            reader=str(root / "state.json"),
            metrics=str(root / "rig_gateway.prom"),
        )
        self._haproxy: subprocess.Popen[bytes] | None = None

    @property
    def records(self) -> Path:
        return Path(self.config.records)

    @property
    def map(self) -> Path:
        return Path(self.config.map)

    def change(self, **values: Any) -> None:
        self.config = replace(self.config, **values)

    def prepared(self, module: str, *arguments: str) -> list[str]:
        path = self.root / "gateway.json"
        path.write_text(configs.dump(self.config))
        command = [sys.executable, "-m", module, *arguments]
        return [*command, "--config", str(path)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run rig-keys to its end, in this process: a hundred times faster than one of its own."""
        words = self.prepared("rigd.gateway", *arguments)[3:]
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = cli.main(words)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def begin(self, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
        """Start rig-keys as a process."""
        return subprocess.Popen(self.prepared("rigd.gateway", *arguments), cwd=ROOT, text=True, **streams)

    def add(self, name: str, *options: str) -> str:
        """A new key."""
        done = self.run("add", name, "--json", *options)
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
        assert shown.keys() == {"name", "key"} and shown["name"] == name
        return str(shown["key"])

    def start(self) -> None:
        """Start HAProxy after an `apply`, as the unit does."""
        assert self.run("apply").returncode == 0
        cfg = self.root / "haproxy.cfg"
        cfg.write_text(CFG.format(root=self.root))
        self._haproxy = subprocess.Popen(
            ["haproxy", "-db", "-f", cfg], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 30
        while self.ask("x") != (401, ""):
            assert self._haproxy.poll() is None and time.monotonic() < end, "HAProxy does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill HAProxy: its sockets stay, and nobody listens."""
        if self._haproxy is not None:
            self._haproxy.kill()
            self._haproxy.wait()
            self._haproxy = None

    def ask(self, key: str) -> tuple[int, str]:
        """Status of a request with a key, and the client's value in the map; status 0 if nobody listens."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            try:
                line.connect(str(self.root / "api.sock"))
            except OSError:
                return 0, ""
            line.sendall(f"GET / HTTP/1.0\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
            told = b""
            while data := line.recv(4096):
                told += data
        head, _, body = told.decode().partition("\r\n\r\n")
        status = int(head.split()[1])
        return status, body if status == 200 else ""

    def in_memory(self) -> dict[str, str]:
        """The map inside HAProxy, by socat's own way: one command, read to the end."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(self.config.socket)
            line.sendall(f"show map {self.config.map}\n".encode())
            told = b""
            while data := line.recv(4096):
                told += data
        return dict(re.findall(r"^0x\w+ (\S+) (.*)$", told.decode(), re.MULTILINE))

    def in_file(self) -> dict[str, str]:
        """The map's file."""
        lines = (line.split(" ", 1) for line in self.map.read_text().splitlines())
        return {key: value for key, value in lines}
