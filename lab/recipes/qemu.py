"""The emulator with its firmware, and the boot partition, of one release whatever the operator's machine is."""

from __future__ import annotations

from pathlib import Path

from lab.cache import BuildError, Cache, Note, recipe_source, run
from lab.recipes.debian import debootstrap

RELEASE = "trixie"
PACKAGES = (
    "qemu-system-x86",
    "ovmf",
    "python3-virt-firmware",
    "shim-signed",
    "grub-efi-amd64-signed",
    "dosfstools",
    "mtools",
)
# Where a lab's directory is seen by the emulator.
LAB = "lab"
BOOT_PARTITION = "boot.img"
_KIBIBYTES = 16384
# What a kernel's package keeps at the top of the disk is the newest, as on an installed machine after update-grub.
# There is no processor whose faults would have to be worked around, which is slow under emulation.
_MENU = """set timeout=0
search --no-floppy --label lab --set=root
linux /vmlinuz root=LABEL=lab ro console=ttyS0 quiet mitigations=off
initrd /initrd.img
boot
"""
_SHIM = "/usr/lib/shim"
_GRUB = "/usr/lib/grub/x86_64-efi-signed"


def tree(cache: Cache) -> Path:
    """A root file system with QEMU, OVMF and the tool for its variables; `boot.img` in it starts a disk's kernel."""

    def make(target: Path, note: Note) -> None:
        if run(["dpkg", "--print-architecture"]).strip() != "amd64":
            raise BuildError("a whole machine is emulated on amd64 only; use the lab without --vm")
        debootstrap(RELEASE, target, "apt", PACKAGES, note)
        (target / LAB).mkdir()
        _boot_partition(target)

    return cache.artefact("qemu", "Fetch the emulator", recipe_source("debian", "qemu"), make)


def _boot_partition(target: Path) -> None:
    """Debian's signed shim and boot loader where firmware looks on a disk that it knows nothing of."""
    image, menu = f"/{BOOT_PARTITION}", "/grub.cfg"
    (target / menu.lstrip("/")).write_text(_MENU)
    inside: list[str | Path] = ["chroot", target]
    run([*inside, "mkfs.vfat", "-C", "-n", "BOOT", image, str(_KIBIBYTES)])
    run([*inside, "mmd", "-i", image, "::EFI", "::EFI/BOOT", "::EFI/debian"])
    for source, name in (
        (f"{_SHIM}/shimx64.efi.signed", "EFI/BOOT/BOOTX64.EFI"),
        (f"{_SHIM}/mmx64.efi.signed", "EFI/BOOT/mmx64.efi"),
        (f"{_GRUB}/grubx64.efi.signed", "EFI/BOOT/grubx64.efi"),
        (menu, "EFI/debian/grub.cfg"),
    ):
        run([*inside, "mcopy", "-i", image, source, f"::{name}"])
