#!/usr/bin/python3 -I
"""dkms where nothing is compiled: a kernel whose headers are there gets a module file that says what it is.

Module, version and licence of that file are read by the real modinfo. As the real one does, it signs with its own key,
which it makes when there is none. hardware.json makes the compiler fail ("dkms": "fails"), or take its time ("slow").
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

TREE, SOURCES, MODULES = Path("/var/lib/dkms"), Path("/usr/src"), Path("/lib/modules")
HARDWARE = Path("/var/lib/rig-lab/hardware.json")
ARCHITECTURE = platform.machine()


def main(arguments: list[str]) -> int:
    options = dict(zip(arguments[1::2], arguments[2::2], strict=False))
    match arguments[0]:
        case "status":
            return status()
        case "add":
            (TREE / options["-m"] / options["-v"]).mkdir(parents=True, exist_ok=True)
            return 0
        case "install":
            return install(options["-m"], options["-v"], options["-k"])
        case "autoinstall":
            known = sorted(TREE.glob("*/*/"))
            return max((install(path.parent.name, path.name, options["-k"]) for path in known), default=0)
        case "remove":
            return remove(options["-m"], options["-v"])
    print(f"Error! Unknown action specified: {arguments[0]}", file=sys.stderr)
    return 1


def status() -> int:
    for version in sorted(TREE.glob("*/*/")):
        name = f"{version.parent.name}/{version.name}"
        built = sorted(path.parts[-4] for path in version.glob(f"*/{ARCHITECTURE}/module/*.ko"))
        print("\n".join(f"{name}, {kernel}, {ARCHITECTURE}: installed" for kernel in built) or f"{name}: added")
    return 0


def install(name: str, version: str, kernel: str) -> int:
    if not (MODULES / kernel / "build").exists():
        print(f"Error! Your kernel headers for kernel {kernel} cannot be found.", file=sys.stderr)
        return 1
    folder = TREE / name / version
    built = folder / kernel / ARCHITECTURE / "module" / f"{name}.ko"
    target = MODULES / kernel / "updates" / "dkms"
    if built.exists() and (target / built.name).exists():
        return 0
    compiler = json.loads(HARDWARE.read_text()).get("dkms") if HARDWARE.exists() else None
    if compiler == "slow":
        time.sleep(60)
    if compiler == "fails":
        (folder / "build").mkdir(parents=True, exist_ok=True)
        log = folder / "build" / "make.log"
        log.write_text("nvidia/nv-pci.c:210: error: too few arguments to function 'pci_resize_resource'\n")
        print(f"Error! Bad return status for module build on kernel: {kernel} ({ARCHITECTURE})", file=sys.stderr)
        print(f"Consult {log} for more information.", file=sys.stderr)
        return 10
    built.parent.mkdir(parents=True, exist_ok=True)
    licence = (SOURCES / f"{name}-{version}" / "LICENCE").read_text().strip()
    built.write_bytes(module({"license": licence, "version": version, "name": name, "lab_key": key()}))
    target.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(built, target / f"{name}.ko")
    subprocess.run(["depmod", kernel], stderr=subprocess.DEVNULL, check=True)
    return 0


def remove(name: str, version: str) -> int:
    for built in (TREE / name / version).glob(f"*/{ARCHITECTURE}/module/*.ko"):
        kernel = built.parts[-4]
        (MODULES / kernel / "updates" / "dkms" / built.name).unlink(missing_ok=True)
        subprocess.run(["depmod", kernel], stderr=subprocess.DEVNULL, check=True)
    shutil.rmtree(TREE / name / version, ignore_errors=True)
    return 0


def key() -> str:
    """The certificate's fingerprint, made with its key when it is not there, as dkms does."""
    private, certificate = TREE / "mok.key", TREE / "mok.pub"
    if not certificate.exists():
        os.umask(0o077)
        words = "req -new -x509 -nodes -days 36500 -newkey rsa:2048 -outform DER -subj /CN=lab"
        subprocess.run(
            ["openssl", *words.split(), "-keyout", private, "-out", certificate], check=True, capture_output=True
        )
    return hashlib.sha1(certificate.read_bytes(), usedforsecurity=False).hexdigest()


def module(fields: dict[str, str]) -> bytes:
    """An ELF object with nothing in it but what modinfo reads (elf(5)): one section, and the table of names."""
    about = b"".join(f"{name}={value}\0".encode() for name, value in fields.items())
    names = b"\0.modinfo\0.shstrtab\0"
    header = 64
    start = header + len(about) + len(names)
    sections = [
        struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        struct.pack("<IIQQQQIIQQ", 1, 1, 2, 0, header, len(about), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, header + len(about), len(names), 0, 0, 1, 0),
    ]
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    table = struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, start, 0, header, 0, 0, 64, len(sections), 2)
    return identity + table + about + names + b"".join(sections)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
