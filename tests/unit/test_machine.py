"""Who may log in, and the time of day: keys are written for real here, into a folder of the test."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactBase

from rig.facts.machine import Homes, TimeZone
from rig.operations import machine
from rig.settings.machine import User
from tests.unit.sample import Here, needs, needs_root, public_key, tree

pytestmark = [needs_root, needs("runuser")]

ED25519 = f"ssh-ed25519 {'A' * 68} it's mine"


class Machine(Here):
    """Has no answer where nothing is printed, as pyinfra's facts have."""

    def get_fact(self, fact: type[FactBase[Any]], **arguments: Any) -> Any:
        reader: Any = fact()
        printed = self.shell(reader.command(**arguments)).stdout
        return reader.process(printed.splitlines()) if printed else None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "host", Machine())
    return tmp_path / ".ssh"


def _let_in(folder: Path, *keys: str) -> int:
    """Makes it so; how many commands that took."""
    done = Machine().carry_out(machine.authorized_keys._inner(user="root", folder=str(folder), keys=keys))
    assert [said.stderr for said in done if said.returncode] == []
    return len(done)


def test_an_rsa_key_of_4096_bits_logs_in_whatever_its_letters_are(folder: Path) -> None:
    """One in six has no slash in 256 letters, and with that is too long for the name of a file."""
    modulus = b"\0\x80" + random.Random(1).randbytes(511)
    key = f"{public_key('ssh-rsa', bytes([1, 0, 1]), modulus).replace('/', '+')} owner@example"
    assert User(authorized_keys=(key,)).authorized_keys == (key,)
    _let_in(folder, key, ED25519)
    assert (folder / "authorized_keys").read_text() == f"{key}\n{ED25519}\n"
    assert tree(folder) == {"authorized_keys": "600"}
    assert folder.stat().st_mode & 0o7777 == 0o700


def test_keys_that_are_right_are_not_written_again(folder: Path) -> None:
    assert _let_in(folder, ED25519) > 0
    assert _let_in(folder, ED25519) == 0


@pytest.mark.parametrize("command", ["echo x >>authorized_keys", "chmod 0644 authorized_keys", "chmod 2755 ."])
def test_keys_that_were_touched_are_as_in_the_settings_again(folder: Path, command: str) -> None:
    _let_in(folder, ED25519)
    Machine().shell(f"cd {folder} && {command}")
    assert _let_in(folder, ED25519) > 0
    assert (folder / "authorized_keys").read_text() == f"{ED25519}\n"
    assert tree(folder) == {"authorized_keys": "600"}
    assert folder.stat().st_mode & 0o7777 == 0o700


def test_the_last_key_that_is_taken_out_logs_in_no_more(folder: Path) -> None:
    _let_in(folder, ED25519)
    _let_in(folder)
    assert (folder / "authorized_keys").read_text() == ""


def test_a_link_is_replaced_and_not_followed(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("kept\n")
    folder.mkdir()
    for name in ("authorized_keys", "authorized_keys.rig-new"):
        (folder / name).symlink_to(other)
    _let_in(folder, ED25519)
    assert other.read_text() == "kept\n"
    assert not (folder / "authorized_keys").is_symlink()


def test_a_user_without_a_list_of_keys_keeps_those_that_are_there() -> None:
    assert User().authorized_keys is None
    assert User(authorized_keys=()).authorized_keys == ()


def test_a_user_who_is_there_has_the_home_of_the_machine() -> None:
    assert Machine().get_fact(Homes, users=["root", "nobody-here"]) == {"root": "/root"}


def test_a_zone_that_is_a_link_to_another_is_told_by_its_own_name(tmp_path: Path) -> None:
    """Or it would be set again by every run: UTC is a link to Etc/UTC."""
    zones = tmp_path / "zoneinfo"
    (zones / "Etc").mkdir(parents=True)
    (zones / "Etc/UTC").write_text("TZif2")
    (zones / "UTC").symlink_to("Etc/UTC")
    (tmp_path / "localtime").symlink_to(zones / "UTC")
    here = Here(lambda command: command.replace("/etc/localtime", str(tmp_path / "localtime")))
    assert here.get_fact(TimeZone) == "UTC"
