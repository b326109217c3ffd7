"""Leftovers of deploys besides models: images and programs that no engine uses, and keys without a user."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rigd.base.errors import Failed
from rigd.models.manifest import Leavings, Manifest
from rigd.models.registry import VERSION, started

SECONDS = 60
"""Seconds that Docker may take to answer."""


@dataclass(frozen=True)
class Remain:
    """One leftover."""

    kind: Literal["image", "program", "key"]
    name: str
    size: int = 0

    @property
    def what(self) -> str:
        """Its description, for people."""
        if self.kind == "image":
            return f"the image {self.name}, which no engine starts with"
        if self.kind == "program":
            return f"the programs in {self.name}, which no engine starts with"
        return f"the key {self.name}, which no engine and no consumer of the settings has"


def remains(manifest: Manifest) -> list[Remain]:
    """Images, then programs, then keys. Those of others are left alone."""
    places = manifest.leavings
    if places is None:
        return []
    named = started(manifest)
    return [
        *(Remain("image", name, _image_size(name)) for name in _images(places) if name not in named),
        *(
            Remain("program", str(folder), _size(folder))
            for folder in sorted(Path(places.programs).glob("*/"))
            if VERSION.fullmatch(folder.name) and str(folder) not in named
        ),
        *(Remain("key", name) for name in _variables(places) if name not in places.in_use),
    ]


def delete(remain: Remain, manifest: Manifest) -> None:
    """Delete a leftover. Raises Failed; an image that some container uses stays."""
    places = manifest.leavings
    assert places is not None, "it was found by them"
    if remain.kind == "image":
        done = _docker("image", "rm", remain.name)
        if done.returncode != 0 and "No such image" not in done.stderr:
            raise Failed(f"{remain.what}, is not deleted: {done.stderr.strip()}")
        lines = [line for line in _lines(places.images) if line != remain.name]
        _replace(Path(places.images), lines, 0o644)
    elif remain.kind == "program":
        shutil.rmtree(remain.name)
    else:
        _forget(remain.name, places)


@contextmanager
def no_deploy(places: Leavings | None) -> Iterator[None]:
    """Hold off deploys. Raises Failed if one is running."""
    if places is None:
        yield
        return
    try:
        descriptor = os.open(places.deploy, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError:
        # A user who may not take the lock may not delete a deploy's files either.
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(descriptor, 200).decode(errors="replace").strip()
            raise Failed(f"a deploy is at work ({who}); run again when it is done") from None
        yield
    finally:
        os.close(descriptor)


def _images(places: Leavings) -> list[str]:
    """The images that deploys pulled and that still exist."""
    return [name for name in dict.fromkeys(_lines(places.images)) if _image_size(name)]


def _image_size(name: str) -> int:
    """Size in bytes; 0 without the image, or without Docker."""
    done = _docker("image", "inspect", "--format", "{{.Size}}", name)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdecimal() else 0


def _docker(*words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(["docker", *words], 1, "", str(error))


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _variables(places: Leavings) -> list[str]:
    return [match[1] for line in _lines(places.keys) if (match := re.match(r"(RIG_KEY_[A-Z0-9_]+)=", line))]


def _forget(variable: str, places: Leavings) -> None:
    """Delete a key from the store, together with a native engine's own file."""
    # A deploy's own script takes this lock.
    store = Path(places.keys)
    descriptor = os.open(store.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        lines = [line for line in _lines(places.keys) if not line.startswith(f"{variable}=")]
        _replace(store, lines, 0o600)
    finally:
        os.close(descriptor)
    for path in Path(places.native_keys).glob("*"):
        if f"RIG_KEY_{path.name.upper().replace('-', '_')}" == variable:
            path.unlink()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except FileNotFoundError:
        return []


def _replace(path: Path, lines: list[str], mode: int) -> None:
    """Write a file atomically, and never with more permissions than in the end."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(f"{line}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
