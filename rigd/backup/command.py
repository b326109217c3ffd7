"""External programs that do the work: start them, watch them, and quote them when they fail."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile

from rigd.base.errors import Failed

LOOK = 0.5
"""Seconds between two looks at a program's progress."""
GRACE = 5.0
"""Seconds that a program may take to clean up when it is stopped."""


@dataclass(frozen=True)
class Done:
    """A finished program: its status and its output."""

    code: int
    output: str
    errors: str

    @property
    def cause(self) -> str:
        """The last error that the program printed."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1] if lines else f"it ended with {self.code}"

    @property
    def disk_is_full(self) -> bool:
        """True if a full disk was the cause. Not every program begins the sentence with a capital letter."""
        return os.strerror(errno.ENOSPC).lower() in self.errors.lower()


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of our environment that a program inherits: the search path and the home folder."""
    return {name: value for name, value in environment.items() if name in ("PATH", "HOME", "TMPDIR")}


def run(
    words: Sequence[str],
    environment: dict[str, str] | None = None,
    descriptors: Sequence[int] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> Done:
    """Run a program to its end; `meanwhile` is called now and then, and stops the program by raising.

    The locale is English, because we parse the output. The output goes into files, because an unread pipe would block
    the program. Raises Failed if the program is not installed.
    """
    if shutil.which(words[0]) is None:
        raise Failed(f"{words[0]} is not installed; a deploy installs it")
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = subprocess.Popen(
            # The program dies with us: the next run must not meet it writing into the same file.
            ["setpriv", "--pdeathsig", "KILL", "--", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            pass_fds=descriptors,
            # Nothing else from the login: a RESTIC_ variable of /etc/environment would be an option of each call.
            env={**inherited(os.environ), "LC_ALL": "C", **(environment or {})},
        )
        try:
            while True:
                try:
                    process.wait(LOOK)
                    break
                except subprocess.TimeoutExpired:
                    meanwhile()
            meanwhile()
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(GRACE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        output.seek(0)
        errors.seek(0)
        return Done(process.returncode, output.read().decode(errors="replace"), errors.read().decode(errors="replace"))
