"""Artefacts that are slow to make and equal for all machines: built once, found again by their recipe."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.progress import Reporter

Note = Callable[[str], object]


class BuildError(Exception):
    """An artefact could not be made; the message is shown to the owner."""


@dataclass(frozen=True)
class Cache:
    """A directory of artefacts. A name carries its recipe's hash: a changed recipe is another artefact."""

    directory: Path
    reporter: Reporter

    def artefact(self, name: str, title: str, recipe: Sequence[str], make: Callable[[Path, Note], None]) -> Path:
        """The finished artefact; it is made beside its place and renamed, so that a killed build leaves nothing."""
        finished = self.place(name, recipe)
        if finished.exists():
            return finished
        with self._alone(name, title):
            if finished.exists():
                return finished
            unfinished = self.directory / f".{name}.part"
            _remove(unfinished)
            with self.reporter.step(title) as note:
                make(unfinished, note)
            unfinished.rename(finished)
        return finished

    def place(self, name: str, recipe: Sequence[str]) -> Path:
        """Path of a finished artefact."""
        digest = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]
        return self.directory / f"{name}-{digest}"

    @contextmanager
    def _alone(self, name: str, title: str) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f".{name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                with self.reporter.step(f"Wait for another build: {title}"):
                    fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def recipe_source(*modules: str) -> list[str]:
    """The text of recipe modules; a change of it makes their artefacts out of date."""
    here = Path(__file__).parent / "recipes"
    return [(here / f"{module}.py").read_text() for module in modules]


def run(
    command: Sequence[str | Path],
    note: Note | None = None,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> str:
    """Run a build command, passing its lines on as remarks; the tail of its output becomes the error."""
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=directory,
        env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if note and line.strip():
            note(line.strip()[:70])
    if process.wait() != 0:
        tail = "".join(lines[-15:])
        raise BuildError(f"'{Path(str(command[0])).name}' ended with status {process.returncode}:\n{tail}")
    return "".join(lines)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
