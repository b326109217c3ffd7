"""Disks of deployed machines: made once; tests of everything else start from a copy."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from lab.machine import CHECKOUT, Lab, LabFailed, build, cache_directory, down, elevated, purge

# The sources that decide the result of a deploy, besides the lab's artefacts.
DECIDING = (
    *("deploy.py", "inventory.py", "requirements.txt", "group_data", "tasks", "rig", "rigd", "templates", "files"),
    *("lab/disk.py", "lab/goods.py", "lab/spec.py", "lab/standins/hardware.py"),
)
KEPT = 3
"""Disks kept of each variant, the newest: branches, and checkouts that share a cache, alternate between them."""
OLDEST = 24 * 3600
"""Seconds. On an older disk, every boot would start the daily and weekly jobs."""


def disk(release: str = "trixie", gpu: bool = False) -> Path:
    """The converged disk of a machine, for `Lab.boot(origin=...)`; made if it is missing, by one process at a time."""
    name = f"converged-{release}{'-gpu' if gpu else ''}"
    finished = cache_directory() / f"{name}-{digest(CHECKOUT, _artefacts(release))}"
    with (cache_directory() / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _fresh(finished):
            _make(finished, release, gpu)
            subprocess.run(elevated("rm", "-f", *_variants(name)[KEPT:]), check=True)
    return finished


def digest(checkout: Path, artefacts: Sequence[str]) -> str:
    """Twelve letters that change with anything that decides the result of a deploy."""
    found = hashlib.sha256("\0".join(artefacts).encode())
    for path in sorted(_files(checkout)):
        found.update(f"\0{path.relative_to(checkout)}\0{path.stat().st_mode & 0o111:o}\0".encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _files(checkout: Path) -> Iterator[Path]:
    for name in DECIDING:
        top = checkout / name
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


@cache
def _artefacts(release: str) -> tuple[str, ...]:
    return build(release, show=lambda event: None)


def _variants(name: str) -> list[Path]:
    """The disks with this name and any digest; the newest first."""
    found = [path for path in cache_directory().glob(f"{name}-*") if path.name.rpartition("-")[0] == name]
    return sorted(found, key=lambda path: -path.lstat().st_mtime)


def _fresh(finished: Path) -> bool:
    return finished.is_symlink() and time.time() - finished.lstat().st_mtime < OLDEST


def _make(finished: Path, release: str, gpu: bool) -> None:
    """Boot, deploy, shut down, keep the disk. Raises LabFailed with the deploy's output if that fails."""
    directory = finished.with_name(f".{finished.name.rpartition('-')[0]}")
    # Leftovers of a killed process.
    down(directory)
    purge(directory)
    print(f"  Deploy to a Debian {release}{' with the card' if gpu else ''}, once for all tests ...", file=sys.stderr)
    lab = Lab.boot(directory, release, gpu=gpu, show=lambda event: None)
    try:
        done = lab.deploy("-y")
        if done.returncode:
            raise LabFailed(f"the deploy for {finished.name} failed:\n{done.stderr[-6000:]}")
        lab.stop()
        lab.keep_disk(finished)
    finally:
        lab.kill()
        purge(directory)
