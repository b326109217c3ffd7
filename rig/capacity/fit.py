"""Sets of engines that fit beside each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping


def largest_at_once(demands: Mapping[str, int], groups: Iterable[Collection[str]]) -> list[str]:
    """The names that take most when they run together: the largest of each group, as one of a group runs at a time."""
    smaller = {name for group in groups for name in group if name != max(group, key=lambda other: demands[other])}
    return [name for name in demands if name not in smaller]


def sets_that_fit(
    demands: Mapping[str, tuple[int, ...]],
    room: tuple[int, ...],
    groups: Collection[Collection[str]] = (),
    most: int | None = None,
) -> list[tuple[str, ...]]:
    """The largest sets of names that fit together: adding any other name would exceed one of the rooms.

    `demands`: bytes of each kind of memory that a name takes, such as RAM and GPU memory; `room`: the bytes of each
    kind, in the same order; `groups`: names of which one runs at a time, so that no set has two of them; `most`: the
    number of sets to search for; without it, all. The number of sets doubles with each name.
    """
    search = _Search(demands, room, groups, most)
    search.go_on(0, (), tuple(room), ())
    order = {name: at for at, name in enumerate(demands)}
    return sorted(search.found, key=lambda names: (-len(names), [order[name] for name in names]))


LONGEST_SEARCH = 20_000
"""Decisions after which a limited search ends with the sets found so far: about a second."""


class _Search:
    """Decides for one name after the other whether it is in the set; no name that still fits is left out."""

    def __init__(
        self,
        demands: Mapping[str, tuple[int, ...]],
        room: tuple[int, ...],
        groups: Collection[Collection[str]],
        most: int | None,
    ) -> None:
        self.demands = {name: taken for name, taken in demands.items() if _fits(taken, room)}
        self.names = tuple(self.demands)
        self.groups = [frozenset(group) for group in groups]
        self.most = most
        self.found: list[tuple[str, ...]] = []
        self.steps = 0

    def go_on(self, at: int, chosen: tuple[str, ...], left: tuple[int, ...], missed: tuple[str, ...]) -> None:
        """Decide for the names from number `at` on; `left`: the rest of each room beside the chosen names."""
        self.steps += 1
        if self.most is not None and (len(self.found) >= self.most or self.steps > LONGEST_SEARCH):
            return
        if at == len(self.names):
            if chosen and not any(self.addable(name, chosen, left) for name in missed):
                self.found.append(chosen)
            return
        later = [name for name in self.names[at:] if self.addable(name, chosen, left)]
        smallest = tuple(left[kind] - sum(self.demands[name][kind] for name in later) for kind in range(len(left)))
        # A name that was left out would fit whatever else is chosen: no set below here is maximal.
        rivals = {other for group in self.groups for other in group}
        if any(_fits(self.demands[name], smallest) and name not in rivals for name in missed):
            return
        name = self.names[at]
        if self.addable(name, chosen, left):
            taken = self.demands[name]
            rest = tuple(there - here for there, here in zip(left, taken, strict=True))
            self.go_on(at + 1, (*chosen, name), rest, missed)
            self.go_on(at + 1, chosen, left, (*missed, name))
        else:
            # A name that does not fit now does not fit later either.
            self.go_on(at + 1, chosen, left, missed)

    def addable(self, name: str, chosen: tuple[str, ...], left: tuple[int, ...]) -> bool:
        """Whether a name fits beside the chosen ones, and is not an alternative to any of them."""
        alone = not any(name in group and not group.isdisjoint(chosen) for group in self.groups)
        return alone and _fits(self.demands[name], left)


def _fits(taken: tuple[int, ...], room: tuple[int, ...]) -> bool:
    return all(here <= there for here, there in zip(taken, room, strict=True))
