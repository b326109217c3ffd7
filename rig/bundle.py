"""Many commands of a shell as one script: each by itself, with its exit code and everything that it printed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SECONDS = 20
"""How long a script may take; then it is killed and answers nothing."""

# Programs that wait for a daemon, start an interpreter or read large lists. Commands that name one run beside the rest.
_SLOW = re.compile(r"\b(?:docker|rig-models|apt-cache|dpkg|dpkg-query|curl|unshare)\b")


_MARK = re.compile(r"rig-[0-9a-f]{24}")


@dataclass(frozen=True)
class Answer:
    """How one command ended."""

    code: int
    output: str
    """Its standard output; what is no UTF-8 makes the whole answer None."""

    @property
    def lines(self) -> list[str]:
        """The output's lines, without their ends."""
        lines = self.output.split("\n")
        return lines if lines[-1] else lines[:-1]


def script(commands: Sequence[str]) -> str:
    """A script for the standard input of `sh` that runs each command in a subshell and prints all answers at once.

    It is one compound command, so that a script which arrives in part does not run at all. Slow commands run at the
    same time as the others; each hands its output on through a pipe, so no file is written.
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
    """The answer to each command in the lines that the script printed, or several such scripts; None without one."""
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
    """What else was printed than the answers of scripts, such as the greeting of a login shell."""
    found, inside = [], False
    for line in printed:
        if _MARK.fullmatch(line):
            inside = not inside
        elif not inside and line.strip():
            found.append(line)
    return found


def fed(shell: str, text: str) -> str:
    """A command that runs a script with another shell, as part of a script itself."""
    end = f"END-{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    return f"{shell} <<'{end}'\n{text}{end}\n"


def _mark(commands: Sequence[str]) -> str:
    """A word that no output contains: the hash of the commands themselves."""
    return f"rig-{hashlib.sha256(chr(0).join(commands).encode()).hexdigest()[:24]}"
