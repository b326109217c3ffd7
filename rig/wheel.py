"""rigd as a wheel, built from its folder; the same sources give the same bytes, whose hash is the version."""

from __future__ import annotations

import base64
import hashlib
import tomllib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "rigd"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The earliest time in a zip file; with the sources' own times every checkout would give a different wheel."""


@dataclass(frozen=True)
class Wheel:
    """A wheel, and the file name that pip requires."""

    name: str
    content: bytes
    programs: Mapping[str, str]
    """The commands it installs, each with its `module:function`."""
    modules: str
    """SHA-256 of the output of `sha256sum` for its Python files, in the order of their bytes."""

    @property
    def version(self) -> str:
        """The first digits of its SHA-256."""
        return hashlib.sha256(self.content).hexdigest()[:12]


@cache
def build(source: Path = SOURCE) -> Wheel:
    """The wheel of the package in `source`, pure Python; its metadata come from pyproject.toml."""
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stem = f"{project['name']}-{project['version']}"
    files = {
        f"{project['name']}/{path.relative_to(source)}": path.read_bytes() for path in sorted(source.rglob("*.py"))
    }
    scripts = "".join(f"{name} = {target}\n" for name, target in sorted(project["scripts"].items()))
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in project["dependencies"])
    about = f"{stem}.dist-info"
    files |= {
        f"{about}/METADATA": (
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
            f"Summary: {project['description']}\nRequires-Python: {project['requires-python']}\n{needs}"
        ).encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: rig\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": f"[console_scripts]\n{scripts}".encode(),
    }
    record = "".join(f"{name},sha256={_digest(content)},{len(content)}\n" for name, content in files.items())
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n".encode()
    programs = dict(sorted(project["scripts"].items()))
    return Wheel(f"{stem}-py3-none-any.whl", _zipped(files), programs, modules(files))


def modules(files: Mapping[str, bytes]) -> str:
    """SHA-256 over the Python files among `files` (path to content); verifies an installation."""
    listing = "".join(
        f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files) if name.endswith(".py")
    )
    return hashlib.sha256(listing.encode()).hexdigest()


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _zipped(files: dict[str, bytes]) -> bytes:
    packed = BytesIO()
    # Not compressed: another version of zlib would give different bytes.
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return packed.getvalue()
