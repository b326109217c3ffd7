"""The gateway's certificate for other machines: made and renewed by a CA of this machine's, or the owner's own.

`rig-gateway-certificate` puts whatever is due in place, and gives it to the running gateway, which goes on with its
connections. It runs before each start of the gateway, and daily. The CA's key never leaves its folder.
"""

from __future__ import annotations

import grp
import os
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rigd.base import configuration, files, lock
from rigd.base.command import NoAnswer, Programs
from rigd.base.errors import BadInput, Failed
from rigd.gateway import admin
from rigd.gateway import config as configs
from rigd.gateway.config import Config, Remote

OPENSSL = "/usr/bin/openssl"
TIMEOUT = 60.0
CA_DAYS = 3650
DAYS = 398
"""Longest validity that clients of Apple's accept."""
EARLY = 30
"""Days before its end at which a certificate is renewed."""
DAY = 86_400
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def main(arguments: list[str] | None = None) -> int:
    """Put the certificate in place; return the exit status: 0, 1 for a failure, 2 for unusable settings."""
    path = (arguments or sys.argv[1:] or [configs.PATH])[0]
    os.umask(0o077)
    try:
        config = configuration.read(path, configs.parse)
        if config.remote is not None:
            print(place(config, config.remote, Programs(TIMEOUT)))
    except BadInput as error:
        print(f"rig-gateway-certificate: {error}", file=sys.stderr)
        return 2
    except (Failed, OSError, NoAnswer) as error:
        print(f"rig-gateway-certificate: {error}", file=sys.stderr)
        return 1
    return 0


def place(config: Config, remote: Remote, ask: Programs) -> str:
    """Put the certificate that is due in place and into force; return a sentence about it.

    Raises BadInput for an owner's certificate that cannot be used, and Failed; the old one then stays in force.
    """
    folder = Path(remote.folder)
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.chmod(0o755)
    with lock.held(folder, wait=True):
        pem = folder / "remote.pem"
        text = _owners(remote, ask) if remote.chain and remote.key else _own(remote, folder, pem, ask)
        group = grp.getgrnam(config.group).gr_gid
        if _read(pem) != text or pem.stat().st_gid != group:
            files.replace(pem, text, mode=0o640, group=group)
        return _give(config.socket, pem, text)


def _owners(remote: Remote, ask: Programs) -> str:
    """The owner's chain and key in one text. Raises BadInput if they do not belong together."""
    assert remote.chain and remote.key
    chain, key = Path(remote.chain), Path(remote.key)
    try:
        texts = [chain.read_text(), key.read_text()]
        public = [
            ask.output(OPENSSL, "x509", "-in", str(chain), "-noout", "-pubkey"),
            ask.output(OPENSSL, "pkey", "-in", str(key), "-pubout", "-passin", "pass:"),
        ]
    except OSError as error:
        raise BadInput(f"{error.filename} cannot be read: {error.strerror}; put the certificate there") from None
    except NoAnswer as error:
        raise BadInput(f"{chain} and {key} are no certificate and its key: {error}; write PEM files") from None
    if public[0].split() != public[1].split():
        raise BadInput(f"{key} is not the key of the certificate in {chain}; write the two that belong together")
    return _together(*texts)


def _own(remote: Remote, folder: Path, pem: Path, ask: Programs) -> str:
    """The certificate of this machine's CA, and its key; a new one if the names changed or the end is near."""
    there = _read(pem)
    if there is not None and _is_good(remote, folder, pem, ask):
        return there
    if not (folder / "ca.key").exists() or not (folder / "ca.crt").exists():
        _make_ca(folder, ask)
    with _workplace(folder) as work:
        names = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in remote.names)
        (work / "ext").write_text(
            f"subjectAltName={names}\nbasicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n"
        )
        request = ("-keyout", f"{work}/key", "-out", f"{work}/request", "-subj", f"/CN={remote.names[0]}")
        ask.output(OPENSSL, "req", "-new", *NEW_KEY, *request)
        signer = ("-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key")
        signed = ("-in", f"{work}/request", "-out", f"{work}/crt", "-extfile", f"{work}/ext")
        ask.output(OPENSSL, "x509", "-req", "-days", str(DAYS), *signer, *signed)
        return _together((work / "crt").read_text(), (folder / "ca.crt").read_text(), (work / "key").read_text())


def _is_good(remote: Remote, folder: Path, pem: Path, ask: Programs) -> bool:
    """Whether the certificate has these names, lasts for a while, and is signed by the CA."""
    end = ask.answer(OPENSSL, "x509", "-in", str(pem), "-noout", "-checkend", str(EARLY * DAY))
    signed = ask.answer(OPENSSL, "verify", "-CAfile", f"{folder}/ca.crt", str(pem))
    shown = ask.answer(OPENSSL, "x509", "-in", str(pem), "-noout", "-ext", "subjectAltName")
    names = set(re.findall(r"(?:DNS|IP Address):([^,\s]+)", shown.text))
    return end.code == signed.code == shown.code == 0 and names == set(remote.names)


def _make_ca(folder: Path, ask: Programs) -> None:
    """A CA of this machine's own. Its key comes first: a certificate without one would be imported in vain."""
    with _workplace(folder) as work:
        purpose = ("basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign")
        extensions = [word for extension in purpose for word in ("-addext", extension)]
        name = ("-subj", f"/CN=Rig CA of {socket.gethostname()}", "-days", str(CA_DAYS))
        ask.output(
            OPENSSL, "req", "-x509", *NEW_KEY, *name, *extensions, "-keyout", f"{work}/key", "-out", f"{work}/crt"
        )
        files.replace(folder / "ca.key", (work / "key").read_text(), mode=0o600)
        files.replace(folder / "ca.crt", (work / "crt").read_text(), mode=0o644)


def _give(path: str, pem: Path, text: str) -> str:
    """Give the certificate to the running gateway, if that has another one."""
    try:
        shown = admin.command(path, f"show ssl cert {pem}")
        serial = re.search(r"Serial: *([0-9A-Fa-f]+)", shown)
        if serial is None or int(serial[1], 16) == _serial(pem):
            return "the certificate is in force, or the gateway begins with it"
        admin.command(path, f"set ssl cert {pem} <<\n{text}")
        answer = admin.command(path, f"commit ssl cert {pem}")
    except admin.NotRunning:
        return "the certificate is in place, and the gateway begins with it"
    if "Success" not in answer:
        raise Failed(f"the running gateway does not take {pem}: {' '.join(answer.split())[:160]}; restart it")
    return "another certificate is in force"


def _serial(pem: Path) -> int:
    shown = Programs(TIMEOUT).output(OPENSSL, "x509", "-in", str(pem), "-noout", "-serial")
    return int(shown.strip().partition("=")[2], 16)


def _together(*texts: str) -> str:
    """PEM texts as one; an empty line would end it on the admin socket."""
    return "".join(f"{line}\n" for text in texts for line in text.splitlines() if line.strip())


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _is_address(name: str) -> bool:
    return re.fullmatch(r"[0-9.]+", name) is not None


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder for root alone, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as work:
        yield Path(work)
