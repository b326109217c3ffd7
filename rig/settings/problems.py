"""Problems in the settings, and their report: one sentence with file, line, key and remedy each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LONGEST_SHOWN = 60
UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Cs")
"""Unicode categories of characters that end a line, or are invisible: control and format characters, separators of
lines and paragraphs, and halves of characters."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem for a person to fix, and its place."""

    file: str
    line: int | None
    path: str
    message: str

    @property
    def place(self) -> str:
        """File and line."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def sentence(self) -> str:
        """The key, the problem, and the correction."""
        return _in_one_line(f"{self.path}: {self.message}" if self.path else self.message)

    def __str__(self) -> str:
        return f"{self.place}: {self.sentence}"


class SettingsError(Exception):
    """Invalid settings, with every problem found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        """Keep each problem once, in the order of files and lines: several hosts share the same files."""
        self.problems = tuple(sorted(dict.fromkeys(problems), key=lambda p: (p.file, p.line or 0, p.path)))
        super().__init__(self.report())

    def report(self) -> str:
        """All problems, a line each."""
        return "\n".join(str(problem) for problem in self.problems)


class NoMachine(SettingsError):
    """The settings name no machine to work on."""

    def __init__(self, sentence: str, source: str = "group_data/hosts.yml") -> None:
        super().__init__([Problem(source, None, "", sentence)])


def _in_one_line(text: str) -> str:
    """Text with invisible characters spelt out: a key may hold a line break, or move the cursor of a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def show(value: object) -> str:
    """A value quoted for a sentence, cut short so that a long one does not bury the remedy."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
