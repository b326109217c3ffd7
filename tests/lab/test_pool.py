"""The file that holds all disks: mounted by many as one, shared by copies, and emptied of unwanted disks."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machine import CHECKOUT, elevated
from tests.lab.traces import eventually

# A lab's namespace: mounts the pool of the cache, and executes its input, a statement a line.
HOLDER = """
import sys
from pathlib import Path
from lab import pool
cache = Path(sys.argv[1])
pool.attach(cache)
def fails(source, owner):
    try:
        pool.copy(source, owner, cache)
    except pool.LabError:
        return True
print("attached", flush=True)
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""
SIZE = 4 << 20


class Holder:
    def __init__(self, cache: Path) -> None:
        self._process = subprocess.Popen(
            elevated("unshare", "--mount", sys.executable, "-B", "-c", HOLDER, cache),
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "attached\n"

    def do(self, statement: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{statement}\n")
        self._process.stdin.flush()
        assert self._read() == "done\n"

    def copy(self, source: Path, owner: Path) -> None:
        self.do(f"pool.copy(Path({str(source)!r}), Path({str(owner)!r}), cache)")

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """The cache of a pool that does not exist yet, beside an image."""
    (tmp_path / "image").write_bytes(bytes(range(256)) * (SIZE // 256))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def holders(pool: Path) -> Iterator[list[Holder]]:
    """Two holders that attach the same pool at the same moment."""
    found: list[Holder] = []
    threads = [threading.Thread(target=lambda: found.append(Holder(pool))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    yield found
    for holder in found:
        holder.kill()


def devices(cache: Path) -> list[str]:
    """Loop devices of the pool's file."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return [str(path) for path in backing if path.read_text().strip() == str(cache / "disks.xfs")]


def test_two_that_mount_it_have_one_file_system_which_goes_with_the_last_of_them(
    pool: Path, holders: list[Holder], tmp_path: Path
) -> None:
    first, second = holders
    assert len(devices(pool)) == 1
    first.copy(tmp_path / "image", tmp_path / "disk")
    second.do("assert Path(cache.parent / 'disk').read_bytes() == Path(cache.parent / 'image').read_bytes()")
    assert not (tmp_path / "disk").exists(), "the operator's machine has a mount of it"
    first.kill()
    second.do("assert Path(cache.parent / 'disk').stat().st_size == 4 << 20")
    assert len(devices(pool)) == 1
    second.kill()
    eventually(lambda: devices(pool))
    third = Holder(pool)
    third.do("assert Path(cache.parent / 'disk').read_bytes() == Path(cache.parent / 'image').read_bytes()")
    third.kill()


def test_a_copy_that_fails_leaves_no_link_and_an_older_disk_in_place(pool: Path, tmp_path: Path) -> None:
    holder = Holder(pool)
    holder.copy(tmp_path / "image", tmp_path / "disk")
    for name, there in (("disk", True), ("new", False)):
        holder.do(f"assert fails(Path('/nowhere'), cache.parent / '{name}')")
        assert (tmp_path / name).is_symlink() is there
    holder.do("assert (cache.parent / 'disk').stat().st_size == 4 << 20")
    holder.kill()


def test_a_copy_of_a_disk_takes_no_space(pool: Path, tmp_path: Path) -> None:
    holder = Holder(pool)
    holder.copy(tmp_path / "image", tmp_path / "disk")
    holder.do("import os; before = os.statvfs(pool.folder(cache)).f_bavail; disk = cache.parent / 'disk'")
    for number in range(8):
        holder.copy(tmp_path / "disk", tmp_path / f"copy-{number}")
    holder.do("taken = (before - os.statvfs(pool.folder(cache)).f_bavail) * 4096")
    holder.do(f"assert taken < {SIZE}, taken")
    holder.do("assert (cache.parent / 'copy-7').read_bytes() == disk.read_bytes()")
    holder.kill()


def test_a_disk_whose_link_is_gone_is_removed_by_the_next_that_mounts_it(pool: Path, tmp_path: Path) -> None:
    first = Holder(pool)
    for name in ("kept", "gone"):
        first.copy(tmp_path / "image", tmp_path / name)
    (tmp_path / "gone").unlink()
    second = Holder(pool)
    second.do("left = sorted(path.name for path in pool.folder(cache).rglob('*') if path.is_file())")
    second.do("assert left == ['kept'], left")
    for holder in (first, second):
        holder.kill()
