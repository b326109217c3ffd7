"""Programs of others that do the work: started, watched, and quoted when they fail."""

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
"""Seconds between two looks at how far a program is."""
GRACE = 5.0
"""Seconds in which a program that is ended may tidy up."""


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    code: int
    output: str
    errors: str

    @property
    def cause(self) -> str:
        """What it said last of what was wrong."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1] if lines else f"it ended with {self.code}"

    @property
    def disk_is_full(self) -> bool:
        """Whether that was why; not everybody begins the sentence with a capital letter."""
        return os.strerror(errno.ENOSPC).lower() in self.errors.lower()


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """What a program gets of our own environment: the paths by which it finds others, and its home."""
    return {name: value for name, value in environment.items() if name in ("PATH", "HOME", "TMPDIR")}


def run(
    words: Sequence[str],
    environment: dict[str, str] | None = None,
    descriptors: Sequence[int] = (),
    meanwhile: Callable[[], None] = lambda: None,
) -> Done:
    """Run a program to its end; `meanwhile` is called now and then, and ends it by raising something.

    Raises Failed where it is not installed.
    In English, as what it says is looked at; into files, as a pipe that nobody reads would stop it.
    """
    if shutil.which(words[0]) is None:
        raise Failed(f"{words[0]} is not installed; a deploy installs it")
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = subprocess.Popen(
            # It goes when we are killed: the next run must not meet it, writing into the same file.
            ["setpriv", "--pdeathsig", "KILL", "--", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            pass_fds=descriptors,
            # Not what a login has besides: a RESTIC_ variable of /etc/environment would be an option of each call.
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
