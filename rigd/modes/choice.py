"""Which engine of a group is meant to run, from what systemd says of its units alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """A unit as it is."""

    enabled: bool
    """It starts at boot."""
    active: bool
    """It runs, or is being started."""


def chosen(group: Mapping[str, Unit]) -> str:
    """The name of the one engine that is to run and to start at boot; `group` has all of them, in their order.

    What is enabled is the owner's choice, because it is what comes back after a boot. A switch that broke off may have
    left several enabled: then the one that runs, as it became healthy. Of a group that never ran, the first.
    """
    enabled = [name for name, unit in group.items() if unit.enabled]
    active = [name for name, unit in group.items() if unit.active]
    for names in ([name for name in enabled if name in active], enabled, active):
        if names:
            return names[0]
    return next(iter(group))
