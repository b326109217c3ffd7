"""The driver on a machine, the kernel around it and its signing key, in one round trip."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from pyinfra.api import FactBase

from rig.gpu.cards import Card
from rig.gpu.driver import SPECIFICATION
from rig.gpu.state import Driver, Module, SecureBoot
from rig.gpu.words import PASSWORD

SLEEP = ("sleep.target", "suspend.target", "hibernate.target", "hybrid-sleep.target")

# The sources of lspci, lsmod and uname, as their packages may be missing.
CARDS = r"""
for device in /sys/bus/pci/devices/*; do
  case "$(cat "$device/vendor" 2>/dev/null) $(cat "$device/class" 2>/dev/null)" in
    "0x10de 0x03"*) printf "card\t%s\t%s\t%s\n" "${device##*/}" "$(cat "$device/device")" \
      "$(sed -n 2p "$device/resource" 2>/dev/null)" ;;
  esac
done
printf "kernel\t%s\n" "$(cat /proc/sys/kernel/osrelease)"
for flag in /sys/firmware/efi/efivars/SecureBoot-*; do
  [ "$(od -An -tu1 -j4 -N1 "$flag" 2>/dev/null | tr -d " ")" != 1 ] || printf "secure\tyes\n"
done
"""
"""Prints cards on the bus (PCI class 03, display controllers), the running kernel, and the state of Secure Boot."""


def card(values: Sequence[str]) -> Card:
    """A card from its line: address, device number, and the range of its second base address register."""
    address, device, *bar1 = values
    low, high = (int(word, 16) for word in bar1[0].split()[:2]) if bar1 and bar1[0] else (0, 0)
    return Card(address, int(device, 16), high - low + 1 if high > low else 0)


CERTIFICATES = ("/var/lib/shim-signed/mok/MOK.der", "/var/lib/dkms/mok.pub")
"""Certificates of dkms' signing key: Ubuntu's path, and that of all others."""

_SCRIPT = r"""
kernel=$(cat /proc/sys/kernel/osrelease)
printf "kernel\t%s\n" "$kernel"
# The container's clock is the machine's around it: what counts is when this system began.
begun=$(systemctl show --property=UserspaceTimestampMonotonic --value)
printf "booted\t%s\t%s\t%s\n" "$(date +%s.%N)" "$(cut -d" " -f1 /proc/uptime)" "$begun"
newest=$(ls /boot/vmlinuz-* 2>/dev/null | sort -V | tail -n 1)
newest=${newest#/boot/vmlinuz-}
[ -z "$newest" ] || printf "newest\t%s\t%s\n" "$newest" "$(stat -c %.Z "/boot/vmlinuz-$newest")"
if [ -n "$newest" ] && [ "$newest" != "$kernel" ]; then
  [ ! -e "/lib/modules/$newest/build" ] || printf "newest headers\tyes\n"
  [ ! -f "$(modinfo -k "$newest" -n nvidia 2>/dev/null)" ] || printf "newest module\tyes\n"
fi
[ ! -e "/lib/modules/$kernel/build" ] || printf "headers\tyes\n"
[ ! -e /sys/module/nouveau ] || printf "nouveau\tyes\n"
[ ! -e /sys/module/nvidia ] || printf "loaded\t%s\n" "$(cat /sys/module/nvidia/version 2>/dev/null)"
file=$(modinfo -k "$kernel" -n nvidia 2>/dev/null)
[ ! -f "$file" ] || printf "module\t%s\t%s\t%s\n" "$(modinfo -F version "$file")" "$(modinfo -F license "$file")" \
  "$(stat -c %.Z "$file")"
library=$(readlink -f /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1)
[ ! -f "$library" ] || printf "library\t%s\n" "${library##*.so.}"
dpkg-query -W -f='${db:Status-Abbrev}\tpackage\t${Package}\t${Version}\n' "nvidia-*" "libnvidia-*" "libcuda*" \
  "cuda-drivers*" "linux-modules-nvidia-*" "linux-headers-*" 2>/dev/null | sed -n "s/^.i \t//p"
kept=$(grep -lsE "^[[:space:]]*blacklist[[:space:]]+nouveau" /etc/modprobe.d/*.conf /usr/lib/modprobe.d/*.conf)
[ -z "$kept" ] || printf "blacklisted\t%s\n" "$(stat -c %.Z $kept | sort -n | tail -n 1)"
[ ! -e "/boot/initrd.img-$kernel" ] || printf "initramfs\t%s\n" "$(stat -c %.Z "/boot/initrd.img-$kernel")"
for flag in /sys/firmware/efi/efivars/SecureBoot-*; do
  [ "$(od -An -tu1 -j4 -N1 "$flag" 2>/dev/null | tr -d " ")" = 1 ] || continue
  printf "secure\tyes\n"
  for certificate in @CERTIFICATES@; do
    [ -f "$certificate" ] || continue
    printf "certificate\t%s\n" "$(sha1sum <"$certificate" | cut -d" " -f1)"
    break
  done
  [ ! -e @PASSWORD@ ] || printf "password\tyes\n"
  for list in enrolled new; do
    mokutil --list-$list 2>/dev/null | sed -n "s/^SHA1 Fingerprint: */$list\t/p"
  done
done
[ ! -f @SPECIFICATION@ ] ||
  printf "specification\t%s\n" "$(grep -om 1 "libnvidia-ml\.so\.[0-9][0-9.]*" @SPECIFICATION@ | cut -d. -f3-)"
true
"""


class BootId(FactBase[str]):
    """An id that every boot changes."""

    def command(self) -> str:
        return "cat /proc/sys/kernel/random/boot_id"

    def process(self, output: list[str]) -> str:
        return output[0].strip()


class Masked(FactBase[frozenset[str]]):
    """The given units that are masked."""

    @staticmethod
    def default() -> frozenset[str]:
        return frozenset()

    def command(self, units: Iterable[str]) -> str:
        return f"systemctl show --property=Id,LoadState {shlex.join(units)}"

    def process(self, output: list[str]) -> frozenset[str]:
        blocks = "\n".join(output).split("\n\n")
        units = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks if block]
        return frozenset(unit["Id"] for unit in units if unit["LoadState"] == "masked")


class DriverFact(FactBase[Driver]):
    """The driver, as installed and as loaded."""

    def command(self) -> str:
        return DRIVER

    def process(self, output: list[str]) -> Driver:
        return driver(output)


DRIVER = (
    _SCRIPT.replace("@CERTIFICATES@", " ".join(CERTIFICATES))
    .replace("@PASSWORD@", PASSWORD)
    .replace("@SPECIFICATION@", SPECIFICATION)
)


def driver(output: list[str]) -> Driver:
    """The script's output as a value."""
    rows: dict[str, list[list[str]]] = {}
    for line in output:
        key, *values = line.split("\t")
        rows.setdefault(key, []).append(values)

    def first(key: str) -> list[str] | None:
        return rows[key][0] if key in rows else None

    def number(key: str) -> float | None:
        found = first(key)
        return float(found[0]) if found else None

    now, uptime, begun = (float(value or 0) for value in rows["booted"][0])
    newest, module = first("newest"), first("module")
    loaded, library, specification = first("loaded"), first("library"), first("specification")
    return Driver(
        kernel=rows["kernel"][0][0],
        booted=now - uptime + begun / 1e6,
        newest_kernel=newest[0] if newest else "",
        newest_kernel_changed=float(newest[1]) if newest else 0,
        newest_headers="newest headers" in rows,
        newest_module="newest module" in rows,
        headers="headers" in rows,
        loaded=loaded[0] if loaded else None,
        nouveau="nouveau" in rows,
        module=Module(module[0], module[1], float(module[2])) if module else None,
        library=library[0] if library else None,
        packages={name: version for name, version in rows.get("package", [])},
        blacklisted=number("blacklisted"),
        initramfs=number("initramfs"),
        secure_boot=SecureBoot(
            enabled="secure" in rows,
            certificate=(first("certificate") or [""])[0],
            enrolled=frozenset(_fingerprint(values[0]) for values in rows.get("enrolled", [])),
            staged=frozenset(_fingerprint(values[0]) for values in rows.get("new", [])),
            password="password" in rows,
        ),
        specification=specification[0] if specification else None,
    )


def _fingerprint(text: str) -> str:
    return re.sub(r"[^0-9a-f]", "", text.lower())
