#!/usr/bin/python3 -I
"""Firmware, PCI bus and kernel of a machine with the card, as far as programs look at them, on a machine without it.

State: /var/lib/rig-lab/hardware.json, which a test may change; most of it counts from the next boot on:

    {
      "cards": [{"device": "0x2c05", "bar1": 17179869184}],    on the PCI bus; bar1 in bytes
      "secure_boot": false,
      "person": true,              somebody confirms a staged key at the firmware's screen, at the next boot
      "enrolled": [], "staged": null,                          certificates (DER, base64); what mokutil changes
      "kernel_log": ["NVRM: ..."]  what journalctl --dmesg shows
      "dkms": "works"              or "fails": modules do not compile; or "slow": for a minute
    }

`lab-hardware boot` lays files over /sys and /proc, chooses the newest kernel of /boot, and loads the driver that a real
boot would load; what it laid is gone with the next boot. `lab-hardware kernel RELEASE` installs a further kernel. Under
the names modprobe, mokutil, update-initramfs and journalctl it answers for those, and leaves to the real ones
what has nothing to do with the card.

A whole machine has firmware, kernels and modules of its own. There `lab-hardware boot` lays the cards alone on its bus,
and does what its kernel would do about them: load nouveau, or else the driver.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/rig-lab/hardware.json")
RUN = Path("/run/rig-lab")
BOOT, MODULES, LOADED = Path("/boot"), Path("/lib/modules"), Path("/sys/module")
LAID = {"pci": "/sys/bus/pci/devices", "module": "/sys/module", "firmware": "/sys/firmware"}
BLACKLIST = re.compile(r"^\s*blacklist\s+nouveau\b", re.MULTILINE)
# A device that is always there, does nothing when it is opened, and that containers may not open by themselves.
HARMLESS = os.makedev(10, 229)
NODES = ("nvidia0", "nvidiactl", "nvidia-uvm")

# A host bridge and a network card: address on the bus, then vendor, device, class, and bytes of the second window.
BUS = {"0000:00:00.0": ("0x1022", "0x14d8", "0x060000", 0), "0000:05:00.0": ("0x10ec", "0x8125", "0x020000", 0)}

State = dict[str, Any]
Devices = dict[str, tuple[str, str, str, int]]


def read() -> State:
    state: State = json.loads(STATE.read_text()) if STATE.exists() else {}
    state.setdefault("cards", [{}])
    for card in state["cards"]:
        card.setdefault("device", "0x2c05")
        card.setdefault("bar1", 16 << 30)
    for key, value in {"secure_boot": False, "person": True, "enrolled": [], "staged": None, "dkms": "works"}.items():
        state.setdefault(key, value)
    return state


def write(state: State) -> None:
    STATE.parent.mkdir(parents=True, exist_ok=True)
    new = STATE.with_suffix(".new")
    new.write_text(json.dumps(state, indent=2) + "\n")
    new.rename(STATE)


# The boot


def boot() -> int:
    state = read()
    if subprocess.run(["systemd-detect-virt", "--quiet", "--container"], check=False).returncode:
        return boot_whole(state)
    if not list(BOOT.glob("vmlinuz-*")):
        install_kernel("6.12.107+deb13-amd64" if 'VERSION_ID="13"' in os_release() else "6.1.0-50-amd64")
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir()
    (RUN / "osrelease").write_text(newest_kernel() + "\n")
    bus({**BUS, **cards(state)})
    firmware(state)
    # Only for a moment: where /sys can be written, systemd waits for udev to name the network's interface.
    run("mount", "-o", "remount,rw", "/sys")
    for place in ("/sys/module", "/sys/firmware"):
        Path(place).mkdir(exist_ok=True)
    run("mount", "-o", "remount,ro", "/sys")
    for name, place in LAID.items():
        (RUN / name).mkdir(exist_ok=True)
        run("mount", "--bind", RUN / name, place)
    run("mount", "--bind", RUN / "osrelease", "/proc/sys/kernel/osrelease")
    if any_card(state):
        if not nouveau_is_kept_off():
            load("nouveau", "")
        else:
            modprobe(["nvidia"])
    return 0


def boot_whole(state: State) -> int:
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir()
    bus(cards(state))
    for device in Path(LAID["pci"]).iterdir():
        (RUN / "pci" / device.name).symlink_to(device.resolve())
    run("mount", "--bind", RUN / "pci", LAID["pci"])
    if any_card(state):
        # As udev does for a card's alias: what is on a blacklist is not loaded, and that is no error.
        subprocess.run(["/usr/sbin/modprobe", "--use-blacklist", "nouveau"], check=False)
        if not (LOADED / "nouveau").exists():
            subprocess.run(["/usr/sbin/modprobe", "nvidia"], check=False)
        if (LOADED / "nvidia").exists():
            nodes()
    return 0


def os_release() -> str:
    return Path("/etc/os-release").read_text()


def newest_kernel() -> str:
    def order(release: str) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", release)]

    return max((path.name.removeprefix("vmlinuz-") for path in BOOT.glob("vmlinuz-*")), key=order)


def running_kernel() -> str:
    return Path("/proc/sys/kernel/osrelease").read_text().strip()


def any_card(state: State) -> bool:
    return bool(state["cards"])


def cards(state: State) -> Devices:
    """Each card, and its function for sound."""
    devices: Devices = {}
    for number, card in enumerate(state["cards"], 1):
        devices[f"0000:{number:02x}:00.0"] = ("0x10de", card["device"], "0x030000", card["bar1"])
        devices[f"0000:{number:02x}:00.1"] = ("0x10de", "0x22e9", "0x040300", 0)
    return devices


def bus(devices: Devices) -> None:
    """What the kernel shows of each device of the PCI bus."""
    (RUN / "pci").mkdir()
    for address, (vendor, device, kind, bar1) in devices.items():
        folder = RUN / "pci" / address
        folder.mkdir(parents=True)
        start = 0x4000000000 if bar1 > 256 << 20 else 0xD0000000
        bars = [(0x84000000, 0x87FFFFFF), (start, start + bar1 - 1)] if bar1 else [(0x80000000, 0x80003FFF), (0, 0)]
        lines = [f"0x{low:016x} 0x{high:016x} 0x{0x40200:016x}\n" for low, high in bars]
        (folder / "resource").write_text("".join(lines))
        for name, value in {"vendor": vendor, "device": device, "class": kind}.items():
            (folder / name).write_text(f"{value}\n")


def firmware(state: State) -> None:
    """The variable in which firmware says whether it checks signatures; and the person at its screen."""
    if state["staged"] is not None:
        if state["person"]:
            state["enrolled"].append(state["staged"])
        state["staged"] = None
        write(state)
    variables = RUN / "firmware/efi/efivars"
    variables.mkdir(parents=True)
    flag = bytes([6, 0, 0, 0, int(state["secure_boot"])])
    (variables / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(flag)


def nouveau_is_kept_off() -> bool:
    """As a real boot decides it: by the copy of the configuration that is in the initramfs."""
    image = BOOT / f"initrd.img-{running_kernel()}"
    return BLACKLIST.search(image.read_text()) is not None


# Kernels and their modules


def install_kernel(release: str) -> int:
    """What the package of a kernel brings: its files, and what its hooks make of it."""
    (MODULES / release).mkdir(parents=True, exist_ok=True)
    (BOOT / f"vmlinuz-{release}").write_text(f"{release}\n")
    initramfs(release)
    if shutil.which("dkms"):
        subprocess.run(["dkms", "autoinstall", "-k", release], check=False)
    return 0


def initramfs(release: str) -> None:
    folders = (Path("/usr/lib/modprobe.d"), Path("/etc/modprobe.d"))
    texts = [path.read_text() for folder in folders for path in sorted(folder.glob("*.conf"))]
    (BOOT / f"initrd.img-{release}").write_text("".join(texts))


def update_initramfs(arguments: list[str]) -> int:
    asked = arguments[arguments.index("-k") + 1] if "-k" in arguments else newest_kernel()
    installed = [path.name.removeprefix("vmlinuz-") for path in BOOT.glob("vmlinuz-*")]
    for release in installed if asked == "all" else [asked]:
        print(f"update-initramfs: Generating /boot/initrd.img-{release}")
        initramfs(release)
    return 0


def load(module: str, version: str) -> None:
    (LOADED / module).mkdir(parents=True, exist_ok=True)
    (LOADED / module / "version").write_text(f"{version}\n")


def modprobe(arguments: list[str]) -> int:
    names = [word for word in arguments if not word.startswith("-")]
    if not names or not names[0].startswith("nvidia"):
        os.execv("/usr/sbin/modprobe", ["modprobe", *arguments])
    if (LOADED / "nvidia").exists():
        return 0
    kernel = running_kernel()
    asked = ["modinfo", "-k", kernel, "-F"]
    version, key = (_output([*asked, field, "nvidia"]) for field in ("version", "lab_key"))
    if not version:
        return _fail(f"modprobe: FATAL: Module nvidia not found in directory /lib/modules/{kernel}")
    state = read()
    if (LOADED / "nouveau").exists() or not any_card(state):
        return _fail("modprobe: ERROR: could not insert 'nvidia': No such device")
    if state["secure_boot"] and key not in map(_fingerprint, state["enrolled"]):
        return _fail("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service")
    load("nvidia", version)
    nodes()
    return 0


def nodes() -> None:
    """The devices that the driver offers."""
    for name in NODES:
        node = Path("/dev", name)
        if not node.exists():
            os.mknod(node, stat.S_IFCHR | 0o666, HARMLESS)
            node.chmod(0o666)


# Keys


def mokutil(arguments: list[str]) -> int:
    state = read()
    match arguments:
        case ["--sb-state"]:
            print("SecureBoot enabled" if state["secure_boot"] else "SecureBoot disabled")
        case ["--list-enrolled"]:
            _list(state["enrolled"])
        case ["--list-new"]:
            _list([state["staged"]] if state["staged"] else [])
        case ["--revoke-import"]:
            state["staged"] = None
            write(state)
        case ["--import", file] if state["staged"] == base64.b64encode(Path(file).read_bytes()).decode():
            print(f"SKIP: {file} is already in the enrollment request")
        case ["--import", file]:
            password, again = (sys.stdin.readline() for _ in range(2))
            print("input password: \ninput password again: ")
            if not password.strip() or password != again:
                return _fail("Password doesn't match")
            if not 8 <= len(password.strip()) <= 256:
                return _fail("Wrong password length")
            state["staged"] = base64.b64encode(Path(file).read_bytes()).decode()
            write(state)
        case _:
            return _fail(f"mokutil: {' '.join(arguments)}: not known to the stand-in")
    return 0


def _fingerprint(certificate: str) -> str:
    return hashlib.sha1(base64.b64decode(certificate), usedforsecurity=False).hexdigest()


def _list(certificates: list[str]) -> None:
    for number, certificate in enumerate(certificates, 1):
        print(f"[key {number}]\nSHA1 Fingerprint: {':'.join(re.findall('..', _fingerprint(certificate)))}")


# What else is asked


def journalctl(arguments: list[str]) -> int:
    if "--dmesg" not in arguments:
        os.execv("/usr/bin/journalctl", ["journalctl", *arguments])
    print("\n".join(read().get("kernel_log", [])))
    return 0


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True)


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _fail(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


NAMES: dict[str, Callable[[list[str]], int]] = {
    "modprobe": modprobe,
    "mokutil": mokutil,
    "update-initramfs": update_initramfs,
    "journalctl": journalctl,
}


def main() -> int:
    name, arguments = Path(sys.argv[0]).name, sys.argv[1:]
    if name in NAMES:
        return NAMES[name](arguments)
    match arguments:
        case ["boot"]:
            return boot()
        case ["kernel", release]:
            return install_kernel(release)
    return _fail("usage: lab-hardware boot | kernel RELEASE")


if __name__ == "__main__":
    sys.exit(main())
