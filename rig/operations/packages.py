"""Debian packages: lists fetched only if a package is missing, and repairs after a power cut."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation

from rig.facts.packages import VERIFIED, Automatic, Damage, Damaged, Installed
from rig.operations import Commands

# Another apt (unattended-upgrades, or one that outlived a killed run) gets ten minutes to finish.
APT_GET = (
    "DEBIAN_FRONTEND=noninteractive apt-get -y -o DPkg::Lock::Timeout=600 "
    "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
)

INSTALL = f"{APT_GET} --allow-downgrades install --no-install-recommends"

# DPkg::Lock::Timeout does not cover the lists' own lock.
UPDATE = (
    "for attempt in $(seq 60); do "
    "output=$(apt-get update -o APT::Update::Error-Mode=any 2>&1) && exit 0; "
    'case "$output" in *"Could not get lock"*) sleep 5 ;; *) break ;; esac; '
    'done; printf "%s\\n" "$output" >&2; exit 1'
)


@operation()
def present(packages: list[str]) -> Commands:
    """All of ``packages`` are installed, and stay; the distribution and its updates decide their versions."""
    there: frozenset[str] = host.get_fact(Installed, packages=tuple(packages), provided=True)
    missing = sorted(set(packages) - there)
    if missing:
        yield f"sh -c {shlex.quote(UPDATE)}"
        yield f"{APT_GET} install --no-install-recommends {shlex.join(missing)}"
        # dpkg syncs its own files, and not those that the packages' scripts write.
        yield "sync"
    yield from kept(sorted(set(packages) & there))


def kept(packages: Sequence[str]) -> Commands:
    """Installed packages that stay when nothing else needs them."""
    automatic: frozenset[str] = host.get_fact(Automatic, packages=tuple(packages)) if packages else frozenset()
    if automatic:
        yield f"apt-mark manual {shlex.join(sorted(automatic))}"


@operation()
def absent(packages: list[str]) -> Commands:
    """None of ``packages`` is installed; their configuration files stay."""
    there: frozenset[str] = host.get_fact(Installed, packages=tuple(packages))
    if there:
        yield f"{APT_GET} remove {shlex.join(sorted(there))}"


@operation()
def repaired() -> Commands:
    """No package is half-installed, or has empty files, after a run or a machine died."""
    damage: Damage = host.get_fact(Damaged)
    if not damage.any:
        return
    yield f"sh -c {shlex.quote(repair(damage))}"


def repair(damage: Damage) -> str:
    """A script that repairs packages once; it fails with a sentence if dpkg still has something to finish.

    It reinstalls the packages that dpkg marks for it, and `damage.packages`.
    """
    named = shlex.join(damage.packages)
    return f"""set -u
status=/var/lib/dpkg/status
if [ ! -s $status ]; then
  for kept in $status-old /var/backups/dpkg.status.0; do
    [ -s $status ] || [ ! -s $kept ] || cp --preserve $kept $status
  done
fi
# Records of 0 bytes: dpkg stops at a list of files that is cut short, and takes an empty script for a good one. An
# empty list of hashes is that of a package without files; one that is cut comes back with its package.
find /var/lib/dpkg/info -type f -size 0 ! -name "*.md5sums" -delete
# Lists that are cut are not fetched again while a file of the same age is there.
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
apt-get clean
({UPDATE}) || exit 1
export DEBIAN_FRONTEND=noninteractive
get() {{ {APT_GET} -o Dpkg::Options::=--force-confmiss --allow-downgrades --allow-change-held-packages "$@"; }}
unusable() {{ dpkg-query -W -f='${{db:Status-Abbrev}} ${{binary:Package}}\n' | sed -n 's/^..[^ ] *//p'; }}
again=$(unusable)
if [ -n "$again" ]; then
  get --reinstall install $again || for package in $again; do
    # No archive has what is half there: it is taken away, and installed by whoever needs it.
    dpkg --remove --force-remove-reinstreq --force-depends $package
  done
fi
dpkg --force-confdef --force-confold --configure -a || true
get --fix-broken install || exit 1
dpkg --force-confdef --force-confold --configure -a || exit 1
# Files of settings that a package's script installs by ucf are taken for deleted by the owner, unless forced.
export UCF_FORCE_CONFFMISS=1
for package in {named}; do
  {{ dpkg-query --listfiles $package 2>/dev/null; sed -n "s|^$package  *||p" /var/lib/ucf/registry 2>/dev/null
  }} | while read -r path; do
    # An empty file of settings would be kept as the owner's.
    case $path in /etc/*) [ ! -f "$path" ] || [ -s "$path" ] || rm "$path" ;; esac
  done
done
{f"get --reinstall install {named} || exit 1" if named else ""}
bundle=/etc/ssl/certs/ca-certificates.crt
[ ! -e $bundle ] || [ -s $bundle ] || update-ca-certificates --fresh
ldconfig
touch {VERIFIED}
left=$(dpkg --audit 2>&1)
[ -z "$left" ] || {{ echo "dpkg cannot finish what was interrupted: $left" >&2; exit 1; }}
sync --file-system /var/lib/dpkg
"""
