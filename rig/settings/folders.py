"""Folders and accounts of the system or of Rig itself, which models and backups cannot have."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from rig.settings.problems import show
from rig.settings.types import AbsolutePath, UserName

KERNEL = ("/dev", "/proc", "/run", "/sys", "/var/run", "/var/lock")
"""Folders in memory only: gone at the next boot, and endless to copy."""

CLOSED = {
    **dict.fromkeys(KERNEL, "is gone at the next boot"),
    **dict.fromkeys(("/tmp", "/var/tmp"), "is emptied by the system, and each sandbox has its own"),
    **dict.fromkeys(
        (
            "/bin",
            "/boot",
            "/efi",
            "/etc",
            "/lib",
            "/lib32",
            "/lib64",
            "/libx32",
            "/lost+found",
            "/sbin",
            "/snap",
            "/usr",
        ),
        "belongs to the system",
    ),
    **dict.fromkeys(
        (
            "/var/backups",
            "/var/cache",
            "/var/log",
            "/var/mail",
            "/var/snap",
            "/var/spool",
            "/var/lib/alsa",
            "/var/lib/apparmor",
            "/var/lib/apt",
            "/var/lib/dbus",
            "/var/lib/dhcp",
            "/var/lib/dkms",
            "/var/lib/dpkg",
            "/var/lib/fwupd",
            "/var/lib/grub",
            "/var/lib/initramfs-tools",
            "/var/lib/lxc",
            "/var/lib/misc",
            "/var/lib/nvidia",
            "/var/lib/pam",
            "/var/lib/polkit-1",
            "/var/lib/private",
            "/var/lib/python",
            "/var/lib/shim-signed",
            "/var/lib/snapd",
            "/var/lib/sudo",
            "/var/lib/systemd",
            "/var/lib/ucf",
            "/var/lib/udisks2",
            "/var/lib/unattended-upgrades",
        ),
        "belongs to the system",
    ),
    **dict.fromkeys(
        ("/opt/containerd", "/var/lib/containerd", "/var/lib/containers", "/var/lib/docker"),
        "belongs to the container engine",
    ),
    **dict.fromkeys(("/opt/rig", "/var/lib/rig", "/usr/local/lib/rig"), "belongs to Rig itself"),
    **dict.fromkeys(("/var/lib/prometheus", "/var/lib/grafana"), "belongs to the monitoring"),
}
"""Folders that may contain nothing of the settings, with reasons."""

SHARED = ("/home", "/media", "/mnt", "/opt", "/root", "/srv", "/var", "/var/lib", "/var/local")
"""Folders shared with others: a subfolder is fine, they themselves are not."""

NOBODYS = ("nobody", "nogroup", "_apt")
"""Accounts that many programs share because they own nothing."""


def belongs(path: str) -> str | None:
    """Why a folder is not available, as the end of a sentence; None if it is."""
    wanted = PurePosixPath(path)
    for folder, reason in CLOSED.items():
        if wanted == PurePosixPath(folder):
            return f"{path} {reason}"
        if wanted.is_relative_to(folder):
            return f"{path} lies in {folder}, which {reason}"
    if path in SHARED:
        return f"{path} holds the folders of others, whose owner and permissions would change"
    inside = next((folder for folder in CLOSED if PurePosixPath(folder).is_relative_to(wanted)), None)
    return None if inside is None else f"{path} holds {inside}, which {CLOSED[inside]}"


def _free(path: str) -> str:
    """A folder that belongs to nobody else, with a mount unit whose name systemd accepts."""
    reason = belongs(path)
    if reason is not None:
        raise ValueError(f"{reason}; write a folder of its own, such as /mnt/models or /srv/models")
    # systemd escapes a character that is neither letter nor digit to four, and unit names have 255 at most.
    if sum(1 if character.isalnum() or character in "/_." else 4 for character in path) > 240:
        raise ValueError(f"{show(path)} is too long for the name of a mount; write a shorter one")
    return path


def _somebody(name: str) -> str:
    """An account that belongs to somebody."""
    if name in NOBODYS:
        raise ValueError(f"'{name}' is shared by programs that are to own nothing; write root, or an account of yours")
    return name


StoragePath = Annotated[AbsolutePath, AfterValidator(_free)]
Owner = Annotated[UserName, AfterValidator(_somebody)]
