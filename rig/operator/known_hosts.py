"""A known_hosts file, read line by line as OpenSSH does: an unusable line hides no other.

paramiko, pyinfra's SSH library, gives up at the first line that it cannot read, and knows neither markers nor patterns.
"""

from __future__ import annotations

import atexit
import base64
import binascii
import hashlib
import hmac
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from paramiko.hostkeys import HostKeyEntry

AUTHORITY, REVOKED = "@cert-authority", "@revoked"


@dataclass(frozen=True)
class Known:
    """A known_hosts file's lines about one machine."""

    keys: tuple[str, ...]
    """Kind and body of each accepted key, such as ``ssh-ed25519 AAAA...``."""
    unusable: tuple[tuple[int, str], ...] = ()
    """Unusable lines that name it, or that nobody can read, each with the reason."""


def known(data: bytes, name: str) -> Known:
    """The machine's lines; ``name`` has the form of known_hosts, with brackets for a port other than 22."""
    keys: dict[str, int] = {}
    revoked: dict[str, int] = {}
    unusable: list[tuple[int, str]] = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        # Only comments may hold anything other than ASCII.
        fields = raw.decode("ascii", errors="replace").split()
        if not fields or fields[0].startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if not fields or not fields[0].isprintable():
            unusable.append((number, "cannot be read"))
        elif matches(fields[0], name):
            key = " ".join(fields[1:3])
            reason = "is a certificate authority, which cannot be used here" if marker == AUTHORITY else _reason(key)
            if marker == REVOKED:
                revoked[key] = number
            elif marker not in ("", AUTHORITY):
                unusable.append((number, f"has the unknown marker {marker}"))
            elif reason is not None:
                unusable.append((number, reason))
            else:
                keys.setdefault(key, number)
    unusable += [(keys[key], f"has a key that line {revoked[key]} revokes") for key in keys if key in revoked]
    return Known(tuple(key for key in keys if key not in revoked), tuple(sorted(unusable)))


def matches(patterns: str, name: str) -> bool:
    """Whether a line's names include this one: patterns with ``*`` and ``?``, ``!`` to exclude, or a hash."""
    if patterns.startswith("|1|"):
        return _hashed(patterns, name)
    found = False
    for pattern in patterns.lower().split(","):
        body = re.escape(pattern.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(body, name.lower()):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def usable(file: Path, name: str) -> Path:
    """A temporary file for paramiko with only this machine's keys; it is deleted at exit."""
    target = _folder() / hashlib.sha256(f"{file} {name}".encode()).hexdigest()
    try:
        data = file.read_bytes()
    except OSError:
        data = b""
    target.write_text("".join(f"{name} {key}\n" for key in known(data, name).keys), encoding="ascii")
    return target


def remark(file: Path, name: str) -> str | None:
    """Why the file has no key of this machine; None if it has one."""
    try:
        found = known(file.read_bytes(), name)
    except OSError:
        found = Known(())
    return None if found.keys else _sentence(file, found.unusable)


def _sentence(file: Path, unusable: Sequence[tuple[int, str]]) -> str:
    lines = "; ".join(f"line {number} {reason}" for number, reason in unusable)
    return f"{file} has no host key of it{f' ({lines})' if lines else ''}"


def _hashed(text: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in text[3:].split("|"))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.new(salt, name.lower().encode(), hashlib.sha1).digest(), digest)


def _reason(key: str) -> str | None:
    """Why paramiko cannot use a key; None if it can."""
    kind, _, body = key.partition(" ")
    if not body:
        return "has no key"
    try:
        data = base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        return "is cut off, or not a key"
    length = int.from_bytes(data[:4])
    if data[4 : 4 + length] != kind.encode():
        return f"has a key that is no {kind}"
    try:
        entry = HostKeyEntry.from_line(f"x {key}")
    # paramiko raises any error of its parts: its own, struct's, and cryptography's.
    except Exception:
        return "is cut off, or not a key"
    return f"has a key of the kind {kind}, which cannot be used here" if entry is None else None


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rig-known-hosts-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
