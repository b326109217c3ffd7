"""Settings of the concern `storage`: free space, and the folders of models and backups."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rig.settings.types import AbsolutePath, Mode, Section, Shape, Size, UserName

MountSource = Annotated[
    str,
    Shape(
        r"(UUID|LABEL)=[A-Za-z0-9._-]+",
        "a file system named by UUID or label",
        "UUID=... or LABEL=..., as `lsblk -f` shows them",
    ),
]
MountOption = Annotated[str, Shape(r"[A-Za-z0-9_.=:/@-]+", "a mount option", "one such as noatime")]


class Mount(Section):
    """A file system that is mounted at the folder."""

    source: MountSource = Field(description="The file system, as UUID=... or LABEL=...; device names change.")
    filesystem: Literal["ext4", "xfs", "btrfs"] = Field(default="ext4", description="Type of the file system.")
    options: tuple[MountOption, ...] = Field(
        default=("noatime", "nofail"), description="Mount options, as in fstab, one each."
    )


class Folder(Section):
    """A folder for large files."""

    path: AbsolutePath = Field(description="Where the folder lies on the machine, absolute path.")
    mount: Mount | None = Field(description="The file system mounted there; null when somebody else mounts it.")
    must_be_mount: bool = Field(
        description="Refuse to deploy, true or false, while the folder is not a mount of its own."
    )
    owner: UserName = Field(description="User who owns the folder.")
    group: UserName = Field(description="Group that owns the folder.")
    mode: Mode = Field(description="Permissions of the folder, octal digits in quotes.")

    @property
    def is_disk(self) -> bool:
        """Whether another disk is meant, and not the folder under its mount point."""
        return self.must_be_mount or self.mount is not None


class Storage(Section):
    """Free space, and the folders of models and backups."""

    system_free: Size = Field(description="Space that must be free on / before a first deploy, as a size such as 10G.")
    models: Folder = Field(description="The folder of the model files.")
    backup: Folder = Field(description="The folder of the backups.")
