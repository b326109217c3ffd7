"""Logins and the time of day: keys are written for real here, into a folder of the test."""

from __future__ import annotations

import random
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import FactBase

from rig.facts.machine import Homes, OtherKeyFiles, TimeZone
from rig.operations import machine
from rig.settings.machine import User
from tests.unit.sample import Here, needs, needs_root, public_key, tree

pytestmark = [needs_root, needs("runuser")]

ED25519 = f"ssh-ed25519 {'A' * 68} it's mine"


class Machine(Here):
    """Has no answer for empty output, like pyinfra's facts."""

    def get_fact(self, fact: type[FactBase[Any]], **arguments: Any) -> Any:
        reader: Any = fact()
        printed = self.shell(reader.command(**arguments)).stdout
        return reader.process(printed.splitlines()) if printed else reader.default()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "host", Machine())
    return tmp_path / ".ssh"


def _let_in(folder: Path, *keys: str) -> int:
    """Authorise the keys; return the number of commands."""
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


@pytest.fixture
def own_etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """This machine with a copy of its /etc and an empty /home."""
    shutil.copytree("/etc", tmp_path / "etc", symlinks=True, ignore_dangling_symlinks=True)
    (tmp_path / "home").mkdir()
    binds = f"mount --bind {tmp_path}/etc /etc; mount --bind {tmp_path}/home /home"
    here = Machine(lambda command: f"unshare --mount sh -ec {shlex.quote(f'{binds}; {command}')}")
    monkeypatch.setattr(machine, "host", here)
    return here


def _account(here: Machine, *groups: str, shell: str = "/bin/bash", home: str = "/home/ada") -> list[str]:
    """Create the account; return the programs that ran for it."""
    commands = list(machine.account._inner(user="ada", groups=groups, shell=shell, home=home))
    assert [said.stderr for said in here.carry_out(iter(commands)) if said.returncode] == []
    return [str(command).split()[0] for command in commands]


def _entry(here: Machine) -> str:
    return here.shell("grep ^ada: /etc/passwd | cut -d: -f6-; id -Gn ada; stat -c '%U %G' /home/ada").stdout


@needs("unshare", "useradd")
def test_an_account_is_made_once_and_as_the_settings_have_it(own_etc: Machine) -> None:
    assert "useradd" in _account(own_etc, "games", "audio")
    assert _entry(own_etc) == "/home/ada:/bin/bash\nada audio games\nada ada\n"
    assert _account(own_etc, "games", "audio") == []


@needs("unshare", "useradd")
def test_a_new_home_has_the_usual_files_and_they_are_its_users(own_etc: Machine) -> None:
    _account(own_etc)
    listing = "cd $0 && find . -mindepth 1 -type f -printf '%P %s %U\\n' | sort"
    usual = own_etc.shell(listing.replace("$0", "/etc/skel").replace("%U", "ada")).stdout
    assert usual
    assert own_etc.shell(listing.replace("$0", "/home/ada").replace("%U", "%u")).stdout == usual
    assert own_etc.shell("ls -A /home").stdout == "ada\n"


@needs("unshare", "useradd")
def test_a_home_whose_run_died_before_it_was_given_away_becomes_its_users(own_etc: Machine) -> None:
    _account(own_etc)
    own_etc.shell("chown -R root: /home/ada")
    _account(own_etc)
    assert own_etc.shell("find /home/ada ! -user ada").stdout == ""
    assert _account(own_etc) == []


@needs("unshare", "useradd")
def test_an_account_that_was_changed_is_as_in_the_settings_again(own_etc: Machine) -> None:
    _account(own_etc, "games")
    own_etc.shell("usermod -s /bin/sh -d /home/other -G audio ada")
    assert _account(own_etc, "games") == ["usermod"]
    # Groups that somebody else put it into are left.
    assert _entry(own_etc) == "/home/ada:/bin/bash\nada audio games\nada ada\n"
    assert _account(own_etc, "games") == []


@needs("unshare", "useradd")
def test_a_primary_group_need_not_be_given_again(own_etc: Machine) -> None:
    _account(own_etc)
    own_etc.shell("usermod -g games ada")
    assert _account(own_etc, "games") == []


@needs("unshare", "useradd")
def test_an_account_is_made_beside_a_group_of_its_name(own_etc: Machine) -> None:
    own_etc.shell("groupadd ada")
    _account(own_etc)
    assert _entry(own_etc) == "/home/ada:/bin/bash\nada\nada ada\n"


@needs("unshare", "useradd")
def test_a_folder_that_was_there_becomes_the_new_accounts(own_etc: Machine) -> None:
    own_etc.shell("mkdir /home/ada")
    _account(own_etc)
    assert _entry(own_etc).endswith("ada ada\n")


@needs("unshare", "useradd")
def test_a_link_at_the_place_of_a_new_home_is_left_as_it_is(own_etc: Machine) -> None:
    own_etc.shell("mkdir /home/real && ln -s real /home/ada")
    _account(own_etc)
    assert own_etc.shell("stat -c %U /home/real /home/ada").stdout == "root\nroot\n"


def test_a_zone_that_is_a_link_to_another_is_told_by_its_own_name(tmp_path: Path) -> None:
    """Or it would be set again by every run: UTC is a link to Etc/UTC."""
    zones = tmp_path / "zoneinfo"
    (zones / "Etc").mkdir(parents=True)
    (zones / "Etc/UTC").write_text("TZif2")
    (zones / "UTC").symlink_to("Etc/UTC")
    (tmp_path / "localtime").symlink_to(zones / "UTC")
    here = Here(lambda command: command.replace("/etc/localtime", str(tmp_path / "localtime")))
    assert here.get_fact(TimeZone) == "UTC"


@pytest.mark.parametrize(
    "read", [".ssh/authorized_keys", ".ssh/authorized_keys .ssh/authorized_keys2", ".ssh/a %h/keys"]
)
def test_a_second_file_of_keys_is_found_whether_sshd_reads_it_today_or_not(tmp_path: Path, read: str) -> None:
    folder = tmp_path / ".ssh"
    folder.mkdir()
    for name in ("authorized_keys", "authorized_keys2"):
        (folder / name).touch()
    sshd = tmp_path / "sshd"
    sshd.write_text(f"#!/bin/sh\necho authorizedkeysfile {read}\n")
    sshd.chmod(0o755)
    done = Here().shell(OtherKeyFiles().command(user="owner", folder=str(folder)), PATH=f"{tmp_path}:/usr/bin:/bin")
    assert OtherKeyFiles().process(done.stdout.splitlines()) == (f"{folder}/authorized_keys2",)
