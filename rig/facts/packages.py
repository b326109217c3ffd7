"""Installed Debian packages, and the damage that a killed dpkg or a power cut left in them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

# Names that packages only provide, without their versions.
_PROVIDED = r"""
dpkg-query -W -f='${db:Status-Abbrev}|${Provides}\n' | awk -F'|' -v names='@NAMES@' '
  BEGIN { split(names, listed, " "); for (at in listed) wanted[listed[at]] }
  substr($1, 2, 1) == "i" && $2 != "" {
    count = split($2, provided, / *, */)
    for (at = 1; at <= count; at++) {
      sub(/[ (].*/, "", provided[at])
      if (provided[at] in wanted) print "ii", provided[at]
    }
  }'
"""


class Installed(FactBase[frozenset[str]]):
    """The named packages that are completely installed.

    ``provided``: a name that an installed package provides counts, too. apt installs that package for a virtual one,
    which would otherwise be missing in every run.
    """

    @staticmethod
    def default() -> frozenset[str]:
        return frozenset()

    def command(self, packages: Iterable[str], provided: bool = False) -> str:
        names = shlex.join(packages)
        virtual = _PROVIDED.replace("@NAMES@", names) if provided else ""
        return f"dpkg-query -W -f='${{db:Status-Abbrev}} ${{Package}}\\n' {names} 2>/dev/null;{virtual} true"

    def process(self, output: list[str]) -> frozenset[str]:
        # The first letter is the wanted state, h to hold it; the second the present state; a third an error.
        pairs = (line.split() for line in output)
        return frozenset(name for status, name in pairs if status[1:] == "i")


class Automatic(FactBase[frozenset[str]]):
    """The named packages that apt counts as dependencies, and removes with their dependents (`apt autoremove`)."""

    @staticmethod
    def default() -> frozenset[str]:
        return frozenset()

    def command(self, packages: Iterable[str]) -> str:
        # The source of `apt-mark showauto`, which takes longer.
        names = " ".join(f"-e {shlex.quote(name)}" for name in packages)
        return (
            "awk '/^Package: / { name = $2 } /^Auto-Installed: 1/ { print name }' /var/lib/apt/extended_states "
            f"2>/dev/null | grep -xF {names} || true"
        )

    def process(self, output: list[str]) -> frozenset[str]:
        return frozenset(output)


EMPTY = "d41d8cd98f00b204e9800998ecf8427e"
"""MD5 of no bytes."""
VERIFIED = "/run/rig-packages-verified"
"""Written when the packages installed before this boot were verified; a boot empties /run."""
HOUR = 3600
"""Seconds: earlier installations within this time count as part of the last one before the boot."""
UNVERIFIED = r"/usr/(share/(doc|man|locale|info|lintian|help|gnome/help|bug)|lib/python3/dist-packages/.*\.pyc$)"
"""Files that a machine may lack: dpkg itself leaves them out with its path-exclude."""


@dataclass(frozen=True)
class Damage:
    """Damage by an interrupted dpkg, or a power cut."""

    unfinished: bool = False
    """Packages are unpacked and not configured, or must be reinstalled; or there is a journal of updates."""
    lists: bool = False
    """apt's lists have files of 0 bytes, which apt does not fetch again by itself."""
    status: bool = False
    """dpkg's own list of installed packages is empty."""
    packages: tuple[str, ...] = ()
    """Packages with files of 0 bytes in dpkg's records, or with files that differ from the installed ones."""

    @property
    def any(self) -> bool:
        return self != Damage()


class Damaged(FactBase[Damage]):
    """Damage of packages. Their files are read once after each boot, and only those of the last installation before it:
    earlier installations had long reached the disk."""

    @staticmethod
    def default() -> Damage:
        return Damage()

    def command(self) -> str:
        return _LOOK

    def process(self, output: list[str]) -> Damage:
        kinds = {line.partition(" ")[0] for line in output}
        names = {line.removeprefix("package ") for line in output if line.startswith("package ")}
        return Damage("unfinished" in kinds, "lists" in kinds, "status" in kinds, tuple(sorted(names)))


# Start time of the first process in seconds since the epoch: in a container, that of the container.
_BOOTED = (
    "awk -v now=$(date +%s) -v hertz=$(getconf CLK_TCK) "
    "'NR == FNR { up = $1; next } { sub(/.*[)] /, \"\"); print int(now - up + $20 / hertz) }' /proc/uptime /proc/1/stat"
)

# A package without files has an empty list of hashes: only one with files is damaged by that. Empty configuration files
# (c), which the owner may edit, count as damaged.
_LOOK = f"""
info=/var/lib/dpkg/info
[ -s /var/lib/dpkg/status ] || echo status
if [ -n "$(dpkg --audit 2>&1)" ] || [ -n "$(ls /var/lib/dpkg/updates 2>/dev/null)" ]; then echo unfinished; fi
[ -z "$(find /var/lib/apt/lists -maxdepth 1 -type f -size 0 ! -name lock 2>/dev/null)" ] || echo lists
found=$(
  find $info -type f -size 0 ! -name "*.md5sums" -printf "%f\n" | sed "s/\\.[a-z0-9]*$//"
  for sums in $(find $info -name "*.md5sums" -size 0); do
    while read -r path; do
      if [ -f "$path" ] && [ ! -L "$path" ]; then basename "$sums" .md5sums; break; fi
    done <"${{sums%.md5sums}}.list"
  done
  while read -r hash path; do
    if [ "$hash" != {EMPTY} ] && [ -f "$path" ] && [ ! -s "$path" ]; then
      sed -n "s|  *$path\\$||p" /var/lib/ucf/registry
    fi
  done 2>/dev/null </var/lib/ucf/hashfile
  if [ ! -e {VERIFIED} ]; then
    before=$(find $info -name "*.list" ! -newermt "@$({_BOOTED})" -printf "%T@ %f\n" | sort -rn |
      awk 'NR == 1 {{ last = $1 }} $1 >= last - {HOUR} {{ sub(/[.]list$/, "", $2); print $2 }}')
    if [ -n "$before" ]; then
      dpkg --verify $before 2>/dev/null | grep -vE " {UNVERIFIED}" | while read -r flags kind path; do
        case $kind in /*) path=$kind; kind= ;; esac
        [ "$kind" != c ] || [ "$flags" = missing ] || [ ! -s "$path" ] || continue
        [ "$kind $flags" != "c missing" ] || continue
        dpkg-query -S "$path" 2>/dev/null | sed -n "s/: .*//; s/, /\\n/g; /^diversion/!p"
      done
    fi
  fi
)
if [ -n "$found" ]; then echo "$found" | sort -u | sed "s/^/package /"
else touch {VERIFIED} 2>/dev/null; fi
true
"""
