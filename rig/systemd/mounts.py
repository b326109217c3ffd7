"""systemd's names for mounts, computed as systemd-escape(1) does."""

from __future__ import annotations

import string

_PLAIN = set(string.ascii_letters + string.digits + ":_.")


def unit_name(path: str) -> str:
    """Name of the mount unit of an absolute path: /mnt/my-models is ``mnt-my\\x2dmodels.mount``."""
    escaped = _escape(path.strip("/"))
    return f"{escaped}.mount"


def device(source: str) -> str:
    """Device node of ``UUID=...`` or ``LABEL=...``; systemd waits for it until the disk appears."""
    kind, _, value = source.partition("=")
    return f"/dev/disk/by-{kind.lower()}/{value}"


def _escape(path: str) -> str:
    return "".join(
        "-"
        if character == "/"
        # Only a leading dot is escaped: it would make the unit a hidden file.
        else character
        if character in _PLAIN and not (character == "." and at == 0)
        else f"\\x{ord(character):02x}"
        for at, character in enumerate(path)
    )
