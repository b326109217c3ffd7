"""Concern storage: the disks for models and backups, and their directories."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern
from pyinfra.operations import files

from rig.operations import units
from rig.operations.files import written
from rig.render import render
from rig.settings import Settings
from rig.settings.storage import Folder
from rig.systemd import mounts

RIG = "/etc/rig"


@concern("storage")
def deploy(settings: Settings) -> None:
    """Both directories, mounted if the settings name a disk; and Rig's own."""
    files.directory(name=f"Create {RIG}", path=RIG, user="root", group="root", mode="755")
    for folder in (settings.storage.models, settings.storage.backup):
        if folder.mount is not None:
            _mount(folder)
        files.directory(
            name=f"Create {folder.path}",
            path=folder.path,
            user=folder.owner,
            group=folder.group,
            mode=folder.mode,
        )


def _mount(folder: Folder) -> None:
    assert folder.mount is not None
    unit = mounts.unit_name(folder.path)
    text = render(
        "/etc/systemd/system/MOUNT.mount",
        where=folder.path,
        device=mounts.device(folder.mount.source),
        filesystem=folder.mount.filesystem,
        options=folder.mount.options,
    )
    dest = f"/etc/systemd/system/{unit}"
    written(name=f"Write {dest}", path=dest, text=text)
    units.running(name=f"Mount {folder.path}", unit=unit)
