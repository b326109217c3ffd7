"""The last reading, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LATE = 3
"""Intervals after which a reading is out of date."""

ROWS = (
    ("temperature", "temperature", "{:g} C"),
    ("below its limit", "margin", "{:g} C"),
    ("memory's temperature", "memory_temperature", "{:g} C"),
    ("power", "power", "{:g} W"),
    ("power limit", "power_limit", "{:g} W"),
    ("processors' clock", "sm_clock", "{:g} MHz"),
    ("memory's clock", "memory_clock", "{:g} MHz"),
    ("fan", "fan", "{:g} %"),
    ("memory in use", "memory_used", "{:g} MiB"),
    ("memory", "memory_total", "{:g} MiB"),
    ("computing", "utilization", "{:g} % of the time"),
    ("performance state", "performance_state", "P{}"),
)


def problem_of(last: Mapping[str, Any], now: float) -> str | None:
    """Why this reading is unreliable; None if it is reliable."""
    if last["problem"] is not None:
        return str(last["problem"])
    age = now - last["time"]
    if age > LATE * last["interval"]:
        return f"the last reading is {age:.0f} s old; is the service running? systemctl status rig-thermal"
    return None


def table(last: Mapping[str, Any]) -> str:
    """A block for each card, with a line for each reported value."""
    lines: list[str] = []
    for card in last["cards"]:
        level = [] if card.get("level") is None else [("level", card["level"])]
        rows = [*level, *((label, form.format(card[key])) for label, key, form in ROWS if card[key] is not None)]
        if card["reasons"]:
            rows.append(("held down by", ", ".join(card["reasons"])))
        lines += [f"{card['name']} at {card['bus']}", *(f"  {label:<22}{value}" for label, value in rows)]
    lines += [f"Xid {xid['xid']} at {xid['bus']}: {xid['count']} times since the boot" for xid in last["xids"]]
    words = {"power_limit": "the power limit is lowered", "engine": "an engine is stopped"}
    lines += [f"because of heat, {words[name]}" for name, applied in last["cooling"].items() if applied]
    return "\n".join(lines)
