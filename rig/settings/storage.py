"""Settings of the concern `storage`: free space, and the folders of models and backups."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rig.settings.folders import Owner, StoragePath
from rig.settings.types import Mode, Section, Shape, Size, sized

MountSource = Annotated[
    str,
    Shape(
        r"(UUID|LABEL)=[A-Za-z0-9._-]{1,255}",
        "a file system named by UUID or label",
        "UUID=... or LABEL=..., as `lsblk -f` shows them",
    ),
]
USELESS_OPTIONS = {
    "ro": "nothing could be written to it",
    "norecovery": "it goes with ro only",
    "noload": "it goes with ro only",
    "remount": "there is nothing to mount again",
    "bind": "the source is a disk",
    "rbind": "the source is a disk",
    "move": "the source is a disk",
    "user": "it is for fstab, and anybody could unmount it",
    "users": "it is for fstab, and anybody could unmount it",
    "noauto": "the deploy mounts it",
}
"""Mount options that defeat the mount's purpose, with reasons."""


def _useful(option: str) -> str:
    """A mount option that leaves the folder writable."""
    reason = USELESS_OPTIONS.get(option.lower())
    if reason is not None:
        raise ValueError(f"'{option}' does not go with a folder that Rig writes to, as {reason}; remove it")
    return option


MountOption = Annotated[
    str, Shape(r"[A-Za-z0-9_.=:/@-]{1,200}", "a mount option", "one such as noatime"), AfterValidator(_useful)
]


def _kept(mode: str) -> str:
    """Permissions that admit the owner, and let nobody else write."""
    special, owner, _, others = map(int, mode)
    if special & 4:
        raise ValueError(f"{mode} has the set-user-ID bit, which means nothing for a folder; write {mode[1:]!r}")
    if owner != 7:
        raise ValueError(f'{mode} keeps the owner out; write one that begins with 7, such as "0755"')
    if others & 2:
        raise ValueError(f'{mode} lets everybody write; write one such as "0755"')
    return mode


def _closed(mode: str) -> str:
    """Permissions that admit only the owner and the group."""
    if int(mode[-1]):
        sentence = f"{mode} lets everybody look into the backup, which may hold what the original hid"
        raise ValueError(f'{sentence}; write "0700", or "0750" for a group')
    return mode


class Mount(Section):
    """A file system that is mounted at the folder."""

    source: MountSource = Field(description="The file system, as UUID=... or LABEL=...; device names change.")
    filesystem: Literal["ext4", "xfs", "btrfs"] = Field(default="ext4", description="Type of the file system.")
    options: tuple[MountOption, ...] = Field(
        default=("noatime", "nofail"), description="Mount options, as in fstab, one each."
    )


class Folder(Section):
    """A folder for large files."""

    path: StoragePath = Field(description="Where the folder lies on the machine, absolute path.")
    mount: Mount | None = Field(description="The file system mounted there; null when somebody else mounts it.")
    must_be_mount: bool = Field(
        description="Refuse to deploy, true or false, while the folder is not a mount of its own."
    )
    owner: Owner = Field(description="User who owns the folder.")
    group: Owner = Field(description="Group that owns the folder.")
    mode: Annotated[Mode, AfterValidator(_kept)] = Field(
        description="Permissions of the folder, octal digits in quotes."
    )

    @property
    def is_disk(self) -> bool:
        """Whether it is a separate disk, and not the folder under its mount point."""
        return self.must_be_mount or self.mount is not None


class BackupFolder(Folder):
    """The folder of the backups, closed to everybody else."""

    mode: Annotated[Mode, AfterValidator(_kept), AfterValidator(_closed)] = Field(
        description="Permissions of the folder, octal digits in quotes."
    )


class Storage(Section):
    """Free space, and the folders of models and backups."""

    system_free: Annotated[Size, sized("1K", "100T", "nothing fits into it")] = Field(
        description="Space that must be free on / before a first deploy, as a size such as 10G."
    )
    models: Folder = Field(description="The folder of the model files.")
    backup: BackupFolder = Field(description="The folder of the backups.")
