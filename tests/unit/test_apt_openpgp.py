"""Fingerprints are those that GnuPG shows, and nothing but a key has one."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.apt import openpgp
from rig.apt.openpgp import NotAKey, fingerprints
from tests.unit.sample import examples, needs

# Made with GnuPG for this file; its private half was thrown away.
KEY = b"""\
-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawD/cRYJKwYBBAHaRw8BAQdAGsG6571hCjFBReGT8Hh1gh4loRJCZt4vKw/G
mqvOcGG0IlRlc3QgcmVwb3NpdG9yeSA8dGVzdEBleGFtcGxlLm9yZz6IkAQTFggA
OBYhBCApwVwKiNqXHSTtoyEzTlJAYl3MBQJrAP9xAhsDBQsJCAcCBhUKCQgLAgQW
AgMBAh4BAheAAAoJECEzTlJAYl3M5GgBANdrTVZuW6KvLpPnv28gqKRoNTSrtb6L
PCWaB0YZOoXJAQDPLJlR2+Y2fCtYY0FMHiyoNeUuq1IBcFcNcN9hKgoMBA==
=lAhI
-----END PGP PUBLIC KEY BLOCK-----
"""
FINGERPRINT = "2029C15C0A88DA971D24EDA321334E5240625DCC"


class Gpg:
    """GnuPG with a home of its own."""

    def __init__(self, home: Path) -> None:
        home.chmod(0o700)
        self.home = str(home)

    def run(self, *arguments: str, given: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(command, input=given, capture_output=True, check=True).stdout

    def primary(self, ring: bytes) -> tuple[str, ...]:
        """Fingerprints of the primary keys of a ring, by GnuPG itself."""
        shown = self.run("--show-keys", "--with-colons", given=ring).decode()
        rows = [line.split(":") for line in shown.splitlines()]
        after_primary = [row[9] for before, row in pairwise(rows) if before[0] == "pub"]
        return tuple(after_primary)


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Gpg:
    """Three keys: RSA with an encryption subkey, Ed25519, and NIST P-256."""
    made = Gpg(tmp_path_factory.mktemp("g"))
    made.run("--quick-gen-key", "rsa@example.org", "rsa2048", "sign", "never")
    found = made.primary(made.run("--export"))
    made.run("--quick-add-key", found[0], "rsa2048", "encr", "never")
    made.run("--quick-gen-key", "ed@example.org", "ed25519", "sign", "never")
    made.run("--quick-gen-key", "nist@example.org", "nistp256", "sign", "never")
    return made


def test_the_fingerprint_of_a_known_key_is_found() -> None:
    assert fingerprints(KEY) == (FINGERPRINT,)


@pytest.mark.parametrize(
    "text",
    [
        KEY.replace(b"\n", b"\r\n"),
        b"\n\n" + KEY,
        KEY.replace(b"BLOCK-----\n\n", b"BLOCK-----\nVersion: GnuPG v2\nComment: a=b\n\n", 1),
        KEY.rstrip(),
    ],
    ids=["CRLF", "leading blank lines", "armour headers", "no newline at the end"],
)
def test_armour_is_read_however_it_was_sent(text: bytes) -> None:
    assert fingerprints(text) == (FINGERPRINT,)


@needs("gpg")
@pytest.mark.parametrize("armour", [["--armor"], []], ids=["armoured", "binary"])
@pytest.mark.parametrize("name", ["rsa@example.org", "ed@example.org", "nist@example.org"])
def test_one_key_has_the_fingerprint_that_gnupg_shows(gpg: Gpg, name: str, armour: list[str]) -> None:
    ring = gpg.run(*armour, "--export", name)
    assert fingerprints(ring) == gpg.primary(ring)
    assert len(fingerprints(ring)) == 1


@needs("gpg")
@pytest.mark.parametrize("armour", [["--armor"], []], ids=["armoured", "binary"])
def test_every_key_of_a_ring_is_found_and_subkeys_are_not_counted(gpg: Gpg, armour: list[str]) -> None:
    ring = gpg.run(*armour, "--export")
    assert fingerprints(ring) == gpg.primary(ring)
    assert len(fingerprints(ring)) == 3


@needs("gpg")
def test_a_second_armoured_block_is_not_overlooked(gpg: Gpg) -> None:
    """apt would trust both: a foreign key hides behind the pinned one otherwise."""
    other = gpg.run("--armor", "--export", "ed@example.org")
    assert fingerprints(KEY + other) == (FINGERPRINT, *gpg.primary(other))


def test_a_block_that_never_ends_is_refused_and_does_not_hide_behind_a_good_one() -> None:
    """apt's own reader takes what stands in such a block for a key, and trusts it beside the pinned one."""
    unfinished = KEY[: KEY.index(b"-----END")]
    for ring in (unfinished + KEY, KEY + unfinished):
        with pytest.raises(NotAKey, match="does not end"):
            fingerprints(ring)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html><body>Not found</body></html>",
        KEY[:200] + KEY[-40:],
        KEY.replace(b"mDME", b"m*ME"),
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----\n",
        b"\xc6\x01\x06",
        b"\xc6",
        b"\xc6\xc0",
        b"\xc6\xff\x00\x01",
        b"\xc6\xe1\x04",
        b"\x9b\x04",
        b"\x98\x10\x04",
        b"\xb4\x04Test",
        b"\xc6\xff\x00\x01\x00\x00" + b"\x04" * 65536,
    ],
    ids=[
        "nothing",
        "a web page",
        "cut short",
        "damaged armour",
        "empty armour",
        "version 6",
        "header alone",
        "half a length of two bytes",
        "half a length of four bytes",
        "partial length",
        "indeterminate length",
        "body missing",
        "a name without a key",
        "longer than a key can be",
    ],
)
def test_what_is_no_key_is_refused(data: bytes) -> None:
    with pytest.raises(NotAKey):
        fingerprints(data)


@examples
@given(data=st.binary(max_size=80) | st.binary(max_size=80).map(lambda tail: b"\xc6" + tail))
def test_no_bytes_end_in_anything_but_fingerprints_or_a_refusal(data: bytes) -> None:
    try:
        found = openpgp.fingerprints(data)
    except NotAKey:
        return
    assert found
    assert all(len(one) == 40 for one in found)
