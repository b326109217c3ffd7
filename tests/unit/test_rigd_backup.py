"""rig-backup at work on folders: good copies are kept, bad ones are reported, and interrupted work continues."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rigd.backup import copies, ledger, transfer
from rigd.backup import state as states
from rigd.backup.state import Run
from rigd.base import files
from rigd.base.errors import Failed
from rigd.base.progress import Item, Progress
from rigd.models import manifest as manifests
from rigd.models.manifest import File
from tests.unit.backing import PASSWORD, Machine, contents, needs_programs

pytestmark = needs_programs

EVERY_FILE, NO_FILE = 1, 256
"""Parts of the backup of which a run reads one again: all of it, and, for these few files, none."""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.change(check_parts=NO_FILE)
    return made


def flip(path: Path, like: Path | None = None) -> None:
    """Flip one bit; give the file the times of another one, as on a disk that forgets."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    if like is not None:
        status = like.stat()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)


# A backup


def test_models_lie_in_the_backup_where_rig_models_looks_for_them(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model" * 1000, other=b"")
    machine.add("second", file=b"x")
    machine.back_up()
    for model in machine.manifest.models:
        for file in model.files:
            asked = machine.manifest.backup_path(model, file)
            assert asked is not None
            assert Path(asked).read_bytes() == Path(machine.manifest.path(model, file)).read_bytes()
            assert stat.S_IMODE(Path(asked).stat().st_mode) == 0o644


def test_the_parts_of_a_model_lie_in_the_backup_in_their_folder(machine: Machine) -> None:
    parts: dict[str, Any] = {f"Q4_K_M/big-0000{number}-of-00002": bytes([number]) * 1000 for number in (1, 2)}
    machine.add("big", **parts)
    machine.back_up()
    for stem, content in parts.items():
        assert machine.copy("big", f"{stem}.gguf").read_bytes() == content


def test_its_manifest_has_the_pinned_hashes_and_sha256sum_can_read_it(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model", other=b"more")
    machine.back_up()
    folder = machine.root / "backup/models"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert {tuple(line.split("  ")) for line in lines} == {
        (file.sha256, machine.place("tiny", file.path)) for file in machine.manifest.models[0].files
    }
    assert subprocess.run(["sha256sum", "--check", "--status", "SHA256SUMS"], cwd=folder).returncode == 0
    entry = json.loads((folder / ".manifest.json").read_text())[machine.place()]
    assert (entry["repository"], entry["revision"]) == ("made/up", "a" * 40)


def test_keys_are_in_the_backup_but_cannot_be_read_there_and_the_password_is_not_in_it(machine: Machine) -> None:
    (machine.root / "elsewhere/rules.yml").write_text("rules")
    machine.back_up()
    held = contents(machine.root / "backup")
    assert not any(b"RIG_KEY_ONE" in content or PASSWORD.encode() in content for content in held.values())
    listed = machine.restic("ls", "latest").splitlines()
    assert str(machine.root / "etc/keys.env") in listed
    assert str(machine.root / "elsewhere/rules.yml") in listed
    assert machine.config.password not in listed


def test_a_second_run_copies_and_reads_no_model(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model" * 1000)
    machine.back_up()
    before = machine.copy().stat()
    for path in (machine.copy(), machine.model()):
        path.chmod(0o000)
        path.chmod(0o644)
    # Its status changed, and so it has to be read once more; from then on it is known again.
    machine.back_up()
    machine.back_up()
    after = machine.copy().stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_without_models_only_keys_and_settings_are_backed_up(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model")
    machine.change(models=False)
    machine.back_up()
    assert not (machine.root / "backup/models").exists()
    assert str(machine.root / "etc/keys.env") in machine.restic("ls", "latest")


def test_a_new_version_is_added_and_the_old_one_stays_until_it_is_pruned(machine: Machine) -> None:
    machine.add("tiny", tiny=b"first")
    machine.back_up()
    old = machine.copy()
    machine.manifest = replace(machine.manifest, models=())
    machine.add("tiny", tiny=b"second")
    machine.back_up()
    assert (old.read_bytes(), machine.copy().read_bytes()) == (b"first", b"second")
    assert machine.run("prune").returncode == 2
    assert old.exists()
    pruned = machine.run("prune", "--yes")
    assert str(old.relative_to(machine.root / "backup")) in pruned.stdout
    assert not old.parent.exists()
    assert machine.copy().read_bytes() == b"second"
    assert machine.run("prune").returncode == 0


def test_snapshots_are_kept_as_the_settings_say_whatever_was_backed_up(machine: Machine) -> None:
    machine.back_up()
    machine.change(paths=())
    machine.back_up()
    machine.back_up()
    assert len(machine.status()["last"]["snapshot"]) == 8
    assert len(json.loads(machine.restic("snapshots", "--json"))) == 1


# What is wrong


def test_a_model_that_rotted_is_not_copied_over_the_good_copy_and_is_told(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model" * 1000)
    machine.back_up()
    flip(machine.model())
    done = machine.run("run")
    assert done.returncode == 1
    assert "has changed since it was verified; the backup keeps the right one" in done.stderr
    assert machine.copy().read_bytes() == b"model" * 1000
    status = machine.status()
    assert status["last"]["result"] == "failed"
    assert any(str(machine.model()) in problem for problem in status["problems"])
    assert machine.metrics()["rig_backup_last_run_success"] == 0
    assert machine.metrics()["rig_backup_problems"] == 1


def test_a_model_that_rotted_before_it_was_backed_up_leaves_nothing_in_the_backup(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model" * 1000)
    flip(machine.model())
    done = machine.run("run")
    assert done.returncode == 1
    assert "its copy was thrown away" in done.stderr
    assert list((machine.root / "backup/models").rglob("*.gguf*")) == []


def test_what_a_scrub_found_is_told_as_long_as_it_is_not_mended(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model")
    machine.back_up()
    machine.records.fail("tiny", "tiny.gguf has another SHA-256")
    done = machine.run("run")
    assert done.returncode == 1
    assert "tiny.gguf has another SHA-256; the backup keeps the right one" in done.stderr


def test_a_model_that_is_missing_is_told_and_the_others_are_backed_up(machine: Machine) -> None:
    machine.add("gone", gone=b"gone")
    machine.add("tiny", tiny=b"model")
    machine.model("gone", "gone.gguf").unlink()
    done = machine.run("run")
    assert done.returncode == 1
    assert "is missing, and the backup has no right one; fetch it again: rig-models fetch" in done.stderr
    assert machine.copy().read_bytes() == b"model"


def test_a_copy_that_rotted_is_found_when_it_has_its_turn_and_mended(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model" * 1000)
    machine.back_up()
    before = ledger.Ledger(machine.root / "backup/models")
    flip(machine.copy())
    # As if the disk had not told: the change of the status, too, which only the kernel can set, is taken as known.
    (model,) = machine.manifest.models
    before.write(machine.place(), model, model.files[0])
    machine.back_up()
    machine.change(check_parts=EVERY_FILE)
    done = machine.run("run")
    assert done.returncode == 1
    assert "has rotted in the backup and is copied again" in done.stderr
    assert machine.copy().read_bytes() == b"model" * 1000
    machine.back_up()


def test_a_copy_that_cannot_be_read_is_told_and_copied_anew(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.add("tiny", tiny=b"model" * 1000)
    machine.back_up()
    monkeypatch.chdir(machine.root / "backup")
    before, (copy,) = machine.copy().stat().st_ino, copies.shelf(machine.manifest).copies()

    def broken(path: Path, advance: Callable[[int], None]) -> str:
        if path.stat().st_ino == before:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return digest(path, advance)

    digest = files.digest
    monkeypatch.setattr(files, "digest", broken)
    for known in (True, False):
        shelf = copies.shelf(machine.manifest)
        if not known:
            shelf.ledger.forget(copy.place)
        with Progress([copy.item]) as shown:
            outcome = copies.run(shelf, [copy], lambda file: True, shown)
        (problem,) = outcome.problems
        assert "tiny.gguf cannot be read in the backup (Input/output error) and is copied again" in problem
        assert (outcome.copied, outcome.files, shelf.kept(copy)) == (1, 1, True)
        assert machine.copy().read_bytes() == b"model" * 1000
        before = machine.copy().stat().st_ino


def test_a_new_copy_that_cannot_be_read_back_does_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, final = tmp_path / "source", tmp_path / "deep/final"
    source.write_bytes(b"bytes")

    def broken(path: Path, advance: Callable[[int], None]) -> str:
        if path != source:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return digest(path, advance)

    digest = files.digest
    monkeypatch.setattr(files, "digest", broken)
    with pytest.raises(Failed, match="its copy cannot be read back"):
        transfer.bring(source, final, File("final", 5, digest(source, lambda size: None)), Item("model", "final", 5))
    assert list(final.parent.iterdir()) == []


def test_what_is_broken_in_the_encrypted_part_fails_every_run_until_it_is_mended(machine: Machine) -> None:
    (machine.root / "elsewhere/noise").write_bytes(random.Random(3).randbytes(1 << 20))
    machine.change(check_parts=3)
    machine.back_up()
    pack = max((machine.root / "backup/restic/data").rglob("*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    flip(pack)
    # Its part is read again in one of three runs, which fails, and so do all after that.
    ends = [machine.run("run").returncode for _ in range(4)]
    assert ends in ([1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1])
    assert machine.metrics()["rig_backup_last_run_success"] == 0
    flip(pack)
    machine.back_up()


def test_only_a_run_that_found_nothing_wrong_goes_on_to_another_part() -> None:
    known = states.begun(states.State(runs=4), 1.0)
    assert states.ended(known, Run(1.0, 2.0, "failed", ("wrong",))).runs == 4
    assert states.ended(known, Run(1.0, 2.0, "done")).runs == 5


def test_verify_reads_everything_and_names_what_is_wrong(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model" * 1000)
    machine.back_up()
    assert machine.run("verify").returncode == 0
    flip(machine.copy())
    done = machine.run("verify")
    assert done.returncode == 1
    assert f"models/{machine.place()} has SHA-256" in done.stderr
    said = machine.run("status")
    assert said.returncode == 1
    assert f"models/{machine.place()} has SHA-256" in said.stderr
    assert "rig-backup verify" in said.stderr
    machine.back_up()
    assert machine.run("verify").returncode == 0
    assert "has SHA-256" not in machine.run("status").stderr
    (pack,) = list((machine.root / "backup/restic/data").rglob("*" * 1 + "[0-9a-f]" * 8))[:1]
    pack.chmod(0o600)
    flip(pack)
    assert machine.run("verify").returncode == 1


def test_a_model_that_does_not_fit_is_not_begun_and_the_keys_are_saved_all_the_same(machine: Machine) -> None:
    machine.add("huge", huge=b"")
    (model,) = machine.manifest.models
    file = replace(model.files[0], size=1 << 43)
    machine.manifest = replace(machine.manifest, models=(replace(model, files=(file,)),))
    os.truncate(machine.model("huge", "huge.gguf"), 1 << 43)
    done = machine.run("run")
    assert done.returncode == 1
    assert "models need 8796.1 GB more in the backup" in done.stderr
    assert not machine.copy("huge", "huge.gguf.part").exists()
    assert machine.status()["last"]["snapshot"] is not None


@pytest.mark.parametrize(
    ("spoil", "said", "code"),
    [
        (lambda machine: shutil.rmtree(machine.config.target), "there is no folder", 1),
        (lambda machine: machine.change(must_be_mount=True), "is not mounted, and storage.backup asks for a disk", 1),
        (lambda machine: Path(machine.config.password).unlink(), "there is no password", 2),
        (lambda machine: Path(machine.config.password).chmod(0o644), "can be read by others", 2),
        (lambda machine: machine.set_password(""), "holds no password", 2),
        (lambda machine: machine.change(timezone="Mars/Olympus"), "the time zone Mars/Olympus is not known here", 2),
    ],
)
def test_what_stands_against_a_backup_is_told_in_a_sentence(
    machine: Machine, spoil: Callable[[Machine], None], said: str, code: int
) -> None:
    machine.add("tiny", tiny=b"model")
    before = contents(machine.root / "backup")
    spoil(machine)
    done = machine.run("run")
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr
    assert not (machine.root / "backup").exists() or contents(machine.root / "backup") == before


@pytest.mark.parametrize(
    ("command", "text"),
    [
        *((command, None) for command in ("run", "status", "verify", "restore", "password", "prune")),
        *(("status", text) for text in ("{", "[]", "{}", '{"target": 1}')),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named(tmp_path: Path, command: str, text: str | None) -> None:
    machine = Machine(tmp_path)
    words = machine.prepared((command,))
    path = tmp_path / "etc/backup.json"
    path.unlink() if text is None else path.write_text(text)
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "a deploy" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_password_of_another_life_is_told_apart_from_a_broken_repository(machine: Machine) -> None:
    machine.back_up()
    machine.set_password("another")
    done = machine.run("run")
    assert done.returncode == 1
    assert "the password does not open" in done.stderr
    assert "rig-backup restore" in done.stderr
    machine.set_password(PASSWORD)
    (machine.root / "backup/restic/config").write_bytes(b"")
    broken = machine.run("run")
    assert broken.returncode == 1
    assert "the password does not open" not in broken.stderr


# Killed, and gone on with


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_backup_leaves_no_wrong_copy_and_the_next_goes_on_where_it_was(machine: Machine, seed: int) -> None:
    chance = random.Random(seed)
    content = chance.randbytes(48 << 20)
    machine.add("tiny", tiny=content)
    machine.change(own=str(machine.root / "elsewhere"))
    part = machine.copy("tiny", "tiny.gguf.part")
    target = chance.randrange(1, len(content) // 2)
    with machine.start("run", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        until(lambda: (part.exists() and part.stat().st_size >= target) or running.poll() is not None)
        running.kill()
    assert running.returncode == -9
    assert not machine.copy().exists()
    # What it had started goes with it: nobody writes any more.
    until(lambda: not _writes(part))
    left = part.stat().st_size
    inode = part.stat().st_ino
    assert content.startswith(part.read_bytes())
    status = machine.status()
    assert (status["last"]["result"], status["failures"], status["holder"]) == ("cut off", 1, None)
    machine.back_up()
    assert 0 < left <= len(content)
    assert machine.copy().stat().st_ino == inode
    assert machine.copy().read_bytes() == content


def _writes(path: Path) -> bool:
    """True if a process has the file open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if descriptor.readlink() == path:
                return True
        except OSError:
            continue
    return False


def test_what_is_left_of_other_bytes_is_thrown_away_and_all_is_copied(machine: Machine) -> None:
    machine.add("tiny", tiny=b"right" * 1000)
    part = machine.copy("tiny", "tiny.gguf.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"wrong" * 500)
    machine.back_up()
    assert machine.copy().read_bytes() == b"right" * 1000
    part.write_bytes(b"longer than it may be" * 1000)
    machine.copy().unlink()
    machine.back_up()
    assert machine.copy().read_bytes() == b"right" * 1000
    assert not part.exists()


def test_two_never_run_at_once_and_the_second_names_the_first(machine: Machine) -> None:
    machine.add("tiny", tiny=random.Random(1).randbytes(8 << 20))
    machine.back_up()
    machine.due()
    with machine.start("run", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        until(lambda: machine.status()["holder"] is not None)
        second = machine.run("run")
        asked = machine.run("run", "--if-due")
        at_work = first.poll() is None
    assert at_work, "the first was too quick to be met"
    assert second.returncode == 1
    assert f"another rig-backup is at work (PID {first.pid}); look how far it is: rig-backup status" in second.stderr
    # Cron has no use for a message each quarter of an hour.
    assert (asked.returncode, asked.stderr) == (0, "")
    assert first.returncode == 0


# What is due


def test_cron_is_answered_with_a_backup_only_when_one_is_due(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model")
    assert machine.run("run", "--if-due").returncode == 0
    assert contents(machine.root / "backup") == {}
    machine.due()
    assert machine.run("run", "--if-due").returncode == 0
    assert machine.copy().read_bytes() == b"model"
    success = machine.status()["success"]["started"]
    assert machine.run("run", "--if-due").returncode == 0
    assert machine.status()["success"]["started"] == success


def test_before_the_deploy_is_done_nothing_is_due(machine: Machine) -> None:
    Path(machine.config.password).unlink()
    done = machine.run("run", "--if-due")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_metrics_say_when_a_backup_last_succeeded_and_when_the_next_is_due(machine: Machine) -> None:
    machine.run("run", "--if-due")
    made = Path(machine.config.password).stat().st_mtime
    assert machine.metrics()["rig_backup_last_success_timestamp_seconds"] == pytest.approx(made)
    assert "rig_backup_last_run_success" not in machine.metrics()
    machine.add("tiny", tiny=b"model")
    begin = time.time()
    machine.back_up()
    found = machine.metrics()
    assert begin <= found["rig_backup_last_success_timestamp_seconds"] <= time.time()
    assert found["rig_backup_last_run_success"] == 1
    assert (found["rig_backup_model_files"], found["rig_backup_model_bytes"]) == (1, 5)
    assert found["rig_backup_next_run_timestamp_seconds"] == machine.status()["next"] > time.time()
    assert [path.name for path in (machine.root / "metrics").iterdir()] == ["rig_backup.prom"]
    assert stat.S_IMODE((machine.root / "metrics/rig_backup.prom").stat().st_mode) == 0o644


def test_without_node_exporter_there_are_no_metrics(machine: Machine) -> None:
    (machine.root / "metrics").rmdir()
    machine.back_up()
    assert not (machine.root / "metrics").exists()


# The password


def test_the_password_is_shown_on_purpose_and_an_owners_copy_of_it_can_be_proven(machine: Machine) -> None:
    assert machine.run("password").stdout == PASSWORD + "\n"
    assert "nowhere else, as far as is known" in machine.run("status").stdout
    wrong = machine.run("password", "--check", input="correct horse\n")
    assert (wrong.returncode, PASSWORD in wrong.stdout + wrong.stderr) == (1, False)
    assert machine.run("password", "--check", input="correct horse battery staple\n").returncode == 0
    assert "your copy of it was right on" in machine.run("status").stdout
    machine.run("run", "--if-due")
    assert machine.metrics()["rig_backup_password_checked"] == 1


def test_a_lost_password_file_is_made_again_from_the_owners_copy_and_from_no_other(machine: Machine) -> None:
    machine.back_up()
    path = Path(machine.config.password)
    path.unlink()
    assert machine.run("password", "--set", input="wrong\n").returncode == 1
    assert not path.exists()
    assert machine.run("password", "--set", input=f"{PASSWORD}\n").returncode == 0
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (f"{PASSWORD}\n", 0o600)
    machine.back_up()


def test_no_program_gets_the_password_as_an_argument_or_in_its_environment(machine: Machine) -> None:
    """Every program that is started passes through a stand-in that writes down what it was given."""
    seen, folder = machine.root / "seen", machine.root / "bin"
    folder.mkdir()
    for name in ("restic", "rsync"):
        stand_in = folder / name
        notes = f'{{ printf "%s\\n" "$0" "$@"; env; }} >>{seen}'
        stand_in.write_text(f'#!/bin/sh\n{notes}\nexec {shutil.which(name)} "$@"\n')
        stand_in.chmod(0o755)
    machine.add("tiny", tiny=b"model")
    path = f"{folder}:{os.environ['PATH']}"
    assert machine.run("run", env={**os.environ, "PATH": path}).returncode == 0
    Path(machine.config.password).unlink()
    back = machine.run("restore", "--yes", input=f"{PASSWORD}\n", env={**os.environ, "PATH": path})
    assert back.returncode == 0, back.stderr
    text = seen.read_text()
    assert text.count("RESTIC_PASSWORD_FILE=") > 5
    assert PASSWORD not in text


def test_what_every_login_has_of_restic_is_none_of_the_backups_business(machine: Machine) -> None:
    """As /etc/environment may have it for an owner's own repository."""
    machine.add("tiny", tiny=b"model")
    own = {"RESTIC_REPOSITORY": "/nowhere", "RESTIC_PASSWORD_COMMAND": "false", "RESTIC_CACERT": "/nowhere"}
    own |= {"RESTIC_COMPRESSION": "none of these", "RESTIC_READ_CONCURRENCY": "x", "XDG_CACHE_HOME": "/proc"}
    for words in (["run"], ["verify"]):
        done = machine.run(*words, env={**os.environ, **own})
        assert done.returncode == 0, done.stderr


# Brought back


def destroy(machine: Machine) -> None:
    """Delete everything but the disk for backups."""
    for name in ("models", "records", "state", "elsewhere"):
        shutil.rmtree(machine.root / name, ignore_errors=True)
    for name in ("keys.env", "backup-password"):
        (machine.root / "etc" / name).unlink()


def test_everything_comes_back_with_its_owner_its_mode_and_its_bytes(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model" * 1000, other=b"x")
    state = machine.root / "elsewhere/deep/state.db"
    state.parent.mkdir()
    state.write_bytes(bytes(range(256)))
    state.chmod(0o640)
    os.chown(state, 12, 34)
    (machine.root / "elsewhere/link").symlink_to("deep/state.db")
    machine.back_up()
    before = {name: contents(machine.root / name) for name in ("etc", "models", "elsewhere")}
    destroy(machine)
    done = machine.run("restore", input=f"{PASSWORD}\n")
    assert done.returncode == 0, done.stderr
    assert {name: contents(machine.root / name) for name in before} == before
    status = state.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 12, 34)
    assert stat.S_IMODE((machine.root / "etc/keys.env").stat().st_mode) == 0o600
    assert (machine.root / "elsewhere/link").readlink() == Path("deep/state.db")
    # rig-models takes the models for its own: a deploy fetches none of them.
    shelf = copies.shelf(machine.manifest)
    assert all(shelf.verified(copy) for copy in shelf.copies())
    assert list((machine.root / "state").glob("restoring*")) == []


def test_a_restore_that_was_killed_is_not_complete_and_the_next_one_is(machine: Machine) -> None:
    machine.add("tiny", tiny=random.Random(2).randbytes(32 << 20))
    machine.back_up()
    content = machine.model().read_bytes()
    destroy(machine)
    part = machine.model("tiny", "tiny.gguf.part")
    with machine.start("restore", stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdin is not None
        running.stdin.write(f"{PASSWORD}\n")
        running.stdin.flush()
        until(lambda: part.exists() or running.poll() is not None)
        running.kill()
    assert running.returncode == -9
    assert not Path(machine.config.password).exists()
    assert not machine.model().exists()
    assert (machine.root / "etc/keys.env").read_text() == "RIG_KEY_ONE=secret\n"
    assert machine.run("restore", "--yes", input=f"{PASSWORD}\n").returncode == 0
    assert machine.model().read_bytes() == content
    assert Path(machine.config.password).read_text() == f"{PASSWORD}\n"


def test_keys_that_are_here_are_replaced_only_by_somebody_who_says_so(machine: Machine) -> None:
    machine.back_up()
    (machine.root / "etc/keys.env").write_text("RIG_KEY_ONE=newer\n")
    refused = machine.run("restore")
    assert refused.returncode == 2
    assert "To do it, add --yes" in refused.stderr
    assert (machine.root / "etc/keys.env").read_text() == "RIG_KEY_ONE=newer\n"
    assert machine.run("restore", "--yes").returncode == 0
    assert (machine.root / "etc/keys.env").read_text() == "RIG_KEY_ONE=secret\n"


def test_an_older_snapshot_can_be_brought_back_and_an_unknown_one_is_refused(machine: Machine) -> None:
    machine.change(keep=replace(machine.config.keep, daily=1))
    machine.back_up()
    first = machine.status()["last"]["snapshot"]
    # A snapshot of the day before, which stays beside that of today.
    machine.restic("tag", "--add", "rig", first)
    wrong = machine.run("restore", "--yes", "--snapshot", "0000dead")
    assert wrong.returncode == 1
    assert "the backup has no snapshot 0000dead; it has" in wrong.stderr
    (identity,) = [entry["short_id"] for entry in json.loads(machine.restic("snapshots", "--json"))]
    assert machine.run("restore", "--yes", "--snapshot", identity).returncode == 0


def test_a_model_that_rotted_in_the_backup_is_not_brought_back(machine: Machine) -> None:
    machine.add("bad", bad=b"bad" * 100)
    machine.add("tiny", tiny=b"model")
    machine.back_up()
    destroy(machine)
    flip(machine.copy("bad", "bad.gguf"))
    done = machine.run("restore", input=f"{PASSWORD}\n")
    assert done.returncode == 1
    assert "bad.gguf has changed since it was verified" in done.stderr
    assert not machine.model("bad", "bad.gguf").exists()
    assert machine.model().read_bytes() == b"model"


def test_a_disk_without_a_backup_is_told_from_one_with(machine: Machine) -> None:
    done = machine.run("restore")
    assert done.returncode == 1
    assert "holds no backup; is it the right disk?" in done.stderr


# One copy


def test_a_copy_gets_its_name_only_with_the_right_bytes(tmp_path: Path) -> None:
    source, final = tmp_path / "source", tmp_path / "deep/final"
    source.write_bytes(b"bytes")
    right = File("final", 5, hashlib.sha256(b"bytes").hexdigest())
    wrong = File("final", 5, "0" * 64)
    with pytest.raises(Failed, match="its copy was thrown away"):
        transfer.bring(source, final, wrong, Item("model", "final", 5))
    assert list(final.parent.iterdir()) == []
    final.write_bytes(b"older")
    with pytest.raises(Failed):
        transfer.bring(source, final, wrong, Item("model", "final", 5))
    assert final.read_bytes() == b"older"
    transfer.bring(source, final, right, Item("model", "final", 5))
    assert final.read_bytes() == b"bytes"


def test_places_in_the_backup_are_those_that_rig_models_asks(machine: Machine) -> None:
    machine.add("tiny", tiny=b"model")
    (model,) = machine.manifest.models
    asked = machine.manifest.backup_path(model, model.files[0])
    place = copies.place(machine.manifest, model, model.files[0])
    assert str(asked) == f"{machine.config.target}/models/{place}"
    assert manifests.parse(manifests.dump(machine.manifest)) == machine.manifest
