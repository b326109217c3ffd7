"""A folder that must be a disk's is one only while a disk is mounted there."""

from __future__ import annotations

import pytest

from rigd.base.mounts import missing

AUTOFS = "41 26 0:38 / /mnt/models rw,relatime shared:20 - autofs systemd-1 rw,fd=50,pgrp=1,timeout=0"
DISK = "62 41 8:17 / /mnt/models rw,noatime shared:33 - ext4 /dev/sdb1 rw"
BLANK = DISK.replace("/mnt/models", "/mnt/my\\040models")


@pytest.mark.parametrize(
    ("path", "mounts", "there"),
    [
        ("/mnt/models", DISK, True),
        ("/mnt/models", f"{AUTOFS}\n{DISK}", True),
        ("/mnt/models", AUTOFS, False),
        ("/mnt/my models", BLANK, True),
        ("/mnt/my", BLANK, False),
        ("/mnt/models", "", False),
    ],
)
def test_a_disk_is_there_when_one_is_mounted_and_automount_is_none(path: str, mounts: str, there: bool) -> None:
    said = missing(path, "storage.models.must_be_mount", mounts)
    assert (said is None) == there
    assert there or f"{path} is not mounted, and storage.models.must_be_mount asks for a disk" in str(said)
