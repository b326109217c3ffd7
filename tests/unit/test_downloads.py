"""The script that installs an archive runs for real here: nothing wrong is ever unpacked, and nothing fetched twice."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rig.operations import downloads
from tests.unit.sample import Here, needs, needs_root, tree
from tests.unit.web import Web, serving

pytestmark = needs("curl", "flock", "sha256sum", "tar")


@dataclass
class Place:
    """A machine's folders, and a web server for its downloads."""

    root: Path
    web: Web
    here: Here


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    here = Here()
    monkeypatch.setattr(downloads, "host", here)
    with serving() as web:
        yield Place(tmp_path, web, here)


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
        """Run the operation; None if it has nothing to do, else its failure output."""
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
def unpacked(place: Place) -> Unpacked:
    return Unpacked(place)


def test_an_archive_is_unpacked_whole_and_readable_by_everyone(unpacked: Unpacked) -> None:
    assert unpacked.install() == ""
    assert tree(unpacked.place.root) == {
        "opt/abc/.rig-links": "644",
        "opt/abc/.rig-sha256": "644",
        "opt/abc/build/bin/libllama.so": "644",
        "opt/abc/build/bin/llama-server": "755",
    }
    assert {path.stat().st_uid for path in unpacked.directory.rglob("*")} == {os.geteuid()}
    assert os.access(unpacked.directory, os.X_OK)
    assert unpacked.directory.stat().st_mode & 0o777 == 0o755


def test_an_archive_that_is_there_is_not_fetched_again(unpacked: Unpacked) -> None:
    unpacked.install()
    assert unpacked.install() is None


@pytest.mark.parametrize("damage", ["flipped", "emptied", "deleted", "added", "writable", "no stamp", "empty stamp"])
def test_an_archive_with_a_file_that_is_not_as_it_came_is_unpacked_again(unpacked: Unpacked, damage: str) -> None:
    unpacked.install()
    library, stamp = unpacked.directory / "build/bin/libllama.so", unpacked.directory / ".rig-sha256"
    match damage:
        case "flipped":
            library.write_bytes(b"Library")
        case "emptied":
            library.write_bytes(b"")
        case "deleted":
            library.unlink()
        case "added":
            (unpacked.directory / "build/bin/libevil.so").write_bytes(b"")
        case "writable":
            library.chmod(0o666)
        case "no stamp":
            stamp.unlink()
        case _:
            stamp.write_bytes(b"")
    assert unpacked.install() == ""
    assert library.read_bytes() == b"library"
    assert unpacked.install() is None


@pytest.mark.parametrize(
    "command",
    [
        "chmod 4755 build/bin/llama-server",
        "chmod 0777 build/bin",
        "chmod 0777 ..",
        "ln -s /tmp/libggml.so build/bin/libggml.so",
        "ln -sf /tmp/libllama.so build/bin/libllama.so",
        "rm .rig-links",
    ],
)
def test_a_link_or_a_mode_that_did_not_come_with_the_archive_is_undone(unpacked: Unpacked, command: str) -> None:
    unpacked.install()
    before = tree(unpacked.place.root)
    unpacked.place.here.shell(f"cd {unpacked.directory} && {command}")
    assert unpacked.install() == ""
    assert tree(unpacked.place.root) == before
    assert unpacked.install() is None


@needs_root
def test_a_file_of_another_owner_is_fetched_again(unpacked: Unpacked) -> None:
    unpacked.install()
    os.chown(unpacked.directory / "build/bin/libllama.so", 1234, 1234)
    assert unpacked.install() == ""
    assert {path.stat().st_uid for path in unpacked.directory.rglob("*")} == {0}


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
