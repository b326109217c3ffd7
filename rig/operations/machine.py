"""Settings of the running system that have a file for the next boot and a value for now."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from pyinfra import host
from pyinfra.api import operation

from rig.facts.machine import SysctlValues, TimeZone


@operation()
def time_zone(zone: str) -> Iterator[str]:
    """The system's time zone is ``zone`` (a name of the tz database)."""
    if host.get_fact(TimeZone) != zone:
        yield f"timedatectl set-timezone {shlex.quote(zone)}"


@operation()
def sysctl(values: Mapping[str, str], file: str) -> Iterator[str]:
    """The kernel runs with ``values``, which stand in ``file``."""
    live = host.get_fact(SysctlValues, keys=tuple(values))
    if any(live.get(key) != value for key, value in values.items()):
        yield f"sysctl --quiet --load {shlex.quote(file)}"
