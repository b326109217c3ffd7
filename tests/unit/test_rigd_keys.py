"""rig-keys with a real HAProxy: a key opens from the moment it is shown to the moment it is revoked, and never else."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rigd.base import files
from rigd.base.errors import BadInput, Failed
from rigd.gateway import admin, keymap, keys, records
from rigd.gateway.config import Limits
from rigd.gateway.records import Key
from tests.unit.backing import Machine, needs_programs
from tests.unit.gating import Gateway
from tests.unit.sample import needs, needs_root

pytestmark = [needs_root, needs("haproxy")]

LATER = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
SHA = "0" * 64
MADE = "2026-11-30T00:00:00Z"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def running(gateway: Gateway) -> Gateway:
    gateway.start()
    return gateway


def content(root: Path) -> bytes:
    return b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())


# A key's life


def test_a_key_opens_at_once_and_until_it_is_revoked(running: Gateway) -> None:
    key = running.add("anna")
    assert running.ask(key) == (200, "anna|10|90|4|0|0|*")
    assert running.ask(f"{key}x")[0] == running.ask(key[:-1])[0] == 401
    assert running.run("revoke", "anna").returncode == 0
    assert running.ask(key)[0] == 401


def test_others_are_let_in_while_keys_change(running: Gateway) -> None:
    key, wrong = running.add("anna"), []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            if running.ask(key)[0] != 200:
                wrong.append(time.monotonic())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(5):
            running.add(f"other-{number}")
            assert running.run("revoke", f"other-{number}").returncode == 0
    finally:
        ended.set()
        asking.join()
    assert wrong == []


def test_rotation_closes_the_old_key_opens_the_new_one_and_keeps_the_limits(running: Gateway) -> None:
    old = running.add("anna", "--rate", "120", "--engine", "one", "--batches", "--until", LATER)
    value = running.ask(old)[1]
    new = json.loads(running.run("rotate", "anna", "--json").stdout)["key"]
    assert old != new
    assert running.ask(old)[0] == 401
    assert running.ask(new) == (200, value)


def test_a_key_outlasts_a_restart_and_memory_is_what_the_file_says(running: Gateway) -> None:
    key = running.add("anna")
    assert running.in_memory() == running.in_file()
    running.stop()
    running.start()
    assert running.ask(key)[0] == 200
    assert running.in_memory() == running.in_file() == {hashlib.sha256(key.encode()).hexdigest(): running.ask(key)[1]}


def test_many_keys_are_more_than_one_command_and_still_one_change(running: Gateway) -> None:
    many = [Key(f"client-{number}", f"{number:064x}", MADE) for number in range(1000)]
    records.write(running.records, many)
    assert json.loads(running.run("apply", "--json").stdout) == {"keys": 1000, "running": True}
    assert len(running.in_memory()) == 1000
    assert running.in_memory() == running.in_file()


def test_a_key_is_nowhere_on_the_machine_and_has_256_random_bits(running: Gateway) -> None:
    made = [running.add("anna"), running.add("ben")]
    made.append(running.run("rotate", "ben").stdout.strip())
    assert all(re.fullmatch(r"rig-[A-Za-z0-9_-]{43}", key) for key in made)
    assert [key for key in made if key.encode() in content(running.root)] == []
    assert "".join(running.run("list", *more).stdout for more in ([], ["--json"])).count("rig-") == 0


def test_records_are_for_root_alone_and_the_map_is_for_the_gateway_too(running: Gateway) -> None:
    running.add("anna")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (running.records, running.map)}
    assert modes == {"keys.json": 0o600, "keys.map": 0o640}
    assert stat.S_IMODE(running.records.parent.stat().st_mode) == 0o750


def test_own_limits_are_in_the_map_and_all_else_follows_the_settings(running: Gateway) -> None:
    options = ["--rate", "6", "--burst", "3", "--concurrency", "1", "--engine", "two", "--engine", "one", "--batches"]
    own, other = running.add("own", *options, "--until", LATER), running.add("other")
    end = int(datetime.fromisoformat(f"{LATER}T00:00:00+00:00").timestamp()) + 86400
    assert running.ask(own)[1] == f"own|100|200|1|{end}|1|,two,one,"
    running.change(limits=Limits(rate=600, burst=60, concurrency=9))
    assert running.run("apply").returncode == 0
    assert running.ask(own)[1] == f"own|100|200|1|{end}|1|,two,one,"
    assert running.ask(other)[1] == "other|1|59|9|0|0|*"


def test_a_burst_of_the_settings_that_a_low_rate_does_not_allow_is_what_an_hour_gives() -> None:
    assert keymap.value(Key("slow", SHA, MADE, rate=1), Limits(600, 500, 4)) == "slow|600|35400|4|0|0|*"


def test_list_shows_every_key_with_its_limits(running: Gateway) -> None:
    assert running.run("list").stdout == "nobody has a key; make one: sudo rig-keys add NAME\n"
    running.add("anna", "--engine", "one", "--until", LATER)
    running.add("ben", "--rate", "120", "--batches")
    head, *rows = [re.split(r"  +", line) for line in running.run("list").stdout.splitlines()]
    today = datetime.now(UTC).date().isoformat()
    assert rows[0] == ["anna", today, LATER, "60", "10", "4", "one", "no"]
    assert rows[1] == ["ben", today, "120", "10", "4", "all", "yes"]
    assert len(head) == 9
    (anna, ben) = json.loads(running.run("list", "--json").stdout)["keys"]
    assert (anna["name"], anna["engines"], ben["rate"], ben["last_request"]) == ("anna", ["one"], 120, None)


# What goes wrong


def test_without_a_running_gateway_a_key_is_made_and_holds_from_its_start(gateway: Gateway) -> None:
    done = gateway.run("add", "anna")
    assert (done.returncode, "does not run now" in done.stderr) == (0, True)
    gateway.start()
    assert gateway.ask(done.stdout.strip())[0] == 200
    # Killed: its socket is still there, and nobody listens.
    gateway.stop()
    assert gateway.run("revoke", "anna").returncode == 0
    gateway.start()
    assert gateway.ask(done.stdout.strip())[0] == 401


def test_a_gateway_that_does_not_answer_is_reported_and_the_key_is_shown_all_the_same(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "TIMEOUT", 0.05)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(gateway.config.socket)
        deaf.listen()
        done = gateway.run("add", "anna")
    assert done.returncode == 1
    assert "no answer within 0.05 s" in done.stderr and f"restart {gateway.config.unit}" in done.stderr
    # The message is right: the next start knows the key.
    Path(gateway.config.socket).unlink()
    gateway.start()
    assert gateway.ask(done.stdout.strip())[0] == 200


def test_a_gateway_that_refuses_the_map_is_reported_in_its_own_words(running: Gateway) -> None:
    key = running.add("anna")
    running.change(map=str(running.root / "home/another.map"))
    done = running.run("revoke", "anna")
    assert done.returncode == 1
    assert "Unknown map identifier" in done.stderr
    assert running.ask(key)[0] == 200


def test_what_a_killed_run_recorded_is_brought_into_force_by_apply(running: Gateway) -> None:
    key = keys.add(running.config, Key("anna", "", ""))
    assert running.ask(key)[0] == 401
    assert running.run("list").returncode == 1
    assert running.run("apply").returncode == 0
    assert running.ask(key)[0] == 200
    assert running.run("list").returncode == 0


def test_a_run_that_is_killed_at_any_moment_leaves_whole_files_that_apply_brings_into_force(running: Gateway) -> None:
    chance = random.Random(7)
    kept = running.add("kept")
    for number in range(12):
        process = running.begin("add", f"client-{number}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.05, 0.25))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert running.ask(kept)[0] == 200
    assert running.run("apply").returncode == 0
    recorded = {key["sha256"] for key in json.loads(running.records.read_text())["keys"]}
    assert recorded == running.in_memory().keys() == running.in_file().keys()
    assert running.ask(kept)[0] == 200


def test_of_many_writers_at_once_none_undoes_the_work_of_another(running: Gateway) -> None:
    names = [f"client-{number}" for number in range(6)]
    processes = [running.begin("add", name, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for name in names]
    made = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [running.ask(key)[1].partition("|")[0] for key in made] == names


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["add", "anna"], "anna has a key already; a new one in its place: rig-keys rotate anna"),
        (["add", "Ben"], "'Ben' cannot be a client's name"),
        (["add", "b|n"], "'b|n' cannot be a client's name"),
        (["add", ""], "'' cannot be a client's name"),
        (["add", "x" * 33], "cannot be a client's name: use up to 32 small letters"),
        (["add", "ben\n"], "cannot be a client's name"),
        (["add", "ben", "--engine", "on"], "there is no engine on behind the gateway; it has one, two"),
        (["add", "ben", "--rate", "90"], "90 requests a minute cannot be counted in whole tenths of a second"),
        (["add", "ben", "--rate", "1", "--burst", "61"], "a burst of 61 is not possible at 1 requests a minute"),
        (["add", "ben", "--burst", "0"], "a burst of 0 is not possible"),
        (["add", "ben", "--concurrency", "0"], "a concurrency of 0 lets nothing through; use 1 or more"),
        (["add", "ben", "--until", "2020-01-01"], "2020-01-01 is over"),
        (["add", "ben", "--until", "tomorrow"], "'tomorrow' is no date; write it as 20"),
        (["add", "ben", "--until", "9999-12-31"], "'9999-12-31' is no date"),
        (["revoke", "ben"], "ben has no key; those that have one: anna"),
        (["rotate", "ben"], "ben has no key; those that have one: anna"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(gateway: Gateway, words: list[str], sentence: str) -> None:
    gateway.add("anna")
    before = content(gateway.records.parent)
    done = gateway.run(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert sentence in done.stderr
    assert content(gateway.records.parent) == before


def test_the_day_of_today_is_not_over_yet() -> None:
    now = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert records.end_of("2026-12-31", now) == "2027-01-01T00:00:00Z"
    with pytest.raises(BadInput, match="is over"):
        records.end_of("2026-12-31", now + timedelta(seconds=1))


def test_a_key_that_ended_is_shown_so_and_is_not_rotated(gateway: Gateway) -> None:
    gateway.add("anna")
    document = json.loads(gateway.records.read_text())
    document["keys"][0]["ends"] = "2026-01-01T00:00:00Z"
    gateway.records.write_text(json.dumps(document))
    assert " ended " in gateway.run("list").stdout
    done = gateway.run("rotate", "anna")
    assert (done.returncode, "ended at 2026-01-01" in done.stderr) == (2, True)


RECORD = {"name": "anna", "sha256": SHA, "made": MADE}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"keys": [{"name": "anna"}]}',
        json.dumps({"keys": [RECORD | {"name": "an|na"}]}),
        json.dumps({"keys": [RECORD | {"sha256": "x"}]}),
        json.dumps({"keys": [RECORD | {"rate": -1}]}),
        json.dumps({"keys": [RECORD | {"rate": 7}]}),
        json.dumps({"keys": [RECORD | {"ends": "2026-02-31T00:00:00Z"}]}),
        json.dumps({"keys": [RECORD, RECORD | {"sha256": "1" * 64}]}),
        json.dumps({"keys": [RECORD, RECORD | {"name": "ben"}]}),
        "\0" * 4096,
        "[" * 100000,
    ],
)
def test_damaged_records_are_reported_with_the_remedy_and_nobody_is_locked_out(running: Gateway, text: str) -> None:
    key = running.add("anna")
    running.records.write_text(text)
    before = content(running.records.parent)
    for words in (["list"], ["add", "ben"], ["revoke", "anna"], ["apply"]):
        done = running.run(*words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert "cannot be used" in done.stderr and "sudo rig-backup restore brings it back" in done.stderr
    assert content(running.records.parent) == before
    assert running.ask(key)[0] == 200


@needs_programs
def test_records_that_are_gone_come_back_from_the_backup_and_the_old_keys_open_again(
    running: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> None:
    key = running.add("anna", "--rate", "120")
    value = running.ask(key)[1]
    machine = Machine(tmp_path_factory.mktemp("machine"))
    machine.change(paths=(str(running.records),))
    machine.back_up()
    # A machine that is gone: neither records nor map.
    running.stop()
    running.records.unlink()
    running.map.unlink()
    done = machine.run("restore", "--yes")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(running.records.stat().st_mode) == 0o600
    running.start()
    assert running.ask(key) == (200, value)


def test_records_that_are_gone_are_not_taken_for_none(running: Gateway) -> None:
    key = running.add("anna")
    running.records.unlink()
    for words in (["list"], ["add", "ben"], ["apply"]):
        done = running.run(*words)
        assert (done.returncode, "are gone, and" in done.stderr) == (1, True), words
    assert running.ask(key)[0] == 200
    # The way out for who wants to begin again.
    running.map.unlink()
    assert running.run("apply").returncode == 0
    assert running.ask(key)[0] == 401


@pytest.mark.parametrize(("file", "recorded"), [("keys.json", False), ("keys.map", True)])
def test_a_full_disk_is_reported_and_changes_either_nothing_or_only_the_records(
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    recorded: bool,
) -> None:
    gateway.add("anna")
    before = content(gateway.records.parent)
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if f".{file}.new" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    done = gateway.run("add", "ben")
    assert done.returncode == 1
    assert "No space left on device; " in done.stderr and "make room" in done.stderr
    assert [path.name for path in gateway.records.parent.iterdir() if path.name.startswith(".")] == []
    if recorded:
        monkeypatch.undo()
        gateway.start()
        assert gateway.ask(done.stdout.strip())[1].startswith("ben|")
    else:
        assert done.stdout == ""
        assert content(gateway.records.parent) == before


@pytest.mark.parametrize("damage", [b"\xff\0", b"", b"# nothing\n"])
def test_a_damaged_map_is_made_again_from_the_records(running: Gateway, damage: bytes) -> None:
    key = running.add("anna")
    running.stop()
    running.map.write_bytes(damage)
    running.start()
    assert running.ask(key)[0] == 200


def test_a_folder_that_others_have_folders_in_stays_open_to_them(gateway: Gateway) -> None:
    gateway.change(records=str(gateway.root / "lib/gateway/keys.json"), map=str(gateway.root / "lib/gateway/keys.map"))
    gateway.add("anna")
    assert stat.S_IMODE((gateway.root / "lib").stat().st_mode) == 0o755


def test_a_full_disk_does_not_keep_an_unchanged_gateway_from_starting(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.add("anna")

    def replace(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "replace", replace)
    assert keys.apply(gateway.config) is False


def test_a_key_that_could_not_be_shown_says_how_to_get_another(gateway: Gateway) -> None:
    with Path("/dev/full").open("w") as full:
        process = gateway.begin("add", "anna", stdout=full, stderr=subprocess.PIPE)
        output = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "could not be shown (No space left on device); make another one: rig-keys rotate anna" in output


def test_a_machine_without_the_gateways_group_is_one_sentence(gateway: Gateway) -> None:
    gateway.change(group="no-such-group")
    done = gateway.run("add", "anna")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "rig-keys: this machine has no group no-such-group; a deploy with gateway.enabled makes it\n"


def test_a_gateway_that_changes_hands_meanwhile_is_loaded_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new process of a reload begins with the file as it was when it read it."""
    keys.add(gateway.config, Key("anna", "", ""))
    seen: list[dict[str, str]] = [{}]

    def load(path: str, name: str, wanted: dict[str, str]) -> None:
        seen.append({} if len(seen) < 3 else wanted)

    monkeypatch.setattr(admin, "load", load)
    monkeypatch.setattr(admin, "loaded", lambda path, name: seen[-1])
    assert keys.apply(gateway.config) is True
    assert len(seen) == 4
    seen[:] = [{}]
    monkeypatch.setattr(admin, "load", lambda path, name, wanted: None)
    with pytest.raises(Failed, match="does not keep"):
        keys.apply(gateway.config)
