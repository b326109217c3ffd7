"""Which tests are of the bench itself, and whether they have passed with the lab as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORD = "tests/bench.passed"
"""Kept in the repository, so that a fresh clone knows: the digest of what follows, as the tests last passed with it."""
BENCH = (
    *("tests/lab/test_lab.py", "tests/lab/test_pool.py", "tests/lab/test_converged.py", "tests/lab/test_cache.py"),
    *("tests/lab/test_hub.py", "tests/unit/test_standin_smi.py"),
    *("tests/unit/test_lab_checkpoint.py", "tests/unit/test_lab_hosts.py"),
)
SUBJECTS = ("lab", "tests/lab/conftest.py", "tests/lab/traces.py", *BENCH)


def digest(root: Path = ROOT) -> str:
    """Changes with the lab, and with its tests."""
    found = hashlib.sha256()
    for path in sorted(_files(root)):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def passed(root: Path = ROOT) -> bool:
    """Whether the tests of the bench have passed with the lab as it is."""
    try:
        return (root / RECORD).read_text().strip() == digest(root)
    except FileNotFoundError:
        return False


def record(root: Path = ROOT) -> None:
    (root / RECORD).write_text(f"{digest(root)}\n")


def _files(root: Path) -> Iterator[Path]:
    for name in SUBJECTS:
        top = root / name
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


if __name__ == "__main__":
    record()
