"""A check of `rig doctor`: what was examined, with its result, its evidence and a remedy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Result = Literal["good", "bad", "unknown"]


@dataclass(frozen=True)
class Check:
    """One check and its result."""

    name: str
    result: Result
    evidence: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The check as JSON."""
        return asdict(self)
