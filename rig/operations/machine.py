"""Settings of the running system that have a file for the next boot and a value for now."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from pyinfra import host
from pyinfra.api import operation

from rig.facts.machine import SysctlValues, TimeZone
from rig.operations import Commands


@operation()
def time_zone(zone: str) -> Commands:
    """The system's time zone is ``zone`` (a name of the tz database)."""
    if host.get_fact(TimeZone) != zone:
        # While timedated runs it believes what it read when it started, and would do nothing if that was ``zone``.
        yield f"systemctl stop systemd-timedated.service && timedatectl set-timezone {shlex.quote(zone)}"


@operation()
def sysctl(values: Mapping[str, str], file: str) -> Commands:
    """The kernel runs with ``values``, which stand in ``file``."""
    live = host.get_fact(SysctlValues, keys=tuple(values))
    if any(live.get(key) != value for key, value in values.items()):
        yield f"sysctl --quiet --load {shlex.quote(file)}"
