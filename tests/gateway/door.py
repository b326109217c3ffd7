"""The real HAProxy on loopback, with the configuration that the settings give, and clients of it."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rig.gateway import haproxy
from rig.settings import Settings
from rigd.gateway.config import MAP, TLS
from rigd.gateway.rates import interval
from tests.gateway.scripted import Engine

CHAT = "/v1/chat/completions"
_PORTS = itertools.cycle(range(10_000 + os.getpid() % 220 * 100, 10_100 + os.getpid() % 220 * 100))
HAPROXY = os.environ.get("RIG_TEST_HAPROXY", "/usr/sbin/haproxy").split()
"""The program, with words before it: another version is tried through chroot."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has now, and that no other process takes meanwhile.

    HAProxy shares a port with another one that has it (SO_REUSEPORT), without a word: so each process of tests draws
    from a range of its own, below that of connections.
    """
    found: list[int] = []
    while len(found) < count:
        port = next(_PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            found.append(port)
    return found


def until(what: Callable[[], Any], seconds: float = 20) -> Any:
    """The first true answer of `what`; an assertion fails after so many seconds without one."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


@dataclass
class Answer:
    """One answer of the gateway."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error in OpenAI's shape."""
        return str(self.json["error"]["code"])


@dataclass
class Door:
    """A running gateway in a folder of its own."""

    folder: Path
    settings: Settings
    batch: bool = False
    keys: dict[str, str] = field(default_factory=dict)
    _lines: list[str] = field(default_factory=list)
    _process: subprocess.Popen[str] | None = None
    _notified: socket.socket | None = None

    @property
    def port(self) -> int:
        return self.settings.gateway.port

    def write(self) -> None:
        """Write the files of the settings, at paths below this test's folder."""
        for name, text in haproxy.texts(self.settings, batch=self.batch).items():
            (self.folder / name).write_text(self._here(text))
        engines = "".join(f"{name} key-of-{name}\n" for name in self.settings.enabled_engines)
        (self.folder / "engines.map").write_text(engines)
        (self.folder / "keys.map").touch()

    def _here(self, text: str) -> str:
        for folder in (TLS, haproxy.CONFIGURATION, haproxy.RUN):
            text = text.replace(folder, str(self.folder))
        text = text.replace(MAP, str(self.folder / "keys.map"))
        return text.replace(haproxy.BATCH, str(self.folder / "batch.sock"))

    def check(self) -> subprocess.CompletedProcess[str]:
        command = [*HAPROXY, "-c", "-f", str(self.folder / "haproxy.cfg")]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    def start(self) -> None:
        self.write()
        checked = self.check()
        assert checked.returncode == 0, checked.stderr
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(str(self.folder / "notify.sock"))
        self._notified.settimeout(30)
        self._process = subprocess.Popen(
            [*HAPROXY, "-Ws", "-f", str(self.folder / "haproxy.cfg")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"NOTIFY_SOCKET": str(self.folder / "notify.sock")},
        )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        self._wait_ready()
        until(self.fingerprint)

    def _wait_ready(self) -> None:
        """As systemd does: before HAProxy says that it is ready, a signal to reload may be lost."""
        assert self._notified is not None
        while b"READY=1" not in self._notified.recv(4096):
            pass

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._lines.append(line.rstrip("\n"))

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._process = None
        if self._notified is not None:
            self._notified.close()

    def reload(self) -> None:
        """Replace the working process, as the unit's reload does, and wait for its successor."""
        before = self.tell("show info")
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR2)
        self._wait_ready()
        pid = re.compile(r"^Pid: (\d+)$", re.MULTILINE)
        until(lambda: (now := pid.search(self.tell("show info"))) and now[1] != pid.findall(before)[0])

    @property
    def master(self) -> int:
        assert self._process is not None
        return self._process.pid

    def fingerprint(self) -> str:
        """What the metrics' port says of the running configuration; empty before there is one."""
        connection = http.client.HTTPConnection("127.0.0.1", self.settings.gateway.metrics.port, timeout=5)
        try:
            connection.request("GET", "/fingerprint")
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    def tell(self, command: str) -> str:
        """The admin socket's answer."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            try:
                line.connect(str(self.folder / "admin.sock"))
                line.sendall(f"{command}\n".encode())
                parts = []
                while part := line.recv(65536):
                    parts.append(part)
            except OSError:
                return ""
        return b"".join(parts).decode()

    def key(
        self,
        name: str,
        rate: int = 600,
        burst: int = 600,
        concurrency: int = 500,
        end: int = 0,
        batches: int = 0,
        engines: str = "*",
    ) -> str:
        """Add a key in the file and in the running gateway, as rig-keys does; returns the key."""
        key = f"key-of-client-{name}-{'x' * 20}"
        digest = hashlib.sha256(key.encode()).hexdigest()
        step = interval(rate)
        record = f"{name}|{step}|{step * (burst - 1)}|{concurrency}|{end}|{batches}|{engines}"
        self.keys[digest] = record
        self.load_keys()
        return key

    def load_keys(self) -> None:
        """Make file and memory equal to `keys`, at once."""
        path = self.folder / "keys.map"
        path.write_text("".join(f"{digest} {record}\n" for digest, record in self.keys.items()))
        version = self.tell(f"prepare map {path}").split()[-1]
        for digest, record in self.keys.items():
            assert self.tell(f"add map @{version} {path} {digest} {record}").strip() == ""
        assert self.tell(f"commit map @{version} {path}").strip() == ""

    def ask(
        self,
        key: str | None = None,
        path: str = CHAT,
        body: Mapping[str, Any] | bytes | None = None,
        method: str = "POST",
        headers: Iterable[tuple[str, str]] = (),
        timeout: float = 30,
        source: str = "127.0.0.1",
    ) -> Answer:
        """One request on a connection of its own; without a body one for the engine `one`."""
        if body is None and method == "POST":
            body = {"messages": [{"role": "user", "content": "hi"}], "model": "llama-3.3-70b-q4"}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=timeout, source_address=(source, 0)
        )
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            if key is not None:
                connection.putheader("Authorization", f"Bearer {key}")
            if data is not None:
                connection.putheader("Content-Length", str(len(data)))
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders()
            if data is not None:
                connection.send(data)
            got = connection.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        finally:
            connection.close()

    def raw(self, data: bytes, timeout: float = 20) -> bytes:
        """Everything that the gateway answers to these bytes until it closes, or falls silent."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout) as line:
            line.sendall(data)
            parts = []
            try:
                while part := line.recv(65536):
                    parts.append(part)
            except (TimeoutError, ConnectionResetError):
                pass
        return b"".join(parts)

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines so far; each must be JSON."""
        return [json.loads(line) for line in list(self._lines) if line.startswith("{")]

    def notices(self) -> list[str]:
        """Whatever HAProxy itself has said."""
        return [line for line in list(self._lines) if not line.startswith("{")]

    def logged(self, answer: Answer) -> dict[str, Any]:
        """The log's line of an answer."""
        found: dict[str, Any] = until(
            lambda: next((line for line in self.lines() if line["id"] == answer.headers["x-request-id"]), None)
        )
        return found


def installed() -> bool:
    """Whether there is an HAProxy to try."""
    return shutil.which(HAPROXY[0]) is not None


def engines(*names: str) -> dict[str, Engine]:
    """Running scripted engines by name."""
    found = {name: Engine(name) for name in names}
    for engine in found.values():
        engine.start()
    return found
