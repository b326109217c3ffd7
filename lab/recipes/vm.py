"""Disks of whole machines: the bare Debian of the container, with a kernel of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.cache import Cache, Note, recipe_source, run
from lab.recipes import debian
from lab.recipes.debian import apt_options

# qemu-guest-agent: how the lab runs commands without the network. zstd: the initramfs is unpacked fastest. dkms with
# headers, which bring a compiler: to unpack these takes a quarter of an hour under emulation.
KERNEL = (
    "linux-image-amd64",
    "initramfs-tools",
    "zstd",
    "qemu-guest-agent",
    "linux-headers-amd64",
    "dkms",
)
# Only what starts this machine, as the installer's choice of a targeted initramfs does: unpacking and remaking one
# with every driver there is takes minutes under emulation, and so does compressing it as well as one can.
_INITRAMFS = "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n"
_DRIVERS = "virtio_pci\nvirtio_blk\next4\n"
_FSTAB = "LABEL=lab / ext4 errors=remount-ro 0 1\n"


def bare(cache: Cache, release: str) -> Path:
    """A machine as the installer leaves it, kernel included: a disk image without partitions."""
    container = debian.bare(cache, release)

    def make(target: Path, note: Note) -> None:
        run(["cp", "--sparse=always", "--reflink=auto", container, target])
        with mounted(target) as root, _own_archive(root):
            give_kernel(root, note)

    recipe = [*recipe_source("vm"), container.name, *apt_options()]
    return cache.artefact(f"vm-{release}", f"Put a kernel on a bare Debian {release}", recipe, make)


def has_kernel(root: Path) -> bool:
    """Whether the root file system can start by itself."""
    return (root / "vmlinuz").is_symlink() and _FSTAB in (root / "etc/fstab").read_text()


def give_kernel(root: Path, note: Note) -> None:
    """Make a container's root file system one that starts by itself; its apt has to reach an archive."""
    etc = root / "etc/initramfs-tools"
    (etc / "conf.d").mkdir(parents=True, exist_ok=True)
    (etc / "conf.d/lab.conf").write_text(_INITRAMFS)
    run(["mount", "-t", "proc", "proc", root / "proc"])
    try:
        _install(root, KERNEL, note)
        (etc / "modules").write_text(_DRIVERS)
        run(["chroot", root, "update-initramfs", "-u"], note)
    finally:
        run(["umount", root / "proc"])
    fstab = root / "etc/fstab"
    before = fstab.read_text() if fstab.exists() else ""
    fstab.write_text(before if _FSTAB in before else _FSTAB + before)


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """The disk as a root file system; builds have mounts of their own."""
    root = image.with_name(f"{image.name}.root")
    root.mkdir(exist_ok=True)
    run(["mount", "-o", "loop,nobarrier", image, root])
    try:
        yield root
    finally:
        run(["umount", "--recursive", root])
        root.rmdir()


@contextmanager
def _own_archive(root: Path) -> Iterator[None]:
    """The root file system reaches the archive as the operator's machine does."""
    configuration = root / "etc/apt/apt.conf.d/00build"
    configuration.write_text("".join(f"{option};\n" for option in apt_options()))
    for name in ("etc/hosts", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)
        shutil.copy(f"/{name}", root / name)
    yield
    configuration.unlink()


def _install(root: Path, packages: tuple[str, ...], note: Note) -> None:
    """Install packages in the root file system; no service starts."""
    refusal = root / "usr/sbin/policy-rc.d"
    refusal.write_text("#!/bin/sh\nexit 101\n")
    refusal.chmod(0o755)
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    apt: list[str | Path] = ["chroot", root, "apt-get", "--quiet=2"]
    run([*apt, "update"], note)
    run([*apt, "install", "--yes", "--no-install-recommends", *packages], note, environment)
    run([*apt, "clean"], note)
    refusal.unlink()
