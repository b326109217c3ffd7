"""The scripts that download run for real here: nothing wrong ever takes a final name, and nothing is fetched twice."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shlex
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pyinfra.facts.files import File

from rig.facts import models as facts
from rig.operations import downloads
from tests.unit.sample import Here, needs, tree
from tests.unit.web import Web, serving

pytestmark = needs("curl", "flock", "sha256sum", "tar")

CONTENT = bytes(range(256)) * 64
SHA = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Place:
    """A machine's folders, and the web that it downloads from."""

    root: Path
    web: Web
    here: Here

    @property
    def final(self) -> Path:
        return self.root / "models" / "tiny" / "tiny.gguf"

    @property
    def part(self) -> Path:
        return self.final.with_name("tiny.gguf.part")

    def commands(self, sha256: str = SHA, size: int = len(CONTENT)) -> list[str]:
        made = downloads.model._inner(
            model="tiny", url=f"{self.web.url}/tiny.gguf", path=str(self.final), size=size, sha256=sha256
        )
        return list(made)

    def download(self, sha256: str = SHA, size: int = len(CONTENT)) -> subprocess.CompletedProcess[str] | None:
        """Runs the operation; None when it has nothing to do."""
        done = self.here.carry_out(iter(self.commands(sha256, size)))
        return done[-1] if done else None

    def put(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    here = Here()
    monkeypatch.setattr(downloads, "host", here)
    for module in (downloads, facts):
        monkeypatch.setattr(module, "RECORDS", str(tmp_path / "records"))
    with serving() as web:
        web.files["/tiny.gguf"] = CONTENT
        yield Place(tmp_path, web, here)


def _good(done: subprocess.CompletedProcess[str] | None) -> None:
    assert done is not None
    assert done.returncode == 0, done.stderr


def _bad(done: subprocess.CompletedProcess[str] | None) -> str:
    assert done is not None
    assert done.returncode != 0
    return done.stderr


def test_a_model_lands_whole_readable_and_recorded(place: Place) -> None:
    _good(place.download())
    assert place.final.read_bytes() == CONTENT
    assert tree(place.root) == {"models/tiny/tiny.gguf": "644", "records/tiny.verified": "644"}


def test_a_second_run_neither_asks_the_network_nor_changes_a_thing(place: Place) -> None:
    _good(place.download())
    before = (place.final.stat(), len(place.web.asked))
    assert place.download() is None
    assert (place.final.stat(), len(place.web.asked)) == before


def test_wrong_bytes_of_the_right_size_leave_nothing_behind(place: Place) -> None:
    place.web.files["/tiny.gguf"] = bytes(len(CONTENT))
    said = _bad(place.download())
    assert tree(place.root) == {}
    assert hashlib.sha256(bytes(len(CONTENT))).hexdigest() in said
    assert SHA in said
    assert "models.catalogue.tiny" in said


def test_a_file_that_is_too_short_leaves_nothing_behind(place: Place) -> None:
    place.web.files["/tiny.gguf"] = CONTENT[:-1]
    assert "is not what the settings pin" in _bad(place.download())
    assert tree(place.root) == {}


def test_a_file_that_is_too_long_never_takes_the_name(place: Place) -> None:
    place.web.files["/tiny.gguf"] = CONTENT + b"x"
    _bad(place.download())
    assert not place.final.exists()
    place.web.files["/tiny.gguf"] = CONTENT
    _good(place.download())


def test_a_missing_file_is_told_with_its_status(place: Place) -> None:
    del place.web.files["/tiny.gguf"]
    assert "404" in _bad(place.download())
    assert not place.final.exists()


def test_an_unfinished_download_is_continued_where_it_broke_off(place: Place) -> None:
    place.put(place.part, CONTENT[:5000])
    _good(place.download())
    assert place.web.asked == [("/tiny.gguf", "bytes=5000-")]
    assert place.final.read_bytes() == CONTENT
    assert not place.part.exists()


def test_a_finished_download_that_was_not_yet_renamed_is_not_fetched_again(place: Place) -> None:
    place.put(place.part, CONTENT)
    _good(place.download())
    assert place.web.asked == []
    assert place.final.read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 5000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_spoilt_unfinished_download_is_overcome_by_the_next_run_but_one(place: Place, left: bytes) -> None:
    place.put(place.part, left)
    place.download()
    assert not place.final.exists() or place.final.read_bytes() == CONTENT
    _good(place.download() or place.here.shell("true"))
    assert place.final.read_bytes() == CONTENT


def test_a_server_that_cannot_continue_is_asked_for_the_whole(place: Place) -> None:
    place.web.ranges = False
    place.put(place.part, CONTENT[:5000])
    _good(place.download())
    assert place.final.read_bytes() == CONTENT


def test_a_file_that_an_owner_copied_there_is_hashed_and_believed_without_the_network(place: Place) -> None:
    place.put(place.final, CONTENT)
    _good(place.download())
    assert place.web.asked == []
    assert place.download() is None


def test_a_wrong_file_under_the_final_name_is_set_aside_and_replaced(place: Place) -> None:
    place.put(place.final, b"someone's only copy")
    _good(place.download())
    assert place.final.read_bytes() == CONTENT
    assert place.final.with_name("tiny.gguf.wrong").read_bytes() == b"someone's only copy"


def test_a_file_that_changed_after_it_was_verified_is_found_out(place: Place) -> None:
    _good(place.download())
    place.final.write_bytes(bytes(len(CONTENT)))
    _good(place.download())
    assert place.final.read_bytes() == CONTENT


def test_another_hash_in_the_settings_is_not_satisfied_by_the_old_file(place: Place) -> None:
    _good(place.download())
    other = CONTENT[::-1]
    place.web.files["/tiny.gguf"] = other
    _good(place.download(sha256=hashlib.sha256(other).hexdigest()))
    assert place.final.read_bytes() == other


def test_two_runs_at_once_wait_for_each_other(place: Place) -> None:
    """What a killed run left at work on the machine must not write into the file of the next one."""
    place.final.parent.mkdir(parents=True)
    (command,) = place.commands()
    waits_for(place.final.parent, command, meanwhile=lambda: place.web.asked == [])
    assert place.final.read_bytes() == CONTENT


def waits_for(lock: Path, command: str, meanwhile: Callable[[], bool]) -> None:
    """Starts a command while its lock is held, sees it wait, and lets it finish."""
    held = os.open(lock, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    process = subprocess.Popen(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 20
        inode = f":{lock.stat().st_ino} "
        while not any(" -> " in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
            assert process.poll() is None, "it did not wait for the lock"
            assert time.monotonic() < end, "it did not come to the lock"
            time.sleep(0.01)
        assert meanwhile()
    finally:
        os.close(held)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said


def _archive(files: dict[str, tuple[bytes, int]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid = len(content), mode, 1234
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


SERVER = _archive({"build/bin/llama-server": (b"#!/bin/sh\n", 0o755), "build/bin/libllama.so": (b"library", 0o600)})


@dataclass
class Unpacked:
    """An archive's operation, with its directory below a place's root."""

    place: Place

    @property
    def directory(self) -> Path:
        return self.place.root / "opt" / "abc"

    def install(self, content: bytes = SERVER, program: str = "build/bin/llama-server", sha256: str = "") -> str | None:
        """Runs the operation; None when it has nothing to do, else what it says of a failure."""
        self.place.web.files["/a.tar.gz"] = content
        made = downloads.archive._inner(
            url=f"{self.place.web.url}/a.tar.gz",
            sha256=sha256 or hashlib.sha256(content).hexdigest(),
            directory=str(self.directory),
            program=program,
        )
        done = self.place.here.carry_out(made)
        return None if not done else "" if done[-1].returncode == 0 else done[-1].stderr or "failed"


@pytest.fixture
def unpacked(place: Place, monkeypatch: pytest.MonkeyPatch) -> Unpacked:
    # pyinfra's own fact about files speaks several dialects of stat; what is asked here is only whether one is there.
    real = place.here.get_fact
    monkeypatch.setattr(
        Here,
        "get_fact",
        lambda self, fact, **given: Path(given["path"]).exists() if fact is File else real(fact, **given),
    )
    return Unpacked(place)


def test_an_archive_is_unpacked_whole_and_readable_by_everyone(unpacked: Unpacked) -> None:
    assert unpacked.install() == ""
    assert tree(unpacked.place.root) == {
        "opt/abc/build/bin/libllama.so": "644",
        "opt/abc/build/bin/llama-server": "755",
    }
    assert {path.stat().st_uid for path in unpacked.directory.rglob("*")} == {os.geteuid()}
    assert os.access(unpacked.directory, os.X_OK)
    assert unpacked.directory.stat().st_mode & 0o777 == 0o755


def test_an_archive_that_is_there_is_not_fetched_again(unpacked: Unpacked) -> None:
    unpacked.install()
    assert unpacked.install() is None


def test_an_archive_with_another_hash_is_not_unpacked(unpacked: Unpacked) -> None:
    said = unpacked.install(sha256="0" * 64)
    assert said is not None
    assert "nothing of it was unpacked" in said
    assert "archive.sha256" in said
    assert tree(unpacked.place.root) == {}


def test_an_archive_with_its_program_elsewhere_says_where(unpacked: Unpacked) -> None:
    said = unpacked.install(program="llama-server")
    assert said is not None
    assert "write archive.binary: build/bin/llama-server" in said
    assert tree(unpacked.place.root) == {}


def test_something_that_is_no_archive_leaves_nothing_behind(unpacked: Unpacked) -> None:
    assert unpacked.install(content=b"not an archive")
    assert tree(unpacked.place.root) == {}


def test_what_a_killed_run_left_does_not_stand_in_the_way(unpacked: Unpacked) -> None:
    unpacked.directory.mkdir(parents=True)
    (unpacked.directory / "half").write_text("x")
    assert unpacked.install() == ""
    assert not (unpacked.directory / "half").exists()


def test_a_path_with_odd_characters_is_one_word_to_the_shell(place: Place) -> None:
    for command in place.commands():
        assert str(place.final) in command
        assert shlex.split(command)
