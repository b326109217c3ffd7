"""Fingerprints of OpenPGP public keys, so that neither the operator nor the machine needs gnupg to pin a key."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator

PUBLIC_KEY = 6
"""Packet tag of a primary public key (RFC 9580, section 5)."""


class NotAKey(ValueError):
    """The bytes hold no OpenPGP public key in a supported format."""


def fingerprints(data: bytes) -> tuple[str, ...]:
    """Fingerprints of all *primary* keys in an armoured or binary key ring, 40 upper-case hex digits each.

    apt trusts every primary key in a key ring, so a caller must compare the whole tuple, not look for one member.
    Version 4 only (RFC 9580, section 5.5.4.2: SHA-1 over 0x99, a two-byte length and the packet's body), the version of
    Docker's and NVIDIA's keys. Raises NotAKey otherwise.
    """
    found: list[str] = []
    for tag, body in _packets(_dearmour(data)):
        if tag != PUBLIC_KEY:
            continue
        if body[:1] != b"\x04":
            raise NotAKey(f"an OpenPGP key of version {body[0] if body else '?'} where version 4 was expected")
        if len(body) > 0xFFFF:
            raise NotAKey("an OpenPGP key longer than version 4 allows")
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2) + body, usedforsecurity=False)
        found.append(digest.hexdigest().upper())
    if not found:
        raise NotAKey("no OpenPGP public key in it")
    return tuple(found)


def _dearmour(data: bytes) -> bytes:
    """The binary packets of an armoured block (RFC 9580, section 6); binary data is returned unchanged."""
    if not data.lstrip().startswith(b"-----BEGIN PGP"):
        return data
    blocks: list[bytes] = []
    lines: list[bytes] | None = None
    for raw in data.splitlines():
        line = raw.strip()
        if line.startswith(b"-----BEGIN PGP"):
            if lines is not None:
                break
            lines = []
        elif line.startswith(b"-----END PGP") and lines is not None:
            blocks.append(_block(lines))
            lines = None
        elif lines is not None:
            lines.append(line)
    # Refused, not skipped: a less strict reader would find a key in an unterminated block, and trust it.
    if lines is not None:
        raise NotAKey("its armour does not end")
    return b"".join(blocks)


def _block(lines: list[bytes]) -> bytes:
    # Headers such as "Version:" end at the first empty line; the checksum line starts with "=".
    start = lines.index(b"") + 1 if b"" in lines else 0
    text = b"".join(line for line in lines[start:] if not line.startswith(b"="))
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise NotAKey(f"its armour is damaged ({error})") from error


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, body) of each packet, old and new header formats (RFC 9580, section 4.2)."""
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise NotAKey("it is not OpenPGP data")
        if head & 0x40:
            tag, (length, at) = head & 0x3F, _new_length(data, at + 1)
        else:
            tag = (head >> 2) & 0x0F
            width = {0: 1, 1: 2, 2: 4}.get(head & 3)
            if width is None:
                raise NotAKey("it has a packet of unknown length")
            length = int.from_bytes(data[at + 1 : at + 1 + width])
            at += 1 + width
        if at + length > len(data):
            raise NotAKey("it ends in the middle of a packet")
        yield tag, data[at : at + length]
        at += length


def _new_length(data: bytes, at: int) -> tuple[int, int]:
    try:
        first = data[at]
        if first < 192:
            return first, at + 1
        if first < 224:
            return ((first - 192) << 8) + data[at + 1] + 192, at + 2
        if first == 255:
            return int.from_bytes(data[at + 1 : at + 5]), at + 5
    except IndexError as error:
        raise NotAKey("it ends in the middle of a packet") from error
    raise NotAKey("it has a packet of unknown length")
