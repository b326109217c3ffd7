"""nvidia-smi, asked: the one way to the card that every driver has."""

from __future__ import annotations

import re

from rigd.base.command import Command, NoAnswer
from rigd.thermal.reading import FIELDS, Card, Unreadable, parse

UNKNOWN = re.compile(r'Field "([a-z_.]+)" is not a valid field to query')

CAUSES = {
    6: ("no_card", "the driver finds no card; is it seated, and does firmware have Above 4G Decoding on?"),
    9: ("no_driver", "the driver does not answer; is its module loaded? lsmod | grep nvidia"),
    15: ("card_lost", "the card does not answer any more; reboot"),
    18: ("mismatch", "library and module of the driver are of different versions; reboot"),
}
"""Exit codes of nvidia-smi (its manual page), as a word for metrics and a sentence."""


class Smi:
    """nvidia-smi, and what this driver's knows to be asked."""

    def __init__(self, program: str, timeout: float) -> None:
        self._program = program
        self._command = Command(timeout)
        self.fields = list(FIELDS)
        """What it is asked; those that it refused as unknown are left out from then on."""

    def cards(self) -> list[Card]:
        """Every card, read now. Raises NoAnswer."""
        # Once more for every field, as the answer names one unknown field at a time.
        for _ in range(len(FIELDS)):
            query = f"--query-gpu={','.join(self.fields)}"
            answer = self._command.run([self._program, query, "--format=csv,noheader,nounits"])
            unknown = UNKNOWN.search(answer.text)
            if unknown is None or unknown[1] not in self.fields or len(self.fields) == 1:
                break
            self.fields.remove(unknown[1])
        if answer.code != 0:
            said = first_line(answer.text)
            cause, remedy = CAUSES.get(answer.code, ("failed", "look at it: nvidia-smi"))
            raise NoAnswer(cause, f"nvidia-smi ended with {answer.code}, '{said}': {remedy}")
        try:
            return parse(self.fields, answer.text)
        except Unreadable as error:
            raise NoAnswer("unreadable", f"the answer of nvidia-smi cannot be read: {error}") from None


def first_line(text: str) -> str:
    """The first line that says something, as far as it can be shown."""
    lines = ("".join(filter(str.isprintable, line)).strip() for line in text.splitlines())
    return next((line[:160] for line in lines if line), "")
