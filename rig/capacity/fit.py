"""How many of something fit into what is left, and which sets of engines fit beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations


def sequences_that_fit(left: int, bytes_per_token: int, tokens: int) -> int:
    """Sequences of `tokens` tokens whose KV cache fits into `left` bytes; 0 when not even one does."""
    return tokens_that_fit(left, bytes_per_token) // tokens


def tokens_that_fit(left: int, bytes_per_token: int) -> int:
    """Tokens whose KV cache fits into `left` bytes, over all sequences together."""
    return max(0, left) // bytes_per_token


def sets_that_fit(demands: Mapping[str, int], room: int) -> list[tuple[str, ...]]:
    """The largest sets of names whose bytes fit into `room` together: adding any other name would exceed it.

    Tries every set, which is a matter of milliseconds for the handful of engines that one machine has.
    """
    found: list[tuple[str, ...]] = []
    for count in range(len(demands), 0, -1):
        for names in combinations(demands, count):
            fits = sum(demands[name] for name in names) <= room
            if fits and not any(set(names) < set(larger) for larger in found):
                found.append(names)
    return found
