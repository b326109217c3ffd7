"""Disks connected to a lab machine: each an image in a file of its own, found as a device by its label."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.machine import NAME, Lab

# A machine in a container has no udev: its device nodes, and the link by label, are made by hand. The loop device is
# detached while it is mounted, so that the kernel frees it with the mount, also if a test is killed.
_PLUG = """set -e
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
for number in $(seq 0 63); do [ -e /dev/loop$number ] || mknod /dev/loop$number b 7 $number; done
device=$(losetup --find --show /@LABEL@.img)
mkdir -p /dev/disk/by-label /run/held-@LABEL@
ln -sfn $device /dev/disk/by-label/@LABEL@
mount $device /run/held-@LABEL@
losetup --detach $device
"""


def make(lab: Lab, label: str, size: str) -> None:
    """Create a disk with an empty file system, and connect it."""
    lab.sudo(f"set -e; truncate --size {size} /{label}.img; mkfs.ext4 -q -L {label} /{label}.img")
    plug(lab, label)


def plug(lab: Lab, label: str) -> None:
    """Connect a disk; again after each boot, because a machine in a container does not find disks by itself."""
    lab.sudo(_PLUG.replace("@LABEL@", label))


def unplug(lab: Lab, label: str) -> None:
    """Disconnect a disk in order: nothing on it may be mounted."""
    lab.sudo(f"umount /run/held-{label} && rm /dev/disk/by-label/{label}")


def carry(label: str, source: Lab, to: Lab) -> None:
    """Move a disconnected disk from one machine to another, and connect it there."""
    assert source.sudo(f"findmnt --noheadings /run/held-{label}", check=False).stdout == ""
    out = subprocess.Popen(_ssh(source, f"sudo -n gzip --stdout --fast /{label}.img"), stdout=subprocess.PIPE)
    into = f"sudo -n sh -c 'gunzip --stdout | dd of=/{label}.img bs=1M conv=sparse status=none'"
    subprocess.run(_ssh(to, into), stdin=out.stdout, check=True, timeout=300)
    assert out.wait(timeout=60) == 0
    plug(to, label)


def _ssh(lab: Lab, command: str) -> list[str]:
    return ["ssh", "-F", str(Path(lab.ssh_config)), NAME, command]
