"""Other machines: TLS, only from their networks, with a certificate that is renewed while streams go on."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rigd.base.command import Programs
from rigd.base.errors import BadInput
from rigd.gateway import certificate
from rigd.gateway.config import Config, Remote
from tests.gateway import door
from tests.gateway.conftest import Open
from tests.gateway.door import Answer, Door, until
from tests.gateway.scripted import Engine

NAMES = ("rig.example.org", "127.0.0.1")
ASK = Programs(60)


@pytest.fixture
def remote(opened: Open) -> Door:
    """A gateway that other machines reach; this one's 127.0.0.1 is such a machine, and 127.0.0.2 none."""
    (port,) = door.free_ports(1)
    wished = {"gateway/remote/enabled": True, "gateway/remote/port": port, "gateway/remote/names": list(NAMES)}
    return opened(wished | {"gateway/remote/networks": ["127.0.0.1/32", "::1/128"]}, before=place)


def config(gate: Door, **changes: object) -> Config:
    wished = replace(Remote(NAMES, folder=str(gate.folder)), **changes)  # type: ignore[arg-type]
    return Config(("one", "two"), remote=wished, socket=str(gate.folder / "admin.sock"), group="root")


def place(gate: Door) -> str:
    """As the unit does before a start."""
    wanted = config(gate)
    assert wanted.remote is not None
    return certificate.place(wanted, wanted.remote, ASK)


def connect(gate: Door, name: str = "rig.example.org", source: str = "127.0.0.1", **options: object) -> ssl.SSLSocket:
    """A verified connection with the CA's certificate and no other."""
    context = ssl.create_default_context(cafile=str(gate.folder / "ca.crt"))
    for option, value in options.items():
        setattr(context, option, value)
    address = ("127.0.0.1", gate.settings.gateway.remote.port)
    line = socket.create_connection(address, timeout=10, source_address=(source, 0))
    return context.wrap_socket(line, server_hostname=name)


def serial(gate: Door) -> str:
    with connect(gate) as line:
        found = line.getpeercert()
    assert found is not None
    return str(found["serialNumber"])


def test_other_machines_get_in_with_tls_and_a_key(remote: Door) -> None:
    key = remote.key("alice")
    with connect(remote) as line:
        line.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n" % key.encode())
        line.sendall(b"Connection: close\r\n\r\n")
        assert line.recv(20).startswith(b"HTTP/1.1 200")
    url = f"https://127.0.0.1:{remote.settings.gateway.remote.port}/v1/models"
    command = ["curl", "-s", "--http2", "--cacert", f"{remote.folder}/ca.crt", "-o", "/dev/null", url]
    done = subprocess.run([*command, "-w", "%{http_version} %{http_code}"], capture_output=True, text=True, check=False)
    assert done.stdout == "2 401"


def test_nothing_is_answered_without_tls_in_old_versions_or_to_other_networks(remote: Door) -> None:
    with socket.create_connection(("127.0.0.1", remote.settings.gateway.remote.port), timeout=5) as line:
        line.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in line.recv(100)
    with pytest.raises(ssl.SSLError):
        connect(remote, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        connect(remote, minimum_version=version, maximum_version=version).close()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        connect(remote, source="127.0.0.2")
    assert all(line["status"] is None or line["status"] > 0 for line in remote.lines())


def test_certificate_is_for_its_names_and_its_ca_for_nothing_else(remote: Door) -> None:
    connect(remote, "127.0.0.1").close()
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(remote, "elsewhere.example.org")
    assert (remote.folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (remote.folder / "remote.pem").stat().st_mode & 0o777 == 0o640
    assert "PRIVATE" not in (remote.folder / "ca.crt").read_text()
    # A second look changes nothing.
    before = {path.name: path.read_bytes() for path in remote.folder.glob("*.[pck]*")}
    place(remote)
    assert before == {path.name: path.read_bytes() for path in remote.folder.glob("*.[pck]*")}


def test_certificate_near_its_end_is_renewed_while_a_stream_goes_on(
    remote: Door, engines: dict[str, Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, first = remote.key("alice"), serial(remote)
    answers: list[Answer] = []
    body = {"model": "llama-3.3-70b-q4", "events": 20, "gap": 0.1}
    stream = threading.Thread(target=lambda: answers.append(remote.ask(key, body=body)))
    stream.start()
    until(lambda: engines["one"].requests)
    # The days that are left are too few.
    monkeypatch.setattr(certificate, "EARLY", certificate.DAYS + 1)
    assert place(remote) == "another certificate is in force"
    assert serial(remote) != first
    stream.join(20)
    assert answers[0].body.endswith(b"data: [DONE]\n\n")


def test_other_names_are_another_certificate_of_the_same_ca(remote: Door) -> None:
    ca = (remote.folder / "ca.crt").read_bytes()
    wanted = config(remote, names=("other.example.org",))
    assert wanted.remote is not None
    certificate.place(wanted, wanted.remote, ASK)
    connect(remote, "other.example.org").close()
    assert (remote.folder / "ca.crt").read_bytes() == ca


def made(folder: Path) -> tuple[str, str]:
    """An owner's certificate and its key."""
    chain, key = str(folder / "chain.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", *certificate.NEW_KEY, "-subj", "/CN=own", "-keyout", key, "-out", chain]
    subprocess.run(command, check=True, capture_output=True)
    return chain, key


def test_owners_certificate_is_taken_and_one_that_does_not_fit_its_key_is_refused(remote: Door, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (chain, key), (_, wrong) = made(one), made(other)

    def taken(chain: str, key: str) -> str:
        wanted = config(remote, chain=chain, key=key)
        assert wanted.remote is not None
        return certificate.place(wanted, wanted.remote, ASK)

    assert taken(chain, key) == "another certificate is in force"
    context = ssl.create_default_context(cafile=chain)
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", remote.settings.gateway.remote.port), timeout=10) as line:
        context.wrap_socket(line).close()
    before = (remote.folder / "remote.pem").read_bytes()
    refusals: dict[str, Callable[[], str]] = {
        "is not the key of the certificate": lambda: taken(chain, wrong),
        "cannot be read: No such file": lambda: taken(chain, f"{tmp_path}/nowhere"),
        "are no certificate and its key": lambda: taken(key, key),
    }
    for sentence, attempt in refusals.items():
        with pytest.raises(BadInput, match=re.escape(sentence)):
            attempt()
    assert (remote.folder / "remote.pem").read_bytes() == before
