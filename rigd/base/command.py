"""Run a program with a time limit."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOST = 1 << 24
"""Most bytes of output; more than that counts as a failure."""
GRACE = 2.0
"""Seconds until a killed program must be gone."""
FAILED = "failed"
"""Cause of a NoAnswer: the program ended by itself with a failure."""
ENVIRONMENT = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class NoAnswer(Exception):
    """There is no usable answer; `cause` is a word for metrics, the message a sentence for people."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause


@dataclass(frozen=True)
class Answer:
    """Exit status and output, both streams together."""

    code: int
    text: str

    def failure(self, program: str) -> NoAnswer:
        """The exception for a failed program."""
        said = " ".join(self.text.split())[:160]
        return NoAnswer(FAILED, f"{program} ended with {self.code}, '{said}'")


class Command:
    """Run one program, one at a time.

    A program that queries a broken driver can hang in the kernel, where no signal reaches it. It is then left behind,
    and no other is started until it is gone: they would pile up, one a minute.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._left: subprocess.Popen[bytes] | None = None

    def run(self, words: Sequence[str]) -> Answer:
        """Run the program. Raises NoAnswer if it is missing, exceeds its time, or an earlier one is still running."""
        name = Path(words[0]).name
        if self._left is not None and self._left.poll() is None:
            raise _stuck(name, self._left.pid)
        self._left = None
        end = time.monotonic() + GRACE
        while (pid := left_over(name)) is not None:
            if time.monotonic() >= end:
                raise _stuck(name, pid)
            time.sleep(0.05)
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=ENVIRONMENT,
                start_new_session=True,
            )
        except OSError as error:
            raise NoAnswer("missing", f"{words[0]} cannot be run: {error.strerror}") from None
        try:
            text = self._read(name, process, time.monotonic() + self._timeout)
        finally:
            self._end(process)
        if text is None:
            raise NoAnswer("timeout", f"{name} did not answer within {self._timeout:g} s")
        return Answer(process.returncode, text.decode(errors="replace"))

    def _read(self, name: str, process: subprocess.Popen[bytes], end: float) -> bytes | None:
        """Read the output to its end; None at the time limit. Raises NoAnswer for too much output."""
        assert process.stdout is not None
        pipe, said = process.stdout.fileno(), bytearray()
        while True:
            if len(said) > MOST:
                raise NoAnswer("unreadable", f"{name} does not stop talking")
            ready, _, _ = select.select([pipe], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                return None
            data = os.read(pipe, 1 << 16)
            if not data:
                break
            said += data
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        return bytes(said)

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        process.stdout.close()
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._left = process


class Programs:
    """Several programs, each with its own Command."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._commands: dict[str, Command] = {}

    def answer(self, *words: str) -> Answer:
        """Run a program; return its output and status. Raises NoAnswer if it does not end by itself."""
        return self._commands.setdefault(words[0], Command(self._timeout)).run(words)

    def output(self, *words: str) -> str:
        """Run a program; return its output. Raises NoAnswer, also for an error."""
        answer = self.answer(*words)
        if answer.code != 0:
            raise answer.failure(Path(words[0]).name)
        return answer.text


def left_over(name: str, processes: Path = Path("/proc")) -> int | None:
    """PID of a killed program of this name that is still there; the process that killed it may be long gone."""
    # The kernel keeps the first fifteen characters of a name, and writes it in the first line. Few processes match.
    named = f"Name:\t{name[:15]}\n"
    for status in processes.glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if not text.startswith(named):
            continue
        found = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        killed = int(found.get("ShdPnd", "0"), 16) >> (signal.SIGKILL - 1) & 1
        # A zombie counts as gone, unless another thread remains: that thread hangs.
        gone = found.get("State", "").startswith("Z") and found.get("Threads") == "1"
        if killed and not gone:
            return int(status.parent.name)
    return None


def _stuck(name: str, pid: int) -> NoAnswer:
    return NoAnswer("stuck", f"an earlier {name} (PID {pid}) hangs and cannot be killed; reboot")
