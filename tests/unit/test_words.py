"""Plain English: the habits that made the prose hard to read stay out of what owners read in every run and page."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.unit.project import ROOT

INSTEAD = {
    r"anew": "again",
    r"(?:is|are|was|were|be|been|gets?) told": "report, or say who is notified",
    r"(?:is|are|was|were|be|been) asked": "query, scrape or request",
    r"what is over": "whatever is left",
    r"taken out": "removed",
    r"becomes of it": "what happens",
    r"none of your business": "not worth an alert",
    r"makes no sense": "a usage error",
    r"connected to nothing|nothing was connected to": "no connection was made",
    r"what (?:monitors|installs|enrols|rig-\w+ is)": "the noun: the exporters, the installer, rig-mode's settings",
    r"(?:^|[^-\w])stands (?:above|below|here|there|further)": "follows, is above, is in",
}
"""A habit as a pattern, and what to write instead."""
OPERATION = re.compile(r'\bname=f?"([^"]+)"')


def pages() -> Iterator[tuple[str, str]]:
    """The README and the documentation."""
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def comments() -> Iterator[tuple[str, str]]:
    """The comments of the settings, which are their documentation."""
    for path in sorted((ROOT / "group_data").glob("*.yml")):
        yield path.name, "\n".join(re.findall(r"#(.*)", path.read_text(encoding="utf-8")))


def operations() -> Iterator[tuple[str, str]]:
    """Names of operations: what an owner reads in every run."""
    for path in sorted((ROOT / "tasks").glob("*.py")):
        yield path.name, "\n".join(OPERATION.findall(path.read_text(encoding="utf-8")))


def sources() -> Iterator[tuple[str, str]]:
    """Messages, docstrings and comments of what runs on both sides."""
    for folder in ("rig", "rigd", "tasks", "templates"):
        for path in sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".j2")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "text"), [*pages(), *comments(), *operations(), *sources()], ids=lambda value: str(value)[:40]
)
def test_prose_keeps_clear_of_the_worst_habits(place: str, text: str) -> None:
    found = [
        f"{place}: '{match[0].strip()}': write {better}"
        for habit, better in INSTEAD.items()
        for match in re.finditer(rf"(?<![\w-])(?:{habit})(?![\w-])", text, re.IGNORECASE | re.MULTILINE)
    ]
    assert found == []


def test_an_operation_is_named_by_an_imperative() -> None:
    names = [name for _, text in operations() for name in text.splitlines()]
    assert len(names) > 40
    assert [name for name in names if not re.match(r"[A-Z][a-z]+ ", name)] == []


@pytest.mark.parametrize(("place", "text"), list(pages()), ids=lambda value: str(value)[:40])
def test_prose_wraps_at_100(place: str, text: str) -> None:
    # What `rig plan --into` computes is a table with a line around it.
    written = re.sub(r"(?s)<!-- Computed by.*?<!-- End of what is computed", "", text)
    long = [line for line in written.splitlines() if len(line) > 100 and not line.startswith(("|", "    ", "<!--"))]
    assert long == []
