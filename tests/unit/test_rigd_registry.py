"""verify, list, status and prune: their reports on existing files, and the files that they leave alone."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from rigd.base import files, lock, mounts, state
from rigd.base.errors import Failed
from rigd.base.progress import Progress
from rigd.base.state import FetchState, FileState
from rigd.models import gguf as headers
from rigd.models import verify
from rigd.models.manifest import File, Model
from tests.unit.fetching import Place, serving
from tests.unit.sample import tree

CONTENT = bytes(range(256)) * 64


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with serving() as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        place.fetch()
        yield place


def _rot(path: Path) -> None:
    """Change a byte as a failing disk does: only the content differs."""
    stat = path.stat()
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


# verify


def test_a_right_model_is_confirmed(place: Place) -> None:
    done = place.run("verify")
    assert (done.returncode, done.stdout) == (0, "1 model is read and right\n")


def test_a_file_that_changed_is_reported_left_alone_and_marked(place: Place) -> None:
    _rot(place.final())
    changed = place.final().read_bytes()
    done = place.run("verify", "--low-priority")
    found = hashlib.sha256(changed).hexdigest()
    assert done.returncode == 1
    assert f"{place.final()} has SHA-256 {found}" in done.stderr
    assert place.final().read_bytes() == changed
    marker = place.records.directory / "tiny.failed"
    assert found in marker.read_text()
    assert place.ask("status")["models"]["tiny"] == {"verified": False, "failure": marker.read_text().strip()}
    assert "FAILED" in place.run("list").stdout


def test_a_changed_file_that_its_record_still_fits_is_found_all_the_same(place: Place) -> None:
    _rot(place.final())
    path = place.records.directory / "tiny.verified"
    record = json.loads(path.read_text())
    stat = place.final().stat()
    record["files"]["tiny.gguf"]["stamp"] |= {"mtime_ns": stat.st_mtime_ns, "ctime_ns": stat.st_ctime_ns}
    path.write_text(json.dumps(record))
    assert place.ask("status")["models"]["tiny"]["verified"]
    assert place.run("verify").returncode == 1
    assert not place.ask("status")["models"]["tiny"]["verified"]


def test_a_marked_model_is_fetched_anew_and_loses_its_mark(place: Place) -> None:
    _rot(place.final())
    place.run("verify")
    assert place.run("fetch").returncode == 0
    assert place.final().read_bytes() == CONTENT
    assert not (place.records.directory / "tiny.failed").exists()


def test_a_mark_that_was_deleted_stays_so_after_a_power_cut(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = place.records.directory / "tiny.failed"
    place.records.fail("tiny", "why")
    synced: list[bool] = []
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: synced.append(
            Path(f"/proc/self/fd/{descriptor}").readlink() == marker.parent and not marker.exists()
        ),
    )
    place.records.clear("tiny")
    assert synced == [True]


def test_a_file_put_right_by_hand_loses_its_mark_at_the_next_look(place: Place) -> None:
    _rot(place.final())
    place.run("verify")
    place.final().write_bytes(CONTENT)
    assert place.run("verify").returncode == 0
    assert place.ask("status")["models"]["tiny"] == {"verified": True, "failure": None}


@pytest.mark.parametrize("size", [0, 100, len(CONTENT) + 1])
def test_a_file_of_another_size_is_told_so_without_reading_it(place: Place, size: int) -> None:
    os.truncate(place.final(), size)
    assert f"has {size} bytes, and {len(CONTENT)} are pinned" in place.run("verify").stderr


def test_a_missing_file_is_marked(place: Place) -> None:
    place.final().unlink()
    assert "is missing; fetch it again with: rig-models fetch" in place.run("verify").stderr
    assert (place.records.directory / "tiny.failed").exists()


def test_models_on_a_disk_that_is_missing_are_neither_marked_nor_forgotten_nor_fetched(place: Place) -> None:
    """As where the disk did not mount: the folder under its mount point is empty, and no disk."""
    place.change(must_be_mount=True)
    away = place.models.rename(place.root / "away")
    place.models.mkdir()
    before = {path.name: path.read_text() for path in place.records.directory.glob("tiny*")}
    for command in (("verify",), ("fetch",), ("prune", "--yes")):
        done = place.run(*command)
        assert done.returncode == 1
        assert f"{place.models} is not mounted, and storage.models asks for a disk" in done.stderr
    assert {path.name: path.read_text() for path in place.records.directory.glob("tiny*")} == before
    assert list(place.models.iterdir()) == []
    place.models.rmdir()
    away.rename(place.models)
    place.change(must_be_mount=False)
    assert place.ask("status")["models"]["tiny"] == {"verified": True, "failure": None}


def test_a_disk_that_is_taken_away_while_it_is_read_marks_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.change(must_be_mount=True)
    said = iter([None, "gone"])
    monkeypatch.setattr(mounts, "missing", lambda *_: next(said))
    place.final().unlink()
    checks = verify.checks(place.manifest, list(place.manifest.models))
    with pytest.raises(Failed, match="gone"), Progress([check.item for check in checks]) as shown:
        verify.run(place.manifest, place.records, checks, shown)
    assert place.records.failure("tiny") is None


def test_a_version_that_is_still_to_be_fetched_does_not_stop_the_one_before_it(place: Place) -> None:
    """The manifest names the update already, and the hub is down for days: the scrub must not mark what is served."""
    _update(place, CONTENT[::-1])
    done = place.run("verify")
    assert done.returncode == 1
    assert "is missing" in done.stderr
    assert place.ask("status")["models"]["tiny"] == {"verified": False, "failure": None}


def test_the_first_wrong_file_does_not_hide_the_second(place: Place) -> None:
    place.publish("second", one=CONTENT[::-1], two=CONTENT[1:])
    place.fetch()
    _rot(place.final("second", "one.gguf"))
    _rot(place.final("second", "two.gguf"))
    said = place.run("verify").stderr
    assert "one.gguf has" in said
    assert "two.gguf has" in said
    assert (place.records.directory / "second.failed").read_text().count("has SHA-256") == 2
    assert not (place.records.directory / "tiny.failed").exists()


def test_models_can_be_named_and_unknown_ones_are_refused(place: Place) -> None:
    assert place.run("verify", "tiny").returncode == 0
    done = place.run("verify", "huge")
    assert (done.returncode, done.stderr) == (2, "rig-models: there is no model huge in the manifest; it has tiny\n")


# list


def test_the_list_names_revision_quantization_size_and_engine(place: Place) -> None:
    head, row = place.run("list").stdout.splitlines()
    assert head.split("  ")[0] == "MODEL"
    assert row.split()[:5] == ["tiny", "aaaaaaaaaaaa", "unknown", "16.4", "kB"]
    assert row.endswith("engine")
    (entry,) = place.ask("list")
    assert (entry["revision"], entry["engines"], entry["failure"]) == ("a" * 40, ["engine"], None)
    assert entry["verified"] is not None


def test_a_model_that_is_not_there_is_listed_as_not_verified(place: Place) -> None:
    place.final().unlink()
    assert place.ask("list")[0]["verified"] is None


@pytest.mark.parametrize(
    ("path", "repository", "expected"),
    [
        ("Llama-3.3-70B-Instruct-Q4_K_M.gguf", "a/b", "Q4_K_M"),
        ("mmproj-Qwen3VL-4B-Instruct-F16.gguf", "a/b", "F16"),
        ("Qwen3-Embedding-0.6B-Q8_0.gguf", "a/b", "Q8_0"),
        ("model-iq2_xxs-00001-of-00002.gguf", "a/b", "IQ2_XXS"),
        ("model-00001-of-00002.safetensors", "RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", "FP8"),
        ("gpt-oss-20b-MXFP4.gguf", "a/b", "MXFP4"),
        ("config.json", "meta-llama/Llama-3.1-8B-Instruct", "unknown"),
    ],
)
def test_quantization_is_known_by_names(tmp_path: Path, path: str, repository: str, expected: str) -> None:
    model = Model("m", repository, "main", (File(path, 1, "a" * 64),))
    assert headers.quantization(model, tmp_path) == expected


@pytest.mark.parametrize("kind", [gguf.LlamaFileType.MOSTLY_Q5_K_M, gguf.LlamaFileType.MOSTLY_BF16])
def test_quantization_is_read_from_the_header_where_names_are_silent(tmp_path: Path, kind: gguf.LlamaFileType) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_array("before.words", ["one", "two"])
    writer.add_array("before.numbers", [1, 2, 3])
    writer.add_bool("before.flag", True)
    writer.add_file_type(kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    model = Model("m", "a/b", "main", (File("model.gguf", 1, "a" * 64),))
    assert headers.quantization(model, tmp_path) == kind.name.removeprefix("MOSTLY_")


def test_file_types_are_those_of_the_gguf_library() -> None:
    known = {kind.value: kind.name.removeprefix("MOSTLY_").removeprefix("ALL_") for kind in gguf.LlamaFileType}
    assert {number: known[number].removesuffix("_MOE") for number in headers.FILE_TYPES} == headers.FILE_TYPES


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"PK\x03\x04" * 9, struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + b"\xff" * 8]
)
def test_something_that_is_no_gguf_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert headers.file_type(tmp_path / "x") is None


# status


def test_a_fetch_that_was_killed_is_told_so(place: Place) -> None:
    killed = FetchState("m", 1, 0, 0, "running", None, (FileState("tiny", "tiny.gguf", "fetching", 1, 2),))
    (place.records.directory / state.NAME).write_text(json.dumps(state.as_dict(killed)))
    assert "the last fetch did not end well: it was killed" in place.run("status").stdout


def test_a_state_survives_its_file_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    before = FetchState("m", 1, 2.0, 3.0, "failed", "why", (FileState("a", "b", "failed", 1, 2, 3.0, None, "why"),))
    path = tmp_path / state.NAME
    path.write_text(json.dumps(state.as_dict(before)))
    assert state.read(tmp_path) == before
    for damage in ("", "{", "[]", "{}", '{"files": [1]}'):
        path.write_text(damage)
        assert state.read(tmp_path) is None


def test_a_line_says_files_bytes_rate_and_time_left() -> None:
    files = [
        FileState("a", "x", "done", 10**9, 10**9),
        FileState("b", "y", "fetching", 25 * 10**8, 5 * 10**9, rate=1e8, eta=25),
    ]
    assert state.line(files) == "1 of 2 files, 3.5 GB of 6.0 GB (58 %), 100.0 MB/s, 25 s left; fetching b/y"
    assert state.line([]) == "0 of 0 files, 0 B of 0 B (100 %)"


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (89, "89 s"), (300, "5 min"), (7 * 3600 + 120, "7 h 02 min")]
)
def test_time_is_said_as_people_do(seconds: float, text: str) -> None:
    assert state.duration(seconds) == text


# prune


def test_models_in_use_are_never_pruned(place: Place) -> None:
    assert place.run("prune", "--yes").stdout == "there is nothing that no engine uses\n"
    assert place.final().exists()


def test_what_no_engine_uses_is_named_and_deleted_with_everything_of_it(place: Place) -> None:
    place.put(place.final().with_name("tiny.gguf.0123456789ab.aside"), b"old")
    place.change(models=())
    done = place.run("prune", "--yes")
    assert "the model tiny, which no engine serves" in done.stdout
    assert not (place.models / "tiny").exists()
    assert [name for name in tree(place.records.directory) if name.startswith("tiny")] == []


def test_a_model_that_engines_gave_up_is_pruned(place: Place) -> None:
    (model,) = place.manifest.models
    place.change(models=(replace(model, engines=()),))
    assert "tiny, which no engine serves" in place.run("prune", "--yes").stdout
    assert not place.final().exists()


def test_files_that_were_set_aside_and_parts_of_nothing_are_pruned(place: Place) -> None:
    place.put(place.final().with_name("tiny.gguf.0123456789ab.aside"), b"old")
    place.put(place.final().with_name("gone.gguf.part"), b"half")
    place.put(place.part(), b"half")
    place.run("prune", "--yes")
    assert sorted(path.name for path in (place.models / "tiny").rglob("*.*")) == ["tiny.gguf", "tiny.gguf.part"]


def test_what_others_put_there_is_left_alone(place: Place) -> None:
    notes = place.final().with_name("notes.txt")
    place.put(notes, b"mine")
    place.put(place.models / "mine" / "model.gguf", b"mine")
    place.change(models=())
    place.run("prune", "--yes")
    assert sorted(tree(place.models)) == ["mine/model.gguf", str(notes.relative_to(place.models))]


def test_nothing_is_deleted_where_nobody_can_be_asked(place: Place) -> None:
    final = place.final()
    place.change(models=())
    done = place.run("prune", input="y\n")
    assert done.returncode == 2
    assert "add --yes" in done.stderr
    assert final.exists()


@pytest.mark.parametrize(("answer", "deleted"), [("y\n", True), ("n\n", False), ("\n", False), ("\x04", False)])
def test_a_person_is_asked_before_something_is_deleted(place: Place, answer: str, deleted: bool) -> None:
    final = place.final()
    place.change(models=())
    terminal, end = pty.openpty()
    os.write(terminal, answer.encode())
    done = place.run("prune", stdin=end)
    os.close(terminal)
    os.close(end)
    assert "delete 16.4 kB? [y/N]" in done.stdout
    assert (done.returncode, final.exists()) == (0 if deleted else 1, not deleted)
    assert done.stderr == ("" if deleted else "rig-models: nothing was deleted\n")


def test_nobody_waits_for_an_answer_and_what_is_needed_when_it_comes_stays(place: Place) -> None:
    final, wanted = place.final(), place.manifest
    place.change(models=())
    terminal, end = pty.openpty()
    with place.start("prune", stdin=end, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        try:
            while asking.stdout.read(1) != "?":
                assert asking.poll() is None
            assert lock.holder(place.records.directory) is None
            place.manifest = wanted
            place.write()
            os.write(terminal, b"y\n")
            assert asking.wait(30) == 0
        finally:
            asking.kill()
    os.close(terminal)
    os.close(end)
    assert final.exists()
    assert place.ask("status")["models"]["tiny"]["verified"]


def test_a_reader_that_has_read_enough_is_no_reason_to_complain(place: Place) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    with place.start("list", stdout=theirs, stderr=subprocess.PIPE) as listing:
        os.close(theirs)
        assert listing.stderr is not None
        assert listing.stderr.read() == ""
    assert listing.returncode == 1


def test_help_explains_every_command_and_the_exit_codes(place: Place) -> None:
    for command in ("fetch", "verify", "list", "status", "prune"):
        text = place.run(command, "--help").stdout
        assert "Exits with 0" in text
        assert "--json" in text


# Versions


def _update(place: Place, content: bytes) -> None:
    """Publish other bytes of the same file."""
    path = place.root / "hub" / "tiny-updated"
    path.write_bytes(content)
    place.hub.publish(path, "tiny.gguf")
    (model,) = place.manifest.models
    file = File("tiny.gguf", len(content), hashlib.sha256(content).hexdigest())
    place.hub.state.published = place.hub.state.published[-1:]
    place.change(models=(replace(model, files=(file,)),))


def test_an_update_leaves_the_version_before_it_where_it_is(place: Place) -> None:
    before = place.final()
    _update(place, CONTENT[::-1])
    assert place.run("fetch").returncode == 0
    assert before.read_bytes() == CONTENT
    assert place.final().read_bytes() == CONTENT[::-1]
    assert place.ask("list")[0]["others"] == [before.parent.name]


def test_going_back_downloads_nothing(place: Place) -> None:
    first = place.manifest
    _update(place, CONTENT[::-1])
    place.fetch()
    sent = place.hub.sent
    place.manifest = first
    place.fetch()
    assert place.hub.sent == sent
    assert place.ask("status")["models"]["tiny"]["verified"]


def test_the_version_before_is_pruned_only_when_that_is_asked_for(place: Place) -> None:
    first = place.final()
    _update(place, CONTENT[::-1])
    place.fetch()
    second = place.final()
    _update(place, CONTENT[1:])
    place.fetch()
    done = place.run("prune", "--yes")
    assert f"the version {first.parent.name} of tiny" in done.stdout
    assert (first.exists(), second.exists(), place.final().exists()) == (False, True, True)
    place.run("prune", "--yes", "--previous")
    assert (second.exists(), place.final().exists()) == (False, True)
    assert not second.parent.exists()


def test_a_version_that_never_was_whole_is_none_to_go_back_to(place: Place) -> None:
    """An update that was given up: what was served before it is still what one can go back to."""
    first = place.final()
    place.publish("pair", one=CONTENT, two=CONTENT[1:])
    place.fetch()
    served = place.final("pair", "one.gguf").parent
    for number, content in enumerate((CONTENT[2:], CONTENT[3:])):
        tiny, pair = place.manifest.models
        path = place.root / "hub" / f"pair-{number}"
        path.write_bytes(content)
        files = tuple(File(file.path, len(content), hashlib.sha256(content).hexdigest()) for file in pair.files)
        place.change(models=(tiny, replace(pair, files=files)))
        place.hub.state.published = [entry for entry in place.hub.state.published if "pair" not in entry.path.name]
        place.hub.publish(path, "one.gguf")
        if number:
            place.hub.publish(path, "two.gguf")
        assert place.run("fetch").returncode == (0 if number else 1)
    place.run("prune", "--yes")
    assert (first.exists(), served.exists()) == (True, True)
    assert len([path for path in served.parent.iterdir() if path.is_dir()]) == 2


def test_a_model_with_all_its_versions_goes_when_no_engine_serves_it(place: Place) -> None:
    _update(place, CONTENT[::-1])
    place.fetch()
    place.change(models=())
    place.run("prune", "--yes")
    assert not (place.models / "tiny").exists()


def test_a_model_whose_record_is_damaged_goes_and_nothing_else_does(place: Place) -> None:
    stranger = place.models / "other" / "half.part"
    place.put(stranger, b"mine")
    (place.records.directory / "tiny.verified").write_text("{")
    place.change(models=())
    place.run("prune", "--yes")
    assert not (place.models / "tiny").exists()
    assert stranger.exists()


def test_a_model_that_a_running_engine_is_started_with_outlives_the_manifest(place: Place) -> None:
    """A deploy that died after it wrote the manifest, and before it retired the engine."""
    served, unit = place.final(), place.root / "rig-native@old.service.d"
    unit.mkdir()
    (unit / "engine.conf").write_text(f"[Service]\nExecStart=llama-server --model {served}\n")
    place.change(models=(), starters=(f"{place.root}/rig-native@*.service.d/engine.conf",))
    assert place.run("prune", "--yes").stdout == "there is nothing that no engine uses\n"
    (unit / "engine.conf").unlink()
    place.run("prune", "--yes")
    assert not served.exists()


def test_a_version_by_which_an_engine_is_started_is_never_pruned(place: Place) -> None:
    served = place.final()
    unit = place.root / "engine.conf"
    unit.write_text(f"[Service]\nExecStart=llama-server --model {served}\n")
    place.change(starters=(str(unit), str(place.root / "not-there.yaml")))
    for content in (CONTENT[::-1], CONTENT[1:]):
        _update(place, content)
        place.fetch()
    place.run("prune", "--yes", "--previous")
    assert served.exists()
    unit.unlink()
    place.run("prune", "--yes")
    assert not served.exists()


def test_files_that_an_update_does_not_change_are_linked_and_not_fetched(place: Place) -> None:
    place.publish("sharded", one=CONTENT, two=CONTENT[1:])
    place.fetch()
    sent, before = place.hub.sent, place.final("sharded", "one.gguf")
    changed = place.root / "hub" / "changed"
    changed.write_bytes(b"new")
    place.hub.state.published = [entry for entry in place.hub.state.published if entry.file != "two.gguf"]
    place.hub.publish(changed, "two.gguf")
    tiny, sharded = place.manifest.models
    files = (sharded.files[0], File("two.gguf", 3, hashlib.sha256(b"new").hexdigest()))
    place.change(models=(tiny, replace(sharded, files=files)))
    place.fetch()
    assert place.hub.sent - sent == 3
    assert place.final("sharded", "one.gguf").samefile(before)
    place.run("prune", "--yes", "--previous")
    assert not before.exists()
    assert place.ask("status")["models"]["sharded"]["verified"]


def test_a_file_that_changed_does_not_become_right_by_the_end_of_its_second_name(place: Place) -> None:
    dropped = place.models / "tiny" / "tiny.gguf"
    dropped.hardlink_to(place.final())
    place.fetch()
    _rot(place.final())
    place.records.unlink([dropped])
    assert not place.ask("status")["models"]["tiny"]["verified"]


def test_a_changed_file_of_another_version_is_not_linked(place: Place) -> None:
    place.publish("sharded", one=CONTENT, two=CONTENT[1:])
    place.fetch()
    _rot(place.final("sharded", "one.gguf"))
    sent = place.hub.sent
    tiny, sharded = place.manifest.models
    place.change(models=(tiny, replace(sharded, files=sharded.files[:1])))
    place.fetch()
    assert place.hub.sent - sent == len(CONTENT)
    assert place.final("sharded", "one.gguf").read_bytes() == CONTENT


def test_a_file_put_into_the_models_own_folder_is_not_fetched_and_keeps_its_name(place: Place) -> None:
    """By hand, or by an earlier version of this program, whose engines still look for it there."""
    content = place.final().read_bytes()
    place.final().unlink()
    dropped = place.models / "tiny" / "tiny.gguf"
    place.put(dropped, content)
    sent = place.hub.sent
    place.fetch()
    assert (place.hub.sent, place.final().read_bytes(), dropped.samefile(place.final())) == (sent, content, True)


def test_a_second_name_is_pruned_once_no_engine_is_started_by_it(place: Place) -> None:
    unit = place.root / "engine.conf"
    dropped = place.models / "tiny" / "tiny.gguf"
    dropped.hardlink_to(place.final())
    place.fetch()
    unit.write_text(f"ExecStart=llama-server --model {dropped}\n")
    place.change(starters=(str(unit),))
    place.run("prune", "--yes")
    assert dropped.exists()
    unit.unlink()
    assert "0 B  a second name of tiny.gguf of tiny" in place.run("prune", "--yes").stdout
    assert (dropped.exists(), place.final().read_bytes()) == (False, CONTENT)
    assert place.ask("status")["models"]["tiny"]["verified"]


def test_the_old_version_is_not_read_to_know_that_it_is_not_the_new_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    _update(place, CONTENT[::-1])
    monkeypatch.setattr(files, "digest", lambda *_: pytest.fail("a file was read whose hash is on record"))
    place.fetch()
    assert place.final().read_bytes() == CONTENT[::-1]


def test_where_files_cannot_have_two_names_they_are_copied(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.final().rename(place.models / "tiny" / "tiny.gguf")

    def hardlink_to(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", hardlink_to)
    asked = len(place.hub.asked)
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert len(place.hub.asked) == asked
