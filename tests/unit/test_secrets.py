"""The scripts that make keys run for real here: made once, never shown, never replaced, never readable by others."""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyinfra.api import OperationError

from rig.facts import secrets as facts
from rig.operations import secrets
from tests.unit.sample import Here, needs, needs_root, tree, waits_for

pytestmark = [needs_root, needs("flock")]

BOTH = {"web": "RIG_KEY_WEB", "two": "RIG_KEY_TWO"}


@dataclass
class Store:
    """A machine's /etc/rig."""

    etc: Path
    here: Here

    @property
    def file(self) -> Path:
        return self.etc / "keys.env"

    def commands(self, variables: list[str], native: dict[str, str] | None = None) -> Iterator[str]:
        made: Iterator[str] = secrets.keys._inner(variables=variables, native=native or {})
        return made

    def make(self, *variables: str, native: dict[str, str] | None = None, **environ: str) -> int:
        """Run the operation; return the number of commands."""
        done = self.here.carry_out(self.commands(list(variables), native), **environ)
        for command in done:
            assert command.returncode == 0, command.stderr
            assert command.stdout == ""
        return len(done)

    @property
    def keys(self) -> dict[str, str]:
        pairs = (line.partition("=") for line in self.file.read_text().splitlines() if not line.startswith("#"))
        return {name: key for name, _, key in pairs}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    etc = tmp_path / "etc"
    etc.mkdir()
    here = Here(lambda command: command.replace("flock /etc/rig ", f"flock {tmp_path / 'lock'} "))
    monkeypatch.setattr(secrets, "host", here)
    monkeypatch.setattr(facts, "SERVED", str(tmp_path / "served"))
    for module in (secrets, facts):
        monkeypatch.setattr(module, "KEYS", str(etc / "keys.env"))
        monkeypatch.setattr(module, "NATIVE", str(etc / "keys"))
    return Store(etc, here)


def test_every_variable_gets_a_key_of_256_bits_of_its_own(store: Store) -> None:
    store.make("RIG_KEY_ONE", "RIG_KEY_TWO")
    assert set(store.keys) == {"RIG_KEY_ONE", "RIG_KEY_TWO"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", key) for key in store.keys.values())
    assert len(set(store.keys.values())) == 2


def test_only_root_can_read_what_was_made(store: Store) -> None:
    store.make("RIG_KEY_TWO", native={"two": "RIG_KEY_TWO"})
    assert tree(store.etc) == {"keys.env": "600", "keys/two": "600"}
    assert stat.S_IMODE((store.etc / "keys").stat().st_mode) == 0o700


def test_a_native_engines_file_is_its_key_and_nothing_else(store: Store) -> None:
    store.make("RIG_KEY_WEB", "RIG_KEY_TWO", native={"two": "RIG_KEY_TWO"})
    assert (store.etc / "keys" / "two").read_text() == store.keys["RIG_KEY_TWO"]


def test_a_second_run_does_nothing(store: Store) -> None:
    native = {"two": "RIG_KEY_TWO"}
    assert store.make("RIG_KEY_WEB", "RIG_KEY_TWO", native=native)
    before = store.file.read_bytes()
    assert store.make("RIG_KEY_WEB", "RIG_KEY_TWO", native=native) == 0
    assert store.file.read_bytes() == before


@pytest.mark.parametrize("emptied", [True, False])
@pytest.mark.parametrize("trace", ["a native engine's own key", "an engine that served"])
def test_keys_that_vanished_are_an_alarm_and_made_again_only_when_the_owner_says_so(
    store: Store, emptied: bool, trace: str
) -> None:
    native = {"two": "RIG_KEY_TWO"} if trace.startswith("a native") else {}
    store.make("RIG_KEY_TWO", native=native)
    if not native:
        (store.etc.parent / "served").mkdir()
        (store.etc.parent / "served/one.json").touch()
    store.file.write_text("") if emptied else store.file.unlink()
    before = tree(store.etc)
    with pytest.raises(OperationError, match=r"rig-backup restore.* --data new_keys=yes"):
        list(store.commands(["RIG_KEY_TWO"], native))
    assert tree(store.etc) == before
    for command in secrets.keys._inner(variables=["RIG_KEY_TWO"], native=native, renew=True):
        assert store.here.shell(store.here.rewrite(command)).returncode == 0
    assert set(store.keys) == {"RIG_KEY_TWO"}
    assert store.make("RIG_KEY_TWO", native=native) == 0


def test_a_new_variable_leaves_the_others_as_they_are(store: Store) -> None:
    store.make("RIG_KEY_ONE")
    before = store.file.read_text()
    store.make("RIG_KEY_ONE", "RIG_KEY_TWO")
    assert store.file.read_text().startswith(before)
    assert set(store.keys) == {"RIG_KEY_ONE", "RIG_KEY_TWO"}


def test_a_variable_that_another_begins_with_is_told_apart(store: Store) -> None:
    store.make("RIG_KEY_ONE_MORE")
    store.make("RIG_KEY_ONE", "RIG_KEY_ONE_MORE")
    assert set(store.keys) == {"RIG_KEY_ONE", "RIG_KEY_ONE_MORE"}


def test_a_key_that_nobody_asks_for_any_more_is_kept(store: Store) -> None:
    store.make("RIG_KEY_ONE", "RIG_KEY_TWO")
    before = store.keys
    assert store.make("RIG_KEY_ONE") == 0
    assert store.keys == before


def test_a_deleted_line_gets_a_new_key_and_the_engine_its_copy(store: Store) -> None:
    native = {"two": "RIG_KEY_TWO"}
    store.make("RIG_KEY_ONE", "RIG_KEY_TWO", native=native)
    before = store.keys
    store.file.write_text(f"RIG_KEY_ONE={before['RIG_KEY_ONE']}\n")
    store.make("RIG_KEY_ONE", "RIG_KEY_TWO", native=native)
    assert store.keys["RIG_KEY_ONE"] == before["RIG_KEY_ONE"]
    assert store.keys["RIG_KEY_TWO"] != before["RIG_KEY_TWO"]
    assert (store.etc / "keys" / "two").read_text() == store.keys["RIG_KEY_TWO"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o400])
def test_a_loosened_permission_is_mended_and_the_keys_stay(store: Store, mode: int) -> None:
    store.make("RIG_KEY_ONE", "RIG_KEY_TWO", native={"two": "RIG_KEY_TWO"})
    before = store.keys
    for path in (store.file, store.etc / "keys" / "two"):
        path.chmod(mode)
    assert store.make("RIG_KEY_ONE", "RIG_KEY_TWO", native={"two": "RIG_KEY_TWO"})
    assert tree(store.etc) == {"keys.env": "600", "keys/two": "600"}
    assert store.keys == before


def test_an_owners_own_key_is_kept_and_used(store: Store) -> None:
    own = "Mm_-" * 11
    store.file.write_text(f"RIG_KEY_TWO={own}\n")
    store.file.chmod(0o600)
    store.make("RIG_KEY_TWO", native={"two": "RIG_KEY_TWO"})
    assert store.keys == {"RIG_KEY_TWO": own}
    assert (store.etc / "keys" / "two").read_text() == own


@pytest.mark.parametrize(
    "line",
    [
        "RIG_KEY_ONE=",
        "RIG_KEY_ONE=short",
        f"RIG_KEY_ONE={'a' * 42}",
        f"RIG_KEY_ONE={'a' * 64} ",
        f"RIG_KEY_ONE='{'a' * 64}'",
        f"RIG_KEY_ONE={'a' * 64}\nRIG_KEY_ONE={'b' * 64}",
    ],
)
def test_a_line_that_holds_no_key_is_left_alone_and_told(store: Store, line: str) -> None:
    store.file.write_text(f"{line}\n")
    with pytest.raises(OperationError, match=r"RIG_KEY_ONE in .* delete the line"):
        list(store.commands(["RIG_KEY_ONE", "RIG_KEY_TWO"]))
    assert store.file.read_text() == f"{line}\n"


def test_the_sentence_about_a_bad_line_does_not_show_it(store: Store) -> None:
    store.file.write_text("RIG_KEY_ONE=half-a-key\n")
    with pytest.raises(OperationError) as refused:
        list(store.commands(["RIG_KEY_ONE"]))
    assert "half-a-key" not in str(refused.value)


def test_a_file_without_a_line_feed_at_its_end_is_not_spoilt(store: Store) -> None:
    store.file.write_text(f"RIG_KEY_ONE={'a' * 64}")
    store.file.chmod(0o600)
    store.make("RIG_KEY_ONE", "RIG_KEY_TWO")
    assert store.keys["RIG_KEY_ONE"] == "a" * 64
    assert len(store.keys["RIG_KEY_TWO"]) == 64


def test_no_command_holds_a_key_even_for_a_machine_that_has_them(store: Store) -> None:
    store.make("RIG_KEY_TWO")
    key = store.keys["RIG_KEY_TWO"]
    store.file.chmod(0o644)
    commands = list(store.commands(["RIG_KEY_TWO", "RIG_KEY_WEB"], {"two": "RIG_KEY_TWO"}))
    assert commands
    assert not [command for command in commands if key in command]


def test_the_file_is_closed_to_others_from_its_first_byte(store: Store, tmp_path: Path) -> None:
    """A stand-in for head(1), which is called for each key, notes the modes of everything that is there then."""
    shims, log = tmp_path / "shims", tmp_path / "modes"
    shims.mkdir()
    shim = shims / "head"
    shim.write_text(f'#!/bin/sh\nstat -c "%a" {store.etc}/keys.env* >>{log}\nexec /usr/bin/head "$@"\n')
    shim.chmod(0o755)
    previous = subprocess.run(["sh", "-c", "umask"], capture_output=True, text=True, check=True).stdout.strip()
    assert previous != "0077"
    store.make("RIG_KEY_ONE", "RIG_KEY_TWO", PATH=f"{shims}:/usr/bin:/bin")
    assert log.read_text().split() == ["600", "600"]


def test_a_run_that_is_killed_half_way_leaves_the_old_file_whole(store: Store, tmp_path: Path) -> None:
    store.make("RIG_KEY_ONE")
    before = store.file.read_bytes()
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "head").write_text("#!/bin/sh\nkill -9 $PPID\n")
    (shims / "head").chmod(0o755)
    (command,) = store.commands(["RIG_KEY_ONE", "RIG_KEY_TWO"])
    assert store.here.shell(command, PATH=f"{shims}:/usr/bin:/bin").returncode != 0
    assert store.file.read_bytes() == before
    store.make("RIG_KEY_ONE", "RIG_KEY_TWO")
    assert store.file.read_bytes().startswith(before)


def test_two_runs_at_once_wait_for_each_other_and_make_one_key(store: Store, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    _, first = store.commands(["RIG_KEY_ONE"])
    second = store.here.rewrite(first)
    waits_for(lock, second, meanwhile=lambda: not store.file.exists())
    made = store.file.read_bytes()
    assert store.here.shell(first).returncode == 0
    assert store.file.read_bytes() == made
