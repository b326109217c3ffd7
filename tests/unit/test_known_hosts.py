"""A known_hosts file is read line by line: what cannot be used hides nothing, and is named by its line."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paramiko import HostKeys

from rig.operator.known_hosts import known, matches, remark, usable
from tests.unit.project import ROOT
from tests.unit.sample import examples

CASES = ROOT / "tests/unit/data/ssh"
HOST = "192.168.1.20"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd5jqafWDnCCV5nVbG/fHQ65DDSe/LrQKaIZkr59LkN"


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.glob("known_hosts-*")))
def test_the_key_is_found_whatever_else_the_file_holds(case: str) -> None:
    assert known((CASES / case).read_bytes(), HOST).keys == (KEY,)
    assert remark(CASES / case, HOST) is None
    found = HostKeys(str(usable(CASES / case, HOST))).lookup(HOST)
    assert found is not None
    assert list(found) == ["ssh-ed25519"]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"@cert-authority * {KEY}", "line 1 is a certificate authority, which cannot be used here"),
        (f"@revoked * {KEY}\n{HOST} {KEY}", "line 2 has a key that line 1 revokes"),
        (f"@other * {KEY}", "line 1 has the unknown marker @other"),
        (f"{HOST} ssh-rsa", "line 1 has no key"),
        (f"{HOST} {KEY[:-9]}", "line 1 is cut off, or not a key"),
        (f"{HOST} ssh-rsa {KEY.split()[1]}", "line 1 has a key that is no ssh-rsa"),
        (f"{HOST} ssh-dss {base64.b64encode(bytes([0, 0, 0, 7]) + b'ssh-dss' + bytes(9)).decode()}",
         "line 1 has a key of the kind ssh-dss, which cannot be used here"),
        ("\x00\x01", "line 1 cannot be read"),
    ],
)  # fmt: skip
def test_a_line_of_the_machine_that_cannot_be_used_is_named(tmp_path: Path, line: str, why: str) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"{line}\n")
    assert remark(file, HOST) == f"{file} has no host key of it ({why})"
    assert usable(file, HOST).read_text() == ""


def test_lines_about_others_are_nobodys_business(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text("other.example ssh-rsa\nthird.example ssh-dss AAAA\n")
    assert remark(file, HOST) == f"{file} has no host key of it"
    assert remark(tmp_path / "missing", HOST) == f"{tmp_path}/missing has no host key of it"


@pytest.mark.parametrize(
    ("patterns", "name", "is_it"),
    [
        ("a.example", "a.example", True),
        ("A.Example", "a.example", True),
        ("b.example,a.example", "a.example", True),
        ("*.example", "a.example", True),
        ("?.example", "a.example", True),
        ("*,!a.example", "a.example", False),
        ("a.example.org", "a.example", False),
        ("a-example", "a.example", False),
        ("[192.168.1.20]:2222", "[192.168.1.20]:2222", True),
        ("192.168.1.20", "[192.168.1.20]:2222", False),
        ("192.168.*", "192.168.1.20", True),
        ("|1|bad|hash", "a.example", False),
    ],
)
def test_names_are_matched_as_openssh_does(patterns: str, name: str, is_it: bool) -> None:
    assert matches(patterns, name) is is_it


def test_a_hashed_name_is_known() -> None:
    salt = b"s" * 20
    digest = hmac.new(salt, HOST.encode(), hashlib.sha1).digest()
    hashed = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    assert known(f"{hashed} {KEY}\n".encode(), HOST).keys == (KEY,)
    assert known(f"{hashed} {KEY}\n".encode(), "192.168.1.21").keys == ()


@examples
@given(st.binary(max_size=200))
def test_no_line_raises_or_hides_the_key(junk: bytes) -> None:
    assert KEY in known(junk.replace(b"@revoked", b"") + b"\n" + f"{HOST} {KEY}".encode(), HOST).keys
