"""A disk of the settings, named by its label: mounted, filled, and no obstacle to a boot when it is missing."""

from __future__ import annotations

import shlex
from pathlib import Path

from lab.machine import Lab
from tests.lab import disks
from tests.lab.overrides import altered

DISK = {"storage": {"models": {"mount": {"source": "LABEL=models"}, "must_be_mount": True}}}

ROT = """import glob
file, = glob.glob("/mnt/models/tiny/*/tiny.gguf")
with open(file, "rb") as model, open("/models.img", "r+b") as disk:
    block = model.read(1 << 18)[-4096:]
    at = disk.read().index(block[1:]) - 1
    disk.seek(at)
    byte, = disk.read(1)
    disk.seek(at)
    disk.write(bytes([byte ^ 1]))
"""
"""Flips one bit on the disk itself, unnoticed by its file system. The second time restores it."""


def test_a_disk_is_mounted_by_its_label_and_missed_without_stopping_the_boot(bare: Lab, tmp_path: Path) -> None:
    disks.make(bare, "models", "64M")
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

    disks.make(bare, "other", "64M")
    unit = bare.sudo("sha256sum /etc/systemd/system/mnt-models.mount").stdout
    other = altered(bare, tmp_path / "other", settings={"storage": {"models": {"mount": {"source": "LABEL=other"}}}})
    refused = bare.deploy("-y", environment=other)
    assert refused.returncode == 1
    assert f"has {mounted[0]} mounted, and storage.models.mount.source asks for LABEL=other; " in refused.stderr
    assert "(sudo systemctl stop 'rig-*@*' mnt-models.mount)" in refused.stderr
    assert bare.sudo("sha256sum /etc/systemd/system/mnt-models.mount").stdout == unit

    # Rot is found, although memory still has the good bytes.
    right = bare.sudo("sha256sum /mnt/models/tiny/*/tiny.gguf").stdout
    bare.sudo(f"python3 -c {shlex.quote(ROT)}")
    assert bare.sudo("sha256sum /mnt/models/tiny/*/tiny.gguf").stdout == right
    assert "has SHA-256" in bare.sudo("rig-models verify", check=False).stderr
    bare.sudo(f"python3 -c {shlex.quote(ROT)}")
    assert bare.sudo("rig-models verify").returncode == 0

    bare.power_cut()
    bare.start()
    assert bare.sudo("systemctl is-system-running --wait", check=False).stdout.strip() == "degraded"
    failed = bare.sudo("systemctl list-units --failed --plain --no-legend").stdout.split()
    assert "mnt-models.mount" in failed
    # Their model would be read from the empty directory under the mount point.
    for unit in ("rig-native@llama-8b.service", "rig-container@llama-70b.service"):
        assert bare.sudo(f"systemctl is-active {unit}", check=False).stdout.strip() != "active"
        # Also with a disk that is only late: they wait for it.
        needs = bare.sudo(f"systemctl show --property=RequiresMountsFor --value {unit}").stdout.split()
        assert "/mnt/models" in needs

    # And the models would seem to be gone: the scrub must not mark them, nor a fetch fill the system disk.
    for command in ("systemctl start rig-models-scrub.service", "rig-models verify", "rig-models fetch"):
        assert bare.sudo(command, check=False).returncode != 0, command
    assert bare.sudo("ls /var/lib/rig/models | grep failed; ls -A /mnt/models", check=False).stdout == ""
    assert bare.sudo("ls /var/lib/rig/models/tiny.verified").returncode == 0

    without = bare.deploy("-y", environment=settings)
    assert without.returncode == 1
    assert "no disk of the machine has LABEL=models (storage.models.mount.source); connect it" in without.stderr
