"""Concern storage: folders exist with their owners, and are mounted if they must be."""

from __future__ import annotations

from rig.settings import Settings, size_bytes
from rig.settings.storage import Folder
from tests.host.machine import Machine


def _folder(settings: Settings, name: str) -> Folder:
    return settings.storage.models if name == "models" else settings.storage.backup


def test_folder_has_owner_and_permissions(machine: Machine, settings: Settings, folder: str) -> None:
    wanted = _folder(settings, folder)
    mode, owner, group = machine.stat(wanted.path).split()
    assert (mode.zfill(4), owner, group) == (wanted.mode, wanted.owner, wanted.group)


def test_folder_is_a_folder_and_no_link_to_one(machine: Machine, settings: Settings, folder: str) -> None:
    assert machine.run(f"stat -c %F {_folder(settings, folder).path}") == "directory"


def test_folder_can_be_written_to(machine: Machine, settings: Settings, folder: str) -> None:
    assert "ro" not in machine.run(f"findmnt -n -o OPTIONS --target {_folder(settings, folder).path}").split(",")


def test_folder_that_must_be_a_mount_is_one(machine: Machine, settings: Settings, mounted_folder: str) -> None:
    path = _folder(settings, mounted_folder).path
    assert machine.run(f"findmnt -n -o TARGET --mountpoint {path} || true") == path


def test_folder_is_the_file_system_that_the_settings_name(
    machine: Machine, settings: Settings, mounted_folder: str
) -> None:
    wanted = _folder(settings, mounted_folder)
    if wanted.mount is not None:
        kind, _, value = wanted.mount.source.partition("=")
        found = machine.run(f"findmnt -n -o {kind},FSTYPE --mountpoint {wanted.path}").split()
        assert found == [value, wanted.mount.filesystem]


def test_mount_comes_back_after_a_boot(machine: Machine, settings: Settings, mounted_folder: str) -> None:
    wanted = _folder(settings, mounted_folder)
    if wanted.mount is not None:
        unit = machine.run(f"systemd-escape --path --suffix=mount {wanted.path}")
        assert machine.unit(unit, "ActiveState", "UnitFileState", "NeedDaemonReload") == {
            "ActiveState": "active",
            "UnitFileState": "enabled",
            "NeedDaemonReload": "no",
        }


def test_rigs_own_folder_is_roots_alone_to_change(machine: Machine) -> None:
    assert machine.stat("/etc/rig") == "755 root root"


def test_system_disk_is_not_full(machine: Machine) -> None:
    """With less space than this, the journal and the package manager begin to fail."""
    assert int(machine.run("df -B1 --output=avail / | tail -n 1")) > size_bytes("512M")
