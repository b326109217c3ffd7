"""The machine's disk: a copy of a bare Debian, and the few files that make it this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import time
from pathlib import Path

from lab.commands import LabError, run
from lab.recipes.debian import apt_options
from lab.spec import APT_PROXY_PORT, HUB, OPERATORS, PACKAGES, REGISTRY, Network, Spec

# slirp4netns answers at this address, and forwards to the name servers of the operator's machine.
RESOLVER = "10.0.2.3"
HOSTNAME = "rig-lab"
UNMOUNT_ATTEMPTS = 200
# FS_IOC_SHUTDOWN of linux/fs.h, and EXT4_GOING_FLAGS_NOLOGFLUSH: the journal is not written either.
_SHUTDOWN, _AT_ONCE = 0x8004587D, struct.pack("=I", 2)
STANDINS = Path(__file__).parent / "standins"
HARDWARE = "lab-hardware.service"
_HARDWARE = """[Unit]
Description=What programs see of firmware, PCI bus and kernel
DefaultDependencies=no
Before=sysinit.target systemd-modules-load.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-hardware boot
"""
_STATE = "/var/lib/rig-lab"
# The stand-in for nvidia-smi writes to places where a real card does not.
_COOL = f"""[Service]
ReadWritePaths={_STATE}
"""


def mount(spec: Spec) -> None:
    """Attach the disk. The loop device is released with the mount, and the mount with the lab."""
    spec.root.mkdir(exist_ok=True)
    # A sync in the machine reaches the image file, which the operator's kernel has in memory; nothing here outlives
    # that kernel: nothing needs to wait for the real disk.
    run("mount", "-o", "loop,nobarrier", str(spec.disk), str(spec.root))


def lose(spec: Spec) -> None:
    """Take the disk away from the machine, as a power cut does.

    From now on nothing is written; unsynced data is lost. Synced data comes back with the next mount.
    """
    root = os.open(spec.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(root, _SHUTDOWN, _AT_ONCE)
    finally:
        os.close(root)


def unmount(spec: Spec) -> None:
    """Detach the disk; a process of the machine that is still ending may hold it for a moment."""
    for attempt in range(UNMOUNT_ATTEMPTS):
        try:
            run("umount", str(spec.root))
            return
        except LabError:
            if attempt == UNMOUNT_ATTEMPTS - 1:
                raise
            time.sleep(0.05)


def prepare(spec: Spec, network: Network) -> None:
    """Write the files that depend on this lab; before every boot, because the network may have changed."""
    etc = spec.root / "etc"
    _write(etc / "hostname", HOSTNAME + "\n")
    _write(etc / "hosts", _hosts(network))
    (etc / "resolv.conf").unlink(missing_ok=True)
    _write(etc / "resolv.conf", f"nameserver {RESOLVER}\n")
    _write(etc / "systemd/network/10-lab.network", _interface(network))
    _write(etc / "apt/apt.conf.d/00lab", _apt())
    for name in ("ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"):
        _write(
            etc / "ssh" / name,
            (spec.directory / name).read_text(),
            mode=0o644 if name.endswith("pub") else 0o600,
        )
    home = spec.root / "home/rig"
    owner = home.stat()
    keys = home / ".ssh/authorized_keys"
    _write(keys, (spec.directory / "id_ed25519.pub").read_text(), mode=0o600)
    for path in (keys.parent, keys):
        shutil.chown(path, owner.st_uid, owner.st_gid)
    keys.parent.chmod(0o700)
    if spec.gpu:
        _give_card(spec.root, spec.vm)


def _give_card(root: Path, whole: bool) -> None:
    """Install the stand-ins for the card's surroundings; the packages that belong to it are in the vendor's repository.

    `whole`: the machine has a kernel and firmware of its own, and programs query those.
    """
    _write(root / "usr/local/sbin/lab-hardware", (STANDINS / "hardware.py").read_text(), mode=0o755)
    for name in () if whole else ("modprobe", "mokutil", "update-initramfs", "journalctl"):
        link = root / "usr/local/sbin" / name
        link.unlink(missing_ok=True)
        link.symlink_to("lab-hardware")
    # udev walks the bus while the real one is still visible.
    after = "After=systemd-udev-trigger.service\n" if whole else ""
    _write(root / "etc/systemd/system" / HARDWARE, _HARDWARE.replace("Before=", f"{after}Before="))
    (root / _STATE.lstrip("/")).mkdir(exist_ok=True)
    _write(root / "usr/lib/systemd/system/rig-thermal-cool.service.d/lab.conf", _COOL)
    wanted = root / "etc/systemd/system/sysinit.target.wants" / HARDWARE
    wanted.parent.mkdir(exist_ok=True)
    wanted.unlink(missing_ok=True)
    wanted.symlink_to(f"/etc/systemd/system/{HARDWARE}")


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_text(text)
    path.chmod(mode)


def _apt() -> str:
    """apt's configuration: through the lab's package cache, but directly to the hub beside it."""
    own = [option for option in apt_options() if not option.startswith("Acquire::http::Proxy ")]
    return "".join(
        f"{option};\n"
        for option in (
            *own,
            f'Acquire::http::Proxy "http://{PACKAGES}:{APT_PROXY_PORT}"',
            f'Acquire::http::Proxy::{HUB} "DIRECT"',
        )
    )


def _interface(network: Network) -> str:
    return (
        # A container has the first name, a whole machine one that starts like the second.
        "[Match]\nName=host0 en*\n\n[Network]\n"
        f"Address={network.machine}/24\nGateway={network.services}\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n\n"
        f"[Route]\nDestination={OPERATORS}\nScope=link\n"
    )


def _hosts(network: Network) -> str:
    """The lab's names, and the operator's own without those of the operator's machine itself."""
    own = [
        f"127.0.0.1\tlocalhost {HOSTNAME}",
        f"::1\tlocalhost {HOSTNAME}",
        f"{network.services}\t{HUB} {REGISTRY} {PACKAGES}",
    ]
    for line in Path("/etc/hosts").read_text().splitlines():
        words = line.split("#")[0].split()
        if len(words) > 1 and not words[0].startswith(("127.", "::1", "fe00", "ff0")):
            own.append("\t".join(words))
    return "\n".join(own) + "\n"
