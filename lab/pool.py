"""The disks of all labs of a cache, in one file with XFS: a copy there shares its blocks, and takes no time.

It is mounted in a lab's own namespace. Outside, a symbolic link stands for the disk: it leads nowhere there, and marks
the disk as wanted. A disk without a link is removed when a lab next mounts the file.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.commands import LabError, run

# The file's apparent size; it takes only as much as the disks hold, and gives back freed blocks.
SIZE = "64G"
# LOOP_GET_STATUS64 of linux/loop.h, whose answer begins with device and inode of the file behind a loop device.
_GET_STATUS, _STATUS_BYTES = 0x4C05, 232
_FILE = struct.Struct("=QQ")


def folder(cache: Path) -> Path:
    """Folder of the disks, visible only in a lab."""
    return cache / "disks"


def attach(cache: Path) -> None:
    """Mount the file in this namespace, creating it if needed, and remove unwanted disks."""
    file = cache / "disks.xfs"
    at = folder(cache)
    at.mkdir(parents=True, exist_ok=True)
    with _alone(cache):
        if not file.exists():
            _make(file)
        # One loop device for all labs: the kernel then has one file system with many mounts. Two devices of the same
        # file would each write their own version of it.
        with _device(file) as device:
            run("mount", "-t", "xfs", "-o", "discard,noatime", device, str(at))
        _sweep(at)


def copy(source: Path, owner: Path, cache: Path) -> None:
    """Copy the disk `source` into the pool, with the link `owner` to it; it gets its name when it is whole."""
    target = folder(cache) / owner.relative_to("/")
    beside = target.with_name(f"{target.name}.part")
    with _alone(cache):
        # The link first: any lab may remove a disk without one.
        link = owner.with_name(f".{owner.name}.link")
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        link.rename(owner)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
    try:
        run("cp", "--sparse=always", "--reflink=auto", str(source), str(beside))
    except LabError:
        beside.unlink()
        if not target.exists():
            owner.unlink()
        raise
    beside.rename(target)


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """A lock, so that one lab never removes the folder that another one makes."""
    with (cache / ".disks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(file: Path) -> None:
    beside = file.with_name(f".{file.name}.part")
    beside.unlink(missing_ok=True)
    run("truncate", f"--size={SIZE}", str(beside))
    run("mkfs.xfs", "-q", "-m", "reflink=1", str(beside))
    beside.rename(file)


@contextmanager
def _device(file: Path) -> Iterator[str]:
    """The loop device of the file, held against removal; afterwards it is released with its last mount."""
    found = _find(file)
    if found is None:
        run("losetup", "--find", str(file))
        found = _find(file)
    if found is None:
        raise LabError(f"{file} has no loop device, though losetup gave it one")
    name, held = found
    try:
        yield name
    finally:
        # A device in use is detached after its last use.
        run("losetup", "--detach", name)
        os.close(held)


def _find(file: Path) -> tuple[str, int] | None:
    """An existing loop device of the file, opened so that it stays attached."""
    status = file.stat()
    for entry in Path("/sys/block").glob("loop*/loop"):
        name = f"/dev/{entry.parent.name}"
        with suppress(OSError):
            held = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            with suppress(OSError):
                if _FILE.unpack_from(fcntl.ioctl(held, _GET_STATUS, bytes(_STATUS_BYTES))) == (
                    status.st_dev,
                    status.st_ino,
                ):
                    return name, held
            os.close(held)
    return None


def _sweep(at: Path) -> None:
    """Remove the disks without a link."""
    for disk in [path for path in at.rglob("*") if path.is_file()]:
        owner = Path("/") / disk.relative_to(at)
        if owner.suffix == ".part":
            owner = owner.with_suffix("")
        if not owner.is_symlink():
            disk.unlink()
            for parent in disk.parents:
                if parent == at:
                    break
                with suppress(OSError):
                    parent.rmdir()


def main() -> None:
    """Remove unwanted disks, in a mount namespace of its own."""
    cache = Path(sys.argv[1])
    if (cache / "disks.xfs").exists():
        attach(cache)


if __name__ == "__main__":
    try:
        main()
    except LabError as problem:
        sys.exit(f"lab: {problem}")
