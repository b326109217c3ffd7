"""A disk of the settings, named by its label: mounted, filled, and missed without keeping the machine from booting."""

from __future__ import annotations

from pathlib import Path

from lab.machine import Lab
from tests.lab.overrides import altered

DISK = {"storage": {"models": {"mount": {"source": "LABEL=models"}, "must_be_mount": True}}}

# A machine in a container has no udev: its device nodes, and the link by label, are made by hand. The loop device is
# detached while it is mounted, so that the kernel frees it with the mount, also when this test is killed.
PLUG = """set -e
truncate --size 64M /disk.img
mkfs.ext4 -q -L models /disk.img
mknod /dev/loop-control c 10 237
for number in $(seq 0 63); do mknod /dev/loop$number b 7 $number; done
device=$(losetup --find --show /disk.img)
mkdir -p /dev/disk/by-label
ln -s $device /dev/disk/by-label/models
mkdir -p /run/held
mount $device /run/held
losetup --detach $device
"""


def test_a_disk_is_mounted_by_its_label_and_missed_without_stopping_the_boot(bare: Lab, tmp_path: Path) -> None:
    bare.sudo(PLUG)
    settings = altered(bare, tmp_path / "disk", settings=DISK)

    first = bare.deploy("-y", environment=settings)
    assert first.returncode == 0, first.stderr[-4000:]
    mounted = bare.sudo("findmnt --noheadings --output SOURCE,FSTYPE,OPTIONS /mnt/models").stdout.split()
    assert mounted[0].startswith("/dev/loop")
    assert mounted[1] == "ext4"
    assert "noatime" in mounted[2].split(",")
    assert bare.sudo("stat -c %m /mnt/models/tiny/*/tiny.gguf").stdout.strip() == "/mnt/models"
    second = bare.deploy("--json", "-y", environment=settings)
    assert '"success": 0' in second.stdout.partition('"totals"')[2]

    bare.power_cut()
    bare.start()
    assert bare.sudo("systemctl is-system-running --wait", check=False).stdout.strip() == "degraded"
    failed = bare.sudo("systemctl list-units --failed --plain --no-legend").stdout.split()
    assert "mnt-models.mount" in failed
    # Its model would be read from the empty directory under the mount point.
    assert bare.sudo("systemctl is-active rig-native@llama-8b.service", check=False).stdout.strip() != "active"

    without = bare.deploy("-y", environment=settings)
    assert without.returncode == 1
    assert "mnt-models.mount" in without.stderr
