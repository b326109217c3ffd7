"""Prints the files of tests that took longest, from pytest's own JUnit reports: python -m tests.slowest REPORT..."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as Xml
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

SHOWN = 10


def seconds(reports: list[Path]) -> Mapping[str, float]:
    """Seconds by file: set-up, call and tear-down of its tests, waiting included."""
    found: defaultdict[str, float] = defaultdict(float)
    for report in reports:
        for case in Xml.parse(report).iter("testcase"):
            found[case.get("classname", "").replace(".", "/") + ".py"] += float(case.get("time", "0"))
    return found


def table(found: Mapping[str, float]) -> str:
    """The longest first. Files run beside each other: together they take longer than the run."""
    longest = sorted(found, key=lambda name: -found[name])[:SHOWN]
    title = f"Slowest of {len(found)} files, which took {sum(found.values()):.0f} s:"
    return "\n".join([title, *(f"{found[name]:7.1f} s  {name}" for name in longest)])


if __name__ == "__main__":
    print(table(seconds([path for path in map(Path, sys.argv[1:]) if path.exists()])))
