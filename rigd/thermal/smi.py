"""Query nvidia-smi, the one interface to the card that every driver has."""

from __future__ import annotations

import re

from rigd.base.card import ANSWERED
from rigd.base.command import FAILED, Command, NoAnswer
from rigd.thermal.reading import FIELDS, Reading, Unreadable, parse

UNKNOWN = re.compile(r'Field "([a-z_.]+)" is not a valid field to query')

CAUSES = {
    6: ("no_card", "the driver finds no card; is it seated, and does firmware have Above 4G Decoding on?"),
    9: ("no_driver", "the driver does not answer; is its module loaded? lsmod | grep nvidia"),
    12: ("no_driver", "the driver's library is missing; deploy, which installs it"),
    15: ("card_lost", "the card does not answer any more; reboot"),
    18: ("mismatch", "library and module of the driver are of different versions; reboot"),
}
"""Exit codes of nvidia-smi (its manual page), as a word for metrics and a sentence."""
SIGNS = {
    "No devices were found": 6,
    "communicate with the NVIDIA driver": 9,
    "libnvidia-ml": 12,
    "Unable to determine the device handle": 15,
    "is lost": 15,
    "fallen off the bus": 15,
    "version mismatch": 18,
}
"""The messages for these codes: some drivers print them and end with 0, 1 or 255."""


class Smi:
    """nvidia-smi, with the fields that this driver knows."""

    def __init__(self, program: str, timeout: float) -> None:
        self._program = program
        self._command = Command(timeout)
        self.fields = list(FIELDS)
        """The queried fields, without those that the driver refused as unknown."""

    def read(self) -> tuple[Reading, NoAnswer | None]:
        """Every card that answers, read now, and the failure of the others. Raises NoAnswer if no card answers."""
        # Once more per field, because an answer names only one unknown field.
        for _ in range(len(FIELDS)):
            query = f"--query-gpu={','.join(self.fields)}"
            answer = self._command.run([self._program, query, "--format=csv,noheader,nounits"])
            unknown = UNKNOWN.search(answer.text)
            if unknown is None or unknown[1] not in self.fields or len(self.fields) == 1:
                break
            self.fields.remove(unknown[1])
        try:
            reading = parse(self.fields, answer.text)
        except Unreadable as error:
            if _code(answer.code, answer.text) in ANSWERED:
                raise NoAnswer("unreadable", f"the answer of nvidia-smi cannot be read: {error}") from None
            raise _failure(answer.code, answer.text) from None
        remarks = "\n".join(reading.remarks)
        return reading, None if _code(answer.code, remarks) in ANSWERED else _failure(answer.code, remarks)


def _failure(code: int, text: str) -> NoAnswer:
    cause, remedy = CAUSES.get(_code(code, text), (FAILED, "look at it: nvidia-smi"))
    return NoAnswer(cause, f"nvidia-smi ended with {code}, '{first_line(text)}': {remedy}")


def _code(code: int, text: str) -> int:
    """The exit code that the manual page gives for this message."""
    if code in CAUSES:
        return code
    return next((found for sign, found in SIGNS.items() if sign in text), code)


def first_line(text: str) -> str:
    """The first line with text, without unprintable characters."""
    lines = ("".join(filter(str.isprintable, line)).strip() for line in text.splitlines())
    return next((line[:160] for line in lines if line), "")
