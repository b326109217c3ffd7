"""Fetching from a hub that misbehaves: nothing wrong ever takes a final name, and nothing is fetched twice."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

import lab.hub
from rigd.base import files, lock
from rigd.base.errors import BadInput, Failed, Trouble
from rigd.base.files import clone
from rigd.models import fetch as fetching
from rigd.models import hub
from rigd.models.fetch import Fetcher, Job
from rigd.models.pace import Patience
from rigd.models.part import Part
from tests.unit.fetching import REPOSITORY, Place, serving
from tests.unit.sample import tree

CONTENT = random.Random(1).randbytes(3 << 20)
OTHER = random.Random(2).randbytes(1 << 20)
SHA = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with serving() as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        yield place


def test_files_land_whole_readable_and_recorded(place: Place) -> None:
    place.publish("sharded", one=OTHER, two=OTHER[::-1])
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert place.final("sharded", "two.gguf").read_bytes() == OTHER[::-1]
    landed = [place.final("sharded", "one.gguf"), place.final("sharded", "two.gguf"), place.final()]
    assert tree(place.models) == {str(path.relative_to(place.models)): "644" for path in landed}
    assert place.hub.sent == len(CONTENT) + 2 * len(OTHER)


def test_a_file_is_on_the_disk_before_it_has_its_name_and_so_is_the_name(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[str, str]] = []
    synced, renamed = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        order.append(("fsync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        synced(descriptor)

    def rename(path: Path, target: Path) -> Path:
        order.append(("rename", path.name))
        return renamed(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    place.fetch()
    assert [step for step in order if step[1] in ("tiny.gguf.part", place.final().parent.name)] == [
        ("fsync", "tiny.gguf.part"),
        ("rename", "tiny.gguf.part"),
        ("fsync", place.final().parent.name),
    ]


def test_a_mirror_that_the_environment_names_is_asked_instead(place: Place) -> None:
    mirror = place.hub.address
    place.change(hub="http://127.0.0.1:1")
    done = place.run("fetch", env={**os.environ, "HF_ENDPOINT": f"{mirror}/"})
    assert done.returncode == 0, done.stderr
    assert place.final().read_bytes() == CONTENT


def test_a_second_run_neither_asks_the_network_nor_reads_a_model(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.fetch()
    monkeypatch.setattr(files, "digest", lambda *_: pytest.fail("a verified file was read"))
    before = len(place.hub.asked)
    place.fetch()
    assert len(place.hub.asked) == before


# Faults of the hub


def test_a_connection_that_is_cut_again_and_again_costs_no_byte_twice(place: Place) -> None:
    place.hub.fault(cut=1_200_000, times=2)
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert place.hub.begun_at == [0, 1_200_000, 2_400_000]
    assert place.hub.sent == len(CONTENT)


def test_every_attempt_begins_at_the_resolve_address(place: Place) -> None:
    place.hub.fault(cut=1_200_000, times=2)
    place.fetch()
    assert [request.is_resolve for request in place.hub.asked] == [True, False] * 3


def test_a_signed_address_that_expires_is_asked_for_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    lifetimes = iter([-10, -10, 60])
    real = lab.hub.Handler._resolve

    def resolve(self: lab.hub.Handler, *asked: str) -> None:
        monkeypatch.setattr(lab.hub, "ADDRESS_SECONDS", next(lifetimes))
        real(self, *asked)

    monkeypatch.setattr(lab.hub.Handler, "_resolve", resolve)
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert sum(request.is_resolve for request in place.hub.asked) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_is_busy_is_asked_again(place: Place, status: int) -> None:
    place.hub.fault(status=status, times=3)
    place.fetch()
    assert place.final().read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_given_up_with_the_cause(place: Place) -> None:
    place.limit(attempts=3)
    place.hub.fault(status=503)
    with pytest.raises(Failed, match=r"tiny/tiny\.gguf: 127\.0\.0\.1:.* answers 503 Service Unavailable; given up"):
        place.fetch()
    assert sum(request.is_resolve for request in place.hub.asked) == 3
    assert not place.final().exists()


def test_attempts_that_bring_something_are_not_counted(place: Place) -> None:
    place.limit(attempts=2)
    place.hub.fault(cut=fetching.FRUITFUL, times=2)
    place.fetch()
    assert place.hub.sent == len(CONTENT)


def test_a_server_is_left_alone_as_long_as_it_asks(place: Place) -> None:
    waits = []

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            return False

    place.hub.fault(status=429, retry_after=7, times=1)
    place.fetch(stop=Watched())
    assert [round(wait) for wait in waits if wait > 1] == [7]


def test_a_server_that_asks_for_too_long_a_rest_is_given_up(place: Place) -> None:
    place.hub.fault(status=429, retry_after=7200)
    with pytest.raises(Failed, match="answers 429"):
        place.fetch()
    assert len(place.hub.begun_at) == 1


def test_a_server_without_ranges_is_asked_for_the_whole(place: Place) -> None:
    place.put(place.part(), CONTENT[:HALF])
    place.hub.fault(no_range=True)
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert place.hub.sent == len(CONTENT)


def test_a_slow_server_is_waited_for(place: Place) -> None:
    place.hub.fault(bytes_per_second=len(CONTENT) * 4)
    place.fetch()
    assert place.final().read_bytes() == CONTENT


def test_a_silent_server_is_given_up(place: Place) -> None:
    place.limit(timeout=0.05, attempts=2)
    place.hub.fault(bytes_per_second=20_000)
    with pytest.raises(Failed, match="silent for too long"):
        place.fetch()


def test_wrong_bytes_never_take_the_name_and_are_told_with_their_hash(place: Place) -> None:
    place.hub.fault(wrong=True)
    wrong = hashlib.sha256(bytes(255 - byte for byte in CONTENT)).hexdigest()
    with pytest.raises(Failed, match=f"{wrong}, and {SHA} is pinned"):
        place.fetch()
    assert tree(place.models) == {}
    assert place.hub.sent == len(CONTENT)


def test_wrong_bytes_in_the_middle_cost_one_more_download(place: Place) -> None:
    place.put(place.part(), CONTENT[:HALF])
    place.hub.fault(wrong=True, times=1)
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert place.hub.begun_at == [HALF, 0]


@pytest.mark.parametrize("change", [b"", b"more"])
def test_another_file_under_the_name_is_refused_before_a_byte_of_it(place: Place, change: bytes) -> None:
    path = place.root / "other"
    path.write_bytes(CONTENT[::-1] + change)
    place.hub.state.published.clear()
    place.hub.publish(path, "tiny.gguf")
    with pytest.raises(Failed, match="pin the new file"):
        place.fetch()
    assert place.hub.sent == 0


def test_a_file_whose_size_changed_behind_the_hubs_promise_is_refused(place: Place) -> None:
    (place.root / "hub" / "tiny-tiny.gguf").write_bytes(CONTENT + b"more")
    with pytest.raises(Failed, match=f"has {len(CONTENT) + 4} bytes, and {len(CONTENT)} are pinned"):
        place.fetch()
    place.put(place.part(), CONTENT[:HALF])
    with pytest.raises(Failed, match=f"has {len(CONTENT) + 4} bytes"):
        place.fetch()


def test_a_file_that_became_shorter_than_what_is_there_is_refused(place: Place) -> None:
    (place.root / "hub" / "tiny-tiny.gguf").write_bytes(CONTENT[:100])
    place.put(place.part(), CONTENT[:HALF])
    with pytest.raises(Failed, match="has 100 bytes"):
        place.fetch()


def test_a_missing_file_is_told_with_its_status_at_once(place: Place) -> None:
    place.hub.state.published.clear()
    with pytest.raises(Failed, match=r"answers 404 Not Found for tiny\.gguf of made/up at aaaa"):
        place.fetch()
    assert len(place.hub.asked) == 1


def test_a_server_that_is_not_there_is_told(place: Place) -> None:
    place.limit(attempts=2)
    place.change(hub="http://127.0.0.1:1")
    with pytest.raises(Failed, match=r"the connection broke \(Connection refused\); given up"):
        place.fetch()


def test_ranges_that_the_server_gets_wrong_lead_to_the_whole_file(tmp_path: Path) -> None:
    def _file(self: lab.hub.Handler, path: Path, name: str) -> None:
        self.send_response(HTTPStatus.PARTIAL_CONTENT if "Range" in self.headers else HTTPStatus.OK)
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    with serving({"_file": _file}) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        place.put(place.part(), CONTENT[:HALF])
        place.fetch()
        assert place.final().read_bytes() == CONTENT
        assert running.begun_at == [HALF, 0]


def _answering(status: HTTPStatus, headers: dict[str, str], content: bytes, promised: int | None = None) -> Any:
    """A hub with this answer to every download."""

    def _file(self: lab.hub.Handler, path: Path, name: str) -> None:
        self.state.asked(name)
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(content) if promised is None else promised))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    return {"_file": _file}


def _refusing_ranges(self: lab.hub.Handler, path: Path, name: str) -> None:
    """Cut every download in the middle, and continue none."""
    if "Range" in self.headers:
        self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no ranges here")
        return
    self.state.asked(name)
    self.send_response(HTTPStatus.OK)
    self.send_header("Content-Length", str(len(CONTENT)))
    self.end_headers()
    self.wfile.write(CONTENT[:HALF])
    self.close_connection = True


def _never_from_there(self: lab.hub.Handler, path: Path, name: str) -> None:
    """Cut every download in the middle, and continue it somewhere else."""
    start = 0 if "Range" not in self.headers else HALF - 100
    self.state.asked(name)
    self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
    if start:
        self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/*")
    self.send_header("Content-Length", str(len(CONTENT) - start))
    self.end_headers()
    self.wfile.write(CONTENT[start:HALF])
    self.close_connection = True


@pytest.mark.parametrize(
    "handler",
    [
        {"_file": _refusing_ranges},
        {"_file": _never_from_there},
        _answering(HTTPStatus.OK, {}, CONTENT[:HALF], len(CONTENT)),
    ],
    ids=["416", "206 from elsewhere", "200 from the beginning"],
)
def test_a_server_that_cuts_and_cannot_continue_is_given_up(tmp_path: Path, handler: Any) -> None:
    with serving(handler) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        place.limit(attempts=3)
        with pytest.raises(Failed, match=f"at most {HALF} of {len(CONTENT)} bytes came in one attempt; given up"):
            place.fetch()
        assert 3 <= sum(request.is_resolve for request in running.asked) <= 8
        assert not place.final().exists()


def test_a_part_whose_whole_size_the_server_does_not_know_is_continued(tmp_path: Path) -> None:
    def _file(self: lab.hub.Handler, path: Path, name: str) -> None:
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.send_response(HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/*")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : start + (1 << 20)])
        self.close_connection = True

    with serving({"_file": _file}) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        place.limit(attempts=2)
        place.fetch()
        assert place.final().read_bytes() == CONTENT
        assert running.begun_at == [0, 1 << 20, 2 << 20]


@pytest.mark.parametrize(
    ("headers", "content", "sentence"),
    [
        ({"Content-Encoding": "gzip"}, CONTENT[:1000], r"sends the file compressed \(gzip\)"),
        ({"Content-Type": "text/html; charset=utf-8"}, b"<html>log in</html>", "answers with a web page instead of"),
        ({"Content-Type": "text/html"}, CONTENT, "answers with a web page instead of"),
    ],
)
def test_what_is_not_the_file_is_told_and_no_new_pin_is_proposed(
    tmp_path: Path, headers: dict[str, str], content: bytes, sentence: str
) -> None:
    with serving(_answering(HTTPStatus.OK, headers, content)) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        place.limit(attempts=2)
        with pytest.raises(Failed, match=sentence) as refused:
            place.fetch()
        assert "pin the new file" not in str(refused.value)
        assert tree(place.models) == {}


def test_a_network_that_wants_a_login_is_waited_for_as_it_may_get_one(tmp_path: Path) -> None:
    real = lab.hub.Handler._file
    pages = [b"<html>log in</html>"] * 2

    def _file(self: lab.hub.Handler, path: Path, name: str) -> None:
        if not pages:
            real(self, path, name)
            return
        page = pages.pop()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    with serving({"_file": _file}) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        place.fetch()
        assert place.final().read_bytes() == CONTENT


# A model in several parts


def test_the_parts_of_a_model_land_in_their_folder_and_one_that_goes_missing_is_told(tmp_path: Path) -> None:
    names = [f"Q4_K_M/big-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    with serving() as running:
        place = Place(tmp_path, running)
        place.put(tmp_path / "one", CONTENT)
        place.put(tmp_path / "two", OTHER)
        place.put(tmp_path / "three", OTHER[::-1])
        place.publish_files(
            "big", dict(zip(names, (tmp_path / "one", tmp_path / "two", tmp_path / "three"), strict=True))
        )
        place.fetch()
        assert place.final("big", names[0]).read_bytes() == CONTENT
        assert place.ask("list")[0]["quantization"] == "Q4_K_M"
        place.final("big", names[1]).unlink()
        done = place.run("verify")
        assert done.returncode == 1
        assert f"{place.final('big', names[1])} is missing" in done.stderr
        assert place.ask("status")["models"]["big"]["failure"] is not None
        sent = running.sent
        place.fetch()
        assert running.sent - sent == len(OTHER)
        assert place.ask("status")["models"]["big"] == {"verified": True, "failure": None}


# Links in the folder of the models


def test_a_link_that_leads_out_is_replaced_by_a_copy_and_its_target_is_left_alone(place: Place) -> None:
    theirs = place.root / "elsewhere.gguf"
    place.put(theirs, CONTENT)
    theirs.chmod(0o600)
    os.chown(theirs, 1234, 1234)
    place.final().parent.mkdir(parents=True)
    place.final().symlink_to(theirs)
    place.fetch()
    assert place.hub.asked == []
    assert not place.final().is_symlink()
    assert place.final().read_bytes() == CONTENT
    found = theirs.stat()
    assert (found.st_uid, found.st_mode & 0o777, found.st_nlink) == (1234, 0o600, 1)
    assert place.final().stat().st_ino != found.st_ino


@pytest.mark.parametrize("where", ["final", "home"])
def test_a_link_that_stays_inside_becomes_a_second_name_without_a_copy(place: Place, where: str) -> None:
    there = place.models / "mine" / "other-name.gguf"
    place.put(there, CONTENT)
    link = place.final() if where == "final" else place.models / "tiny" / "tiny.gguf"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(there)
    place.fetch()
    assert place.hub.asked == []
    assert not place.final().is_symlink()
    assert place.final().samefile(there)


@pytest.mark.parametrize("target", ["wrong", "missing", "itself", "folder"])
def test_a_link_to_anything_else_gives_way_to_the_file_of_the_hub(place: Place, target: str) -> None:
    theirs = place.root / "theirs"
    if target == "wrong":
        place.put(theirs, CONTENT[::-1])
    elif target == "folder":
        theirs.mkdir()
    place.final().parent.mkdir(parents=True)
    place.final().symlink_to(place.final() if target == "itself" else theirs)
    place.fetch()
    assert not place.final().is_symlink()
    assert place.final().read_bytes() == CONTENT
    assert target != "wrong" or theirs.read_bytes() == CONTENT[::-1]


def test_a_verified_file_that_became_a_link_is_no_longer_believed(place: Place) -> None:
    place.fetch()
    kept = place.final().with_name("kept")
    place.final().rename(kept)
    place.final().symlink_to(kept)
    done = place.run("verify")
    assert done.returncode == 1
    assert "is a link and not a file" in done.stderr
    place.fetch()
    assert not place.final().is_symlink()


def test_a_folder_that_leads_out_is_refused_and_nothing_is_written_there(place: Place) -> None:
    outside = place.root / "outside"
    outside.mkdir()
    place.models.mkdir()
    (place.models / "tiny").symlink_to(outside)
    with pytest.raises(Failed, match=f"leads out of .*models to {outside}.*remove the link"):
        place.fetch()
    assert list(outside.iterdir()) == []


def test_an_unfinished_file_that_is_a_link_is_not_written_through(place: Place) -> None:
    theirs = place.root / "theirs"
    place.put(theirs, b"theirs")
    place.part().parent.mkdir(parents=True)
    place.part().symlink_to(theirs)
    place.fetch()
    assert theirs.read_bytes() == b"theirs"
    assert place.final().read_bytes() == CONTENT


def test_a_models_folder_that_is_itself_a_link_is_used(place: Place) -> None:
    (place.root / "disk").mkdir()
    place.models.symlink_to(place.root / "disk")
    place.fetch()
    assert place.final().read_bytes() == CONTENT


def test_small_files_that_the_hub_serves_without_a_redirect_are_fetched(tmp_path: Path) -> None:
    def _resolve(self: lab.hub.Handler, *asked: str) -> None:
        self._file(self.state.published[0].path, "direct")

    with serving({"_resolve": _resolve}) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        place.fetch()
        assert place.final().read_bytes() == CONTENT


# What an earlier run left


def test_an_unfinished_download_is_continued_where_it_broke_off(place: Place) -> None:
    place.put(place.part(), CONTENT[:HALF])
    place.fetch()
    assert place.hub.begun_at == [HALF]
    assert place.hub.sent == len(CONTENT) - HALF
    assert not place.part().exists()


def test_a_finished_download_that_was_not_yet_renamed_is_not_fetched_again(place: Place) -> None:
    place.put(place.part(), CONTENT)
    place.fetch()
    assert place.hub.asked == []
    assert place.final().read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 5000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_spoilt_unfinished_download_is_overcome(place: Place, left: bytes) -> None:
    place.put(place.part(), left)
    place.fetch()
    assert place.final().read_bytes() == CONTENT


def test_zeros_that_a_power_cut_left_at_the_end_cost_no_byte_before_them(place: Place) -> None:
    place.put(place.part(), CONTENT[: HALF - 100] + bytes(100))
    place.fetch()
    assert place.hub.begun_at == [HALF - 100]
    assert place.final().read_bytes() == CONTENT


def test_a_finished_download_that_ends_with_zeros_is_not_shortened(place: Place) -> None:
    content = CONTENT + bytes(100)
    place.publish("padded", file=content)
    place.put(place.part("padded", "file.gguf"), content)
    place.put(place.final(), CONTENT)
    place.fetch()
    assert place.hub.asked == []


def test_a_file_that_an_owner_copied_there_is_hashed_and_believed_without_the_network(place: Place) -> None:
    place.put(place.final(), CONTENT)
    place.fetch()
    assert place.hub.asked == []
    assert place.ask("status")["models"] == {"tiny": {"verified": True, "failure": None}}


def test_a_wrong_file_under_the_final_name_is_replaced_and_kept_under_its_hash(place: Place) -> None:
    place.put(place.final(), b"someone's only copy")
    place.fetch()
    kept = fetching.aside(place.final(), hashlib.sha256(b"someone's only copy").hexdigest())
    assert place.final().read_bytes() == CONTENT
    assert kept.read_bytes() == b"someone's only copy"


def test_going_back_to_an_earlier_version_asks_nobody(place: Place) -> None:
    place.fetch()
    old = place.manifest
    place.change(models=())
    place.hub.state.published.clear()
    place.publish("tiny", tiny=OTHER)
    place.fetch()
    assert place.final().read_bytes() == OTHER
    place.manifest = old
    asked = len(place.hub.asked)
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert len(place.hub.asked) == asked


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_file_that_changed_after_it_was_verified_is_found_out(place: Place, keep_times: bool) -> None:
    place.fetch()
    stat = place.final().stat()
    place.final().write_bytes(bytes(len(CONTENT)))
    if keep_times:
        os.utime(place.final(), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    place.fetch()
    assert place.final().read_bytes() == CONTENT


def test_a_damaged_record_only_means_that_the_file_is_read_again(place: Place) -> None:
    place.fetch()
    asked = len(place.hub.asked)
    for damage in ("", "{", "[]", '{"files": {"tiny.gguf": 1}}'):
        (place.records.directory / "tiny.verified").write_text(damage)
        place.fetch()
        assert place.ask("status")["models"]["tiny"]["verified"]
    assert len(place.hub.asked) == asked


# The backup


def test_the_backup_is_asked_before_the_hub(place: Place) -> None:
    place.put(place.saved(), CONTENT)
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert place.hub.asked == []


def test_the_backup_completes_an_unfinished_download(place: Place) -> None:
    place.put(place.part(), CONTENT[:HALF])
    place.put(place.saved(), CONTENT)
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert place.hub.asked == []


def test_a_wrong_backup_costs_nothing_of_what_was_fetched(place: Place) -> None:
    place.put(place.part(), CONTENT[:HALF])
    place.put(place.saved(), bytes(len(CONTENT)))
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert place.hub.begun_at == [HALF]


@pytest.mark.parametrize("left", [0, HALF])
@pytest.mark.parametrize("step", ["look", "clone", "copy"])
def test_a_backup_that_cannot_be_read_leaves_it_to_the_hub(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str, left: int
) -> None:
    """As a failing disk does it, or a share whose server is gone: with an error, after some bytes."""

    def broken(self: Fetcher, source: Path, unfinished: Part, job: Job) -> None:
        unfinished.append(CONTENT[unfinished.size :][:1000])
        raise OSError(errno.EIO, "Input/output error")

    real = Path.stat

    def stale(path: Path, **options: Any) -> os.stat_result:
        if path == place.saved():
            raise OSError(errno.ESTALE, "Input/output error")
        return real(path, **options)

    def closed(*_: object) -> bool:
        raise PermissionError(errno.EACCES, "Input/output error")

    place.put(place.saved(), CONTENT)
    if left:
        place.put(place.part(), CONTENT[:left])
    monkeypatch.setattr(Fetcher, "_copy", broken)
    if step == "look":
        monkeypatch.setattr(Path, "stat", stale)
    elif step == "clone":
        monkeypatch.setattr(files, "clone", closed)
    place.fetch()
    monkeypatch.undo()
    assert f"{place.saved()} cannot be read (Input/output error); it is left alone, and" in capsys.readouterr().err
    assert place.final().read_bytes() == CONTENT
    assert place.hub.begun_at == [left]


def test_a_target_that_is_full_is_not_taken_for_a_broken_backup(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    place.put(place.saved(), CONTENT)
    monkeypatch.setattr(Part, "append", full)
    with pytest.raises(Failed, match="the disk is full"):
        place.fetch()
    assert place.hub.asked == []


@pytest.mark.parametrize("left", [bytes(HALF), bytes(len(CONTENT))])
def test_a_spoilt_unfinished_download_is_taken_anew_from_a_right_backup(
    place: Place, capsys: pytest.CaptureFixture[str], left: bytes
) -> None:
    """As after a power cut: of the right length, and not what was written."""
    place.put(place.part(), left)
    place.put(place.saved(), CONTENT)
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert place.hub.asked == []
    assert "not what is pinned" not in capsys.readouterr().err


def test_blocks_are_shared_where_the_file_system_can(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def cloned(source: Path, descriptor: int) -> bool:
        os.write(descriptor, source.read_bytes())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return True

    monkeypatch.setattr(files, "clone", cloned)
    place.put(place.saved(), CONTENT)
    place.fetch()
    assert place.final().read_bytes() == CONTENT


def test_a_file_system_that_cannot_share_blocks_says_so(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    with (tmp_path / "target").open("wb") as target:
        shared = clone(tmp_path / "source", target.fileno())
    assert shared == ((tmp_path / "target").read_bytes() == b"x")


# Hashing


@pytest.mark.parametrize("past_memory", [True, False])
@pytest.mark.parametrize(
    "size", [0, 1, 511, 512, 4095, 4096, 4097, *(files.DIRECT + more for more in (-1, 0, 1)), 2 * files.DIRECT + 513]
)
def test_a_file_of_any_size_is_hashed_to_its_last_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, past_memory: bool
) -> None:
    """Past memory, bytes are read in whole blocks; a file system that cannot do that says so, sooner or later."""
    real = os.preadv

    def refusing(descriptor: int, buffers: Any, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, buffers, offset)

    if not past_memory:
        monkeypatch.setattr(os, "preadv", refusing)
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    advanced: list[int] = []
    assert files.digest(tmp_path / "file", advanced.append) == hashlib.sha256(content).hexdigest()
    assert sum(advanced) == size


def test_a_file_that_cannot_be_read_is_an_error_and_not_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int, buffers: Any, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(OSError, match="Input/output error"):
        files.digest(tmp_path / "file", lambda _: None)


# Space


def test_too_little_space_is_told_before_the_first_byte(place: Place) -> None:
    place.publish("second", one=OTHER)
    place.put(place.part(), CONTENT[:HALF])
    needed = len(CONTENT) - HALF + len(OTHER)
    with pytest.raises(Failed, match=r"2\.6 MB are missing and .* has 2\.6 MB free; free 1 B"):
        place.fetch(free=lambda _: needed - 1)
    assert place.hub.asked == []
    place.fetch(free=lambda _: needed)


def test_a_disk_that_fills_up_later_leaves_other_files_intact_and_keeps_what_is_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.publish("second", one=OTHER)
    place.limit(parallel=1)
    real = os.write

    def write(descriptor: int, data: Any) -> int:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if path == str(place.part()) and os.fstat(descriptor).st_size > HALF:
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(Failed, match=r"tiny/tiny\.gguf: the disk is full; free .*B, and it goes on from where it is"):
        place.fetch()
    monkeypatch.undo()
    assert place.final("second", "one.gguf").read_bytes() == OTHER
    assert place.part().stat().st_size > HALF
    place.fetch()
    assert place.final().read_bytes() == CONTENT
    assert place.hub.begun_at[-1] > HALF


# Gated repositories


def _gate(status: HTTPStatus) -> dict[str, Any]:
    """A hub that wants the token `secret`, and keeps its files on another host."""

    def _resolve(self: lab.hub.Handler, repository: str, revision: str, file: str) -> None:
        if self.headers.get("Authorization") != "Bearer secret":
            self._refuse(status, "gated")
            return
        self.send_response(HTTPStatus.FOUND)
        port = self.headers["Host"].partition(":")[2]
        expires = 1 << 40
        digest = self.state.published[0].sha256
        signature = self.state.sign(digest, expires)
        self.send_header("Location", f"http://localhost:{port}/blob/{digest}?expires={expires}&signature={signature}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    return {"_resolve": _resolve}


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
def test_a_gated_repository_says_where_the_licence_is(tmp_path: Path, status: HTTPStatus) -> None:
    with serving(_gate(status)) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        with pytest.raises(
            Failed, match=f"answers {status.value} .*accept the licence at {running.address}/{REPOSITORY}"
        ):
            place.fetch()
        with pytest.raises(Failed, match="with the account of your token"):
            place.fetch(token="other")
        assert len(running.asked) == 2


@pytest.mark.parametrize(
    ("status", "headers", "sentence"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, "the hub has no repository made/up, or it is private"),
        (404, {"X-Error-Code": "RepoNotFound"}, "the hub has no repository made/up, or it is private"),
        (404, {"X-Error-Code": "RevisionNotFound"}, "made/up has no revision aaaa.*pin another one"),
        (404, {"X-Error-Code": "EntryNotFound"}, r"made/up has no tiny\.gguf at aaaa"),
        (401, {"X-Error-Code": "GatedRepo"}, "accept the licence at"),
        (403, {"X-Error-Code": "GatedRepo"}, "accept the licence at"),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "does not know this token"),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, "has disabled made/up"),
    ],
)
def test_the_hubs_own_reason_is_told(tmp_path: Path, status: int, headers: dict[str, str], sentence: str) -> None:
    def _resolve(self: lab.hub.Handler, *asked: str) -> None:
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    with serving({"_resolve": _resolve}) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        with pytest.raises(Failed, match=f"answers {status} .*{sentence}") as refused:
            place.fetch()
        assert ("licence" in str(refused.value)) == ("GatedRepo" in headers.values())
        assert len(running.asked) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0),
        ({"Retry-After": "7"}, 7),
        ({"RateLimit": '"api";r=0;t=55'}, 55),
        ({"RateLimit": '"api"; r=0; t=55'}, 55),
        ({"RateLimit": '"resolvers";r=12;t=100, "api";r=0;pk=:YQ==:;t=55'}, 55),
        ({"RateLimit": '"api";r=3;t=55'}, 0),
        ({"RateLimit": '"api";r=0;t=55', "Retry-After": "3"}, 3),
        ({"RateLimit": "soon"}, 0),
    ],
)
def test_a_server_is_left_alone_as_long_as_either_header_says(headers: dict[str, str], seconds: float) -> None:
    assert hub.rest(headers) == seconds


@pytest.mark.parametrize("status", [HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.TEMPORARY_REDIRECT])
def test_a_renamed_repository_is_fetched_under_its_new_name(tmp_path: Path, status: HTTPStatus) -> None:
    real = lab.hub.Handler._resolve

    def _resolve(self: lab.hub.Handler, repository: str, revision: str, file: str) -> None:
        if repository == REPOSITORY:
            self.send_response(status)
            self.send_header("Location", self.path.replace(REPOSITORY, "new/name"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        real(self, REPOSITORY, revision, file)

    with serving({"_resolve": _resolve}) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        place.fetch()
        assert place.final().read_bytes() == CONTENT


def test_the_token_goes_to_the_hub_and_to_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine localhost login someone password theirs\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(_gate(HTTPStatus.UNAUTHORIZED)) as running:
        place = Place(tmp_path, running)
        place.publish("tiny", tiny=CONTENT)
        place.fetch(token="secret")
        assert [(request.host, request.authorization) for request in running.asked] == [
            ("127.0.0.1", "Bearer secret"),
            ("localhost", None),
        ]


def test_a_token_is_read_from_a_file_that_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "token"
    assert hub.token(None) is None
    assert hub.token(path) is None
    path.write_text("hf_secret\n")
    path.chmod(0o600)
    assert hub.token(path) == "hf_secret"
    path.chmod(0o640)
    with pytest.raises(BadInput, match=r"chmod 0600") as refused:
        hub.token(path)
    assert "hf_secret" not in str(refused.value)
    path.chmod(0o600)
    path.write_text("two\nlines")
    with pytest.raises(BadInput, match="does not hold a token"):
        hub.token(path)


# Together


def test_files_are_fetched_side_by_side_and_one_that_fails_does_not_stop_the_others(place: Place) -> None:
    place.publish("second", one=OTHER)
    place.hub.state.published = [entry for entry in place.hub.state.published if entry.file != "tiny.gguf"]
    with pytest.raises(Failed, match="404"):
        place.fetch()
    assert place.final("second", "one.gguf").read_bytes() == OTHER


def test_the_rate_is_kept_by_all_files_together(place: Place) -> None:
    waited = 0.0

    class Clockwork(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            nonlocal waited
            waited = max(waited, timeout or 0)
            return False

    place.publish("second", one=OTHER)
    place.limit(bytes_per_second=len(CONTENT))
    place.fetch(stop=Clockwork())
    # Nobody really waits here: the longest wait that was asked for is the time at which the last byte is due.
    assert waited == pytest.approx((len(CONTENT) + len(OTHER)) / len(CONTENT), rel=0.35)


def test_two_fetches_at_once_exclude_each_other_by_name_of_the_holder(place: Place) -> None:
    place.hub.fault(bytes_per_second=200_000)
    first = place.start("fetch", stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not place.part().exists():
            assert first.poll() is None
        second = place.run("fetch")
        assert second.returncode == 1
        assert f"another rig-models is at work (PID {first.pid})" in second.stderr
        assert place.ask("status")["holder"] == first.pid
        waiting = place.start("fetch", "--wait", stderr=subprocess.DEVNULL)
    finally:
        first.kill()
        first.wait()
    place.hub.fault()
    assert waiting.wait(30) == 0
    assert place.final().read_bytes() == CONTENT
    assert lock.holder(place.records.directory) is None


def test_patience_grows_and_is_left_to_chance() -> None:
    waits: list[float] = []

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            return False

    patience = Patience(9, Watched())
    for _ in range(8):
        patience.after(Trouble("busy"), fruitful=False)
    with pytest.raises(Trouble):
        patience.after(Trouble("busy"), fruitful=False)
    bounds = [min(60, 2**attempt) for attempt in range(8)]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    assert len({wait / bound for wait, bound in zip(waits, bounds, strict=True)}) > 1
