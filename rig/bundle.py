"""Many shell commands as one script; each has its own exit code and its whole output."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SECONDS = 20
"""Time limit of a script; after it the script is killed and gives no answers."""

# Programs that wait for a daemon, start an interpreter or read large lists. Commands with one of them run in parallel.
_SLOW = re.compile(r"\b(?:docker|rig-models|apt-cache|dpkg|dpkg-query|curl|unshare)\b")


_MARK = re.compile(r"rig-[0-9a-f]{24}")


@dataclass(frozen=True)
class Answer:
    """The result of one command."""

    code: int
    output: str
    """Its standard output. If it is not UTF-8, there is no Answer at all."""

    @property
    def lines(self) -> list[str]:
        """The output's lines, without their ends."""
        lines = self.output.split("\n")
        return lines if lines[-1] else lines[:-1]


def script(commands: Sequence[str]) -> str:
    """A script for the standard input of `sh` that runs each command in a subshell and prints all answers at once.

    It is one compound command, so a script that arrives in part does not run at all. Slow commands run at the same time
    as the others; each passes its output on through a pipe, so no file is written.
    """
    mark = _mark(commands)
    frames = [
        f"(eval {shlex.quote(command)}); printf '\\n{mark} %d %d\\n' {number} $?"
        for number, command in enumerate(commands)
    ]
    slow = [frame for frame, command in zip(frames, commands, strict=True) if _SLOW.search(command)]
    body = "\n".join([":", *(frame for frame in frames if frame not in slow)])
    nested = f"{{\n{body}\n}} </dev/null"
    for frame in slow:
        nested = f"{{ {frame}; }} </dev/null | {{\n{nested}\ncat\n}}"
    return f"{{\n{{\n{nested}\n}} 2>/dev/null | base64 -w 0 | {{ echo; echo {mark}; cat; echo; echo {mark}; }}\n}}\n"


def answers(commands: Sequence[str], printed: Iterable[str]) -> list[Answer | None]:
    """The answer to each command, from the output of its script and perhaps of others; None where there is none."""
    found: list[Answer | None] = [None] * len(commands)
    mark = _mark(commands)
    lines = list(printed)
    places = [number for number, line in enumerate(lines) if line == mark]
    if len(places) != 2 or places[1] - places[0] != 2:
        return found
    try:
        content = base64.b64decode(lines[places[0] + 1], validate=True)
    except (binascii.Error, ValueError):
        return found
    begin = 0
    for frame in re.finditer(rb"\n%s (\d+) (\d+)\n" % mark.encode(), content):
        number, code = int(frame[1]), int(frame[2])
        output = content[begin : frame.start()]
        begin = frame.end()
        try:
            found[number] = Answer(code, output.decode())
        except (IndexError, UnicodeDecodeError):
            continue
    return found


def chatter(printed: Iterable[str]) -> list[str]:
    """Output that is not part of any script's answers, such as the greeting of a login shell."""
    found, inside = [], False
    for line in printed:
        if _MARK.fullmatch(line):
            inside = not inside
        elif not inside and line.strip():
            found.append(line)
    return found


def fed(shell: str, text: str) -> str:
    """A command that runs a script in another shell, for use inside a script."""
    end = f"END-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    return f"{shell} <<'{end}'\n{text}{end}\n"


def _mark(commands: Sequence[str]) -> str:
    """A word that no output contains: the hash of the commands."""
    return f"rig-{hashlib.sha256(chr(0).join(commands).encode()).hexdigest()[:24]}"
