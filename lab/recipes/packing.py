"""Archives that come out the same whenever they are made from the same files."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

QUICK = 1


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(tree: Path, archive: Path, keep: Callable[[str], bool] = lambda name: True) -> str:
    """Pack `tree` as a .tar.gz, sorted and without times; the digest of the tar inside is returned."""
    inner = hashlib.sha256()

    class Hashed(gzip.GzipFile):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            inner.update(data)
            return super().write(data)

    with (
        archive.open("wb") as raw,
        Hashed(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=QUICK) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(tree.rglob("*")):
            name = path.relative_to(tree).as_posix()
            if keep(name):
                tar.add(path, arcname=name, recursive=False, filter=_timeless)
    return inner.hexdigest()


def _timeless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = 0
    member.uname = member.gname = ""
    return member
