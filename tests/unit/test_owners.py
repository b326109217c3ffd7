"""What is left to the owner is said in the documentation, and nothing else is."""

from __future__ import annotations

from rig.owners import LEFT
from tests.unit.project import ROOT


def test_the_page_lists_exactly_what_the_code_leaves_to_the_owner() -> None:
    page = (ROOT / "docs/failed-runs.md").read_text(encoding="utf-8")
    _, _, section = page.partition("### What Rig leaves to you\n")
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert rows[2:] == [f"| {left.what} | {left.why} |" for left in LEFT]
