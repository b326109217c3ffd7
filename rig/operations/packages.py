"""Debian packages: refreshing the lists only when something is missing, and mending an interrupted dpkg."""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import operation

from rig.facts.packages import HalfInstalled, Installed
from rig.operations import Commands

# Another apt (unattended-upgrades, or one that outlived a killed run) is waited for, ten minutes at most.
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
    """All of ``packages`` are installed; their versions are left to the distribution and its security updates."""
    there: frozenset[str] = host.get_fact(Installed, packages=tuple(packages), provided=True)
    missing = sorted(set(packages) - there)
    if missing:
        yield f"sh -c {shlex.quote(UPDATE)}"
        yield f"{APT_GET} install --no-install-recommends {shlex.join(missing)}"


@operation()
def absent(packages: list[str]) -> Commands:
    """None of ``packages`` is installed; their configuration files stay."""
    there: frozenset[str] = host.get_fact(Installed, packages=tuple(packages))
    if there:
        yield f"{APT_GET} remove {shlex.join(sorted(there))}"


@operation()
def configured() -> Commands:
    """No package is left half-installed by a run, or a machine, that died."""
    if host.get_fact(HalfInstalled):
        yield "DEBIAN_FRONTEND=noninteractive dpkg --force-confdef --force-confold --configure -a"
        yield f"{APT_GET} --fix-broken install"
