"""The chosen engine of a group, by the state of its systemd units alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Unit:
    """The state of a unit."""

    enabled: bool
    """It starts at boot."""
    active: bool
    """It runs or is starting."""


def chosen(group: Mapping[str, Unit]) -> str:
    """The name of the one engine that must run and start at boot; `group` has all of them, in their order.

    The enabled engine is the owner's choice, because it comes back after a boot. An interrupted switch may have left
    several enabled: then the running one, because it became healthy. For a group that never ran, the first.
    """
    enabled = [name for name, unit in group.items() if unit.enabled]
    active = [name for name, unit in group.items() if unit.active]
    for names in ([name for name in enabled if name in active], enabled, active):
        if names:
            return names[0]
    return next(iter(group))
