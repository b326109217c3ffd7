"""The disk for backups: it may be missing, full, or removed at any moment."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from rigd.backup.config import Config
from rigd.base import mounts as disks
from rigd.base.errors import Failed

MODELS = Path("models")
"""Below the target, in the layout that rig-models searches before the hub."""
REPOSITORY = Path("restic")
"""Below the target: the encrypted part."""

PROBE = Path(".rig-backup-probe")
"""Below the target, for a moment: a file that proves that the disk can be written."""
SYSTEM_RESERVE = 2 << 30
"""Bytes that stay free on the system disk."""


def problem(config: Config, to_write: bool = True, mounts: str | None = None) -> str | None:
    """Why the target is unusable, with the remedy; None if it is usable. `mounts`: the text of /proc/self/mountinfo."""
    path = config.target
    if not Path(path).is_dir():
        return f"there is no folder {path}; mount the backup disk, or let a deploy make the folder"
    if config.must_be_mount and (missing := disks.missing(path, "storage.backup", mounts)) is not None:
        return missing
    if to_write and os.statvfs(path).f_flag & os.ST_RDONLY:
        return (
            f"{path} is mounted read-only, as a disk becomes that fails; look for its errors (journalctl -k), check "
            "it (fsck), and mount it again"
        )
    return None


def enter(config: Config, to_write: bool = True) -> None:
    """Make the target the working directory. Raises Failed if it is unusable.

    All later paths are relative to it: if the disk is unmounted halfway, they do not begin to name the folder under the
    mount point, on the system disk.
    """
    try:
        found = problem(config, to_write)
        if found is None:
            os.chdir(config.target)
    except OSError as error:
        found = f"{config.target}: {error.strerror}"
    if found is not None:
        raise Failed(found)


def still_there(config: Config) -> bool:
    """True if the working directory is still the folder at the target's path."""
    with suppress(OSError):
        return os.path.samestat(Path().stat(), Path(config.target).stat())
    return False


def refusal() -> str | None:
    """Why the working directory cannot be written; None if it can, or is merely full.

    The mount flags do not show it: newer kernels no longer mark a file system read-only that was shut down after an
    error.
    """
    try:
        with PROBE.open("wb") as file:
            file.write(b"?")
            file.flush()
            os.fsync(file.fileno())
        PROBE.unlink()
    except OSError as error:
        return None if error.errno == errno.ENOSPC else os.strerror(error.errno or errno.EIO)
    return None


def free() -> int:
    """Bytes that may be written to the working directory; the system disk keeps its reserve."""
    found = os.statvfs(".")
    reserve = SYSTEM_RESERVE if Path().stat().st_dev == Path("/").stat().st_dev else 0
    return max(0, found.f_bavail * found.f_frsize - reserve)


def shared_with_system(config: Config) -> bool:
    """True if the backup is on the disk that it is meant to replace."""
    with suppress(OSError):
        return Path(config.target).stat().st_dev == Path("/").stat().st_dev
    return False
