"""The programs that read Rig's files: each accepts or refuses a file, and shows its reading of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.project import ROOT

FETCHED = Path(os.environ.get("RIG_LAB_CACHE", ROOT / ".lab" / "cache")) / "programs"
"""Folder in which script/setup puts programs whose packages would start a service."""


def program(name: str) -> str | None:
    """The program's path; None if it is missing."""
    own = FETCHED / name
    return str(own) if own.exists() else shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def needs(name: str) -> pytest.MarkDecorator:
    """Mark a test that needs this program."""
    return pytest.mark.skipif(program(name) is None, reason=f"not installed: {name} (script/setup installs it)")


def run(*words: str | Path, text: str | None = None, **environ: str) -> str:
    """Run a program that must succeed; return its complete output."""
    done = subprocess.run(
        [str(program(str(words[0])) or words[0]), *map(str, words[1:])],
        input=text,
        env={**os.environ, "LC_ALL": "C", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
