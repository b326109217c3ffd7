"""Real receivers of alerts, beside the machine on its network: a web server and a mail server that keep all
messages."""

from __future__ import annotations

import json
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Post:
    """One request."""

    path: str
    authorization: str = field(repr=False)
    body: dict[str, Any]


@dataclass
class Web:
    """A web server that accepts everything, or refuses it."""

    port: int = 0
    status: int = 200
    posts: list[Post] = field(default_factory=list)

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        """Received alerts with this name and status."""
        every = [alert for post in self.posts for alert in post.body["alerts"]]
        return [alert for alert in every if (alert["labels"]["alertname"], alert["status"]) == (name, status)]


@contextmanager
def web(address: str) -> Iterator[Web]:
    found = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found.posts.append(Post(self.path, self.headers.get("Authorization", ""), body))
            self.send_response(found.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer((address, 0), Handler)
    found.port = server.server_port
    with _serving(server):
        yield found


@dataclass
class Mail:
    """A mail server that admits anybody over TLS and accepts everything."""

    port: int = 0
    certificate: str = ""
    """Its own certificate in PEM; a client that trusts it can connect."""
    logins: list[bytes] = field(default_factory=list, repr=False)
    messages: list[Message] = field(default_factory=list)


@contextmanager
def mail(address: str, folder: Path) -> Iterator[Mail]:
    found = Mail(certificate=_certificate(address, folder))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "mail.pem", folder / "mail.key")

    class Handler(socketserver.StreamRequestHandler):
        """The parts of RFC 5321, RFC 3207 and RFC 4954 that a client needs to send one message."""

        def handle(self) -> None:
            self._say("220 lab")
            while line := self.rfile.readline().strip():
                word = line.split()[0].upper()
                if word == b"EHLO":
                    safe = isinstance(self.connection, ssl.SSLSocket)
                    self._say("250-lab", "250 AUTH PLAIN" if safe else "250 STARTTLS")
                elif word == b"STARTTLS":
                    self._say("220 go on")
                    self.connection = context.wrap_socket(self.connection, server_side=True)
                    self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                elif word == b"AUTH":
                    found.logins.append(line.split()[-1])
                    self._say("235 welcome")
                elif word == b"DATA":
                    self._say("354 go on")
                    lines = []
                    while (part := self.rfile.readline()) != b".\r\n":
                        lines.append(part)
                    found.messages.append(message_from_bytes(b"".join(lines)))
                    self._say("250 taken")
                elif word == b"QUIT":
                    self._say("221 bye")
                    return
                else:
                    self._say("250 fine")

        def _say(self, *lines: str) -> None:
            self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())

    server = socketserver.ThreadingTCPServer((address, 0), Handler)
    found.port = server.server_address[1]
    with _serving(server):
        yield found


def _certificate(address: str, folder: Path) -> str:
    """A self-signed certificate for an address, and its key beside it."""
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=lab", "-addext", f"subjectAltName=IP:{address}"]
    files = ["-keyout", str(folder / "mail.key"), "-out", str(folder / "mail.pem")]
    subprocess.run([*make, *names, *files], check=True, capture_output=True)
    return (folder / "mail.pem").read_text()


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
