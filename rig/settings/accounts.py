"""Logins: names of accounts for people, shells that let them in, and complete public keys."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Annotated

from pydantic import AfterValidator

from rig.settings.folders import NOBODYS
from rig.settings.problems import show
from rig.settings.types import AbsolutePath, Shape, UserName

NAMES = """
    daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats messagebus sshd
    polkitd uuidd tcpdump dnsmasq landscape pollinate syslog lxd usbmux tss fwupd-refresh avahi colord cups-
    pk-helper geoclue gdm rtkit saned speech-dispatcher sssd statd ntp ntpsec chrony docker containerd
    prometheus grafana alertmanager nvidia-persistenced redis postgres mysql nginx ftp postfix postdrop
    unbound bind
"""
SYSTEM = frozenset(NAMES.split()) | set(NOBODYS)
"""Accounts for programs in Debian, Ubuntu and their packages."""

PROGRAMS = ("_", "systemd-", "rig-")
"""Prefixes of further such accounts."""

NO_SHELLS = ("false", "nologin", "true", "sync", "halt", "shutdown", "null", "git-shell")
"""Programs that let nobody log in, by their file names."""

CURVES = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
"""Curves of ECDSA, and the bytes of a point on each."""
SHORTEST_RSA = 1024
"""Bits of the shortest RSA key that sshd accepts (RequiredRSASize)."""
LONGEST_RSA = 16384
"""Bits of the longest one (OPENSSL_RSA_MAX_MODULUS_BITS)."""
WHOLE = "copy the line of the .pub file again, whole"


def _person(name: str) -> str:
    """The name of an account for logins."""
    if name in SYSTEM or name.startswith(PROGRAMS):
        raise ValueError(f"'{name}' is the account of a program, and nobody logs in with it; write a person's name")
    return name


def _lets_in(shell: str) -> str:
    """A shell for logins."""
    if shell.rpartition("/")[2] in NO_SHELLS:
        raise ValueError(f"{shell} lets nobody log in; write a login shell such as /bin/bash, or remove the user")
    return shell


def _whole_key(line: str) -> str:
    """A public key whose body matches its declared kind, in kind and length."""
    kind, body = line.split(" ")[:2]
    try:
        blob = base64.b64decode(body, validate=True)
        parts = list(_strings(blob))
    except (binascii.Error, ValueError):
        raise ValueError(f"{show(line)} is cut off or altered; {WHOLE}") from None
    said = parts[0].decode("ascii", errors="replace") if parts else ""
    if base64.b64encode(blob).decode() != body or said == "":
        raise ValueError(f"{show(line)} is cut off or altered; {WHOLE}")
    if said != kind:
        raise ValueError(f"{show(line)} is a key of the kind {show(said)}, and {kind} stands before it; {WHOLE}")
    if not _has_the_parts(kind, parts[1:]):
        raise ValueError(f"{show(line)} is no whole key of the kind {kind}; {WHOLE}")
    if kind == "ssh-rsa":
        bits = int.from_bytes(parts[2]).bit_length()
        if not SHORTEST_RSA <= bits <= LONGEST_RSA:
            sentence = f"is an RSA key of {bits} bits, which sshd does not take"
            raise ValueError(f"{show(line)} {sentence}; make one with ssh-keygen -t ed25519")
    return line


def _strings(blob: bytes) -> Iterator[bytes]:
    """The parts of a key, each after its length (RFC 4251, section 5). Raises ValueError for a truncated one."""
    while blob:
        length = int.from_bytes(blob[:4])
        if len(blob) < 4 + length:
            raise ValueError("cut off")
        yield blob[4 : 4 + length]
        blob = blob[4 + length :]


def _has_the_parts(kind: str, parts: list[bytes]) -> bool:
    """Whether these parts, after the kind, make a key of it (RFC 4253, 5656, 8709, and OpenSSH's PROTOCOL.u2f)."""
    lengths = [len(part) for part in parts]
    if kind == "ssh-ed25519":
        return lengths == [32]
    if kind == "sk-ssh-ed25519@openssh.com":
        return len(parts) == 2 and lengths[0] == 32 and bool(parts[1])
    if kind == "ssh-rsa":
        # Numbers must be minimal, and not negative.
        minimal = all(part and part[0] < 0x80 and (part[0] or part[1:2] >= b"\x80") for part in parts)
        return len(parts) == 2 and minimal and int.from_bytes(parts[0]) % 2 == 1 and int.from_bytes(parts[0]) > 1
    if kind == "sk-ecdsa-sha2-nistp256@openssh.com":
        return len(parts) == 3 and _is_point("nistp256", parts[:2]) and bool(parts[2])
    return _is_point(kind.rpartition("-")[2], parts)


def _is_point(curve: str, parts: list[bytes]) -> bool:
    """Whether these parts are a curve's name and a point on it."""
    return len(parts) == 2 and parts[0] == curve.encode() and len(parts[1]) == CURVES[curve] and parts[1][0] == 4


Person = Annotated[UserName, AfterValidator(_person)]
LoginShell = Annotated[AbsolutePath, AfterValidator(_lets_in)]
AuthorizedKey = Annotated[
    str,
    Shape(
        r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
        r" [A-Za-z0-9+/]{40,}={0,3}( .{0,1000})?",
        "an SSH public key",
        "the line of a .pub file, such as 'ssh-ed25519 AAAA... name'",
    ),
    AfterValidator(_whole_key),
]
