"""A scripted engine on loopback: it answers as the body of a request says, and keeps what it was sent."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """One request as the engine got it."""

    path: str
    headers: list[tuple[str, str]]
    size: int

    def all(self, name: str) -> list[str]:
        """The values of every header of this name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone, such as a health check at a reload, is no error."""


@dataclass
class Engine:
    """An engine that a test starts, kills and starts again on the same port.

    Keys of a request's body that it follows: `answer`, the whole text of its answer; `status`; `events`, the number of
    events of a stream, `gap` seconds apart; `hold`, to answer only after `release` was set.
    """

    name: str
    port: int = 0
    healthy: bool = True
    requests: list[Request] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Paths of requests whose client was gone before the end of the answer."""
    release: threading.Event = field(default_factory=threading.Event)
    _server: _Server | None = None

    def start(self) -> None:
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/health":
                    self._send(200 if engine.healthy else 503, b'{"status":"ok"}')
                else:
                    engine.requests.append(Request(self.path, self.headers.items(), 0))
                    self._send(200, b"{}")

            def do_POST(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                body, got = b"", 0
                while got < size:
                    part = self.rfile.read(min(1 << 20, size - got))
                    if not part:
                        return
                    body, got = (body + part) if size < 1 << 22 else b"{}", got + len(part)
                engine.requests.append(Request(self.path, self.headers.items(), got))
                try:
                    wanted: dict[str, Any] = json.loads(body)
                except ValueError:
                    wanted = {}
                try:
                    self._answer(wanted)
                except (BrokenPipeError, ConnectionResetError):
                    engine.left.append(self.path)

            def _answer(self, wanted: dict[str, Any]) -> None:
                if wanted.get("hold"):
                    while not engine.release.wait(0.05):
                        # As real engines do: a client that is gone is not answered.
                        self.connection.setblocking(False)
                        try:
                            if self.connection.recv(1) == b"":
                                engine.left.append(self.path)
                                return
                        except BlockingIOError:
                            pass
                        finally:
                            self.connection.setblocking(True)
                if "events" in wanted:
                    self._stream(wanted)
                    return
                answer = wanted.get("answer", completion("hello", 11, 22))
                self._send(wanted.get("status", 200), answer.encode())

            def _stream(self, wanted: dict[str, Any]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for number in range(wanted["events"]):
                    self._event(json.dumps({"model": "scripted", "n": number}))
                    time.sleep(wanted.get("gap", 0))
                if "last" in wanted:
                    self._event(wanted["last"])
                self._event("[DONE]")
                self.wfile.write(b"0\r\n\r\n")

            def _event(self, text: str) -> None:
                data = f"data: {text}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

            def _send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("X-Rig-Client", "somebody")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def kill(self) -> None:
        """Stop to listen; connections that are open end with their answers."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def completion(text: str, prompt: int, answer: int) -> str:
    """An answer as engines give it, its text before the figures."""
    return json.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "model": "scripted",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer},
        }
    )
