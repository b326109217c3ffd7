"""Which sets of engines fit beside each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations


def largest_at_once(demands: Mapping[str, int], groups: Iterable[Collection[str]]) -> list[str]:
    """The names that take most when they run together: of each group, of which one runs at a time, the largest."""
    smaller = {name for group in groups for name in group if name != max(group, key=lambda other: demands[other])}
    return [name for name in demands if name not in smaller]


def sets_that_fit(
    demands: Mapping[str, tuple[int, ...]], room: tuple[int, ...], groups: Collection[Collection[str]] = ()
) -> list[tuple[str, ...]]:
    """The largest sets of names that fit together: adding any other name would exceed one of the rooms.

    `demands`: bytes of each kind of memory, RAM and graphics card say, that a name takes; `room`: what there is of each
    kind, in the same order; `groups`: names of which one runs at a time, so that no set has two of them. Tries every
    set, which is a matter of milliseconds for the handful of engines that one machine has.
    """
    found: list[tuple[str, ...]] = []
    for count in range(len(demands), 0, -1):
        for names in combinations(demands, count):
            taken = (sum(demands[name][kind] for name in names) for kind in range(len(room)))
            fits = all(bytes_taken <= there for bytes_taken, there in zip(taken, room, strict=True))
            alone = all(len(set(group).intersection(names)) <= 1 for group in groups)
            if fits and alone and not any(set(names) < set(larger) for larger in found):
                found.append(names)
    return found
