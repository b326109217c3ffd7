"""Fixtures of the unit tests: a copy of the project, and a lab that looks like a running one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.project import ROOT, Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The shipped project, in a folder of its own."""
    shutil.copytree(ROOT / "group_data", tmp_path / "group_data")
    shutil.copy(ROOT / "inventory.py", tmp_path)
    (tmp_path / "rig").symlink_to(ROOT / "rig")
    (tmp_path / "rigd").symlink_to(ROOT / "rigd")
    return Project(tmp_path)


@pytest.fixture
def running_lab(project: Project) -> Iterator[Path]:
    """A lab that looks like a running one: its pid file names a process that looks like its supervisor."""
    lab = project.root / ".lab"
    lab.mkdir()
    (lab / "hosts.yml").write_text("hosts:\n  rig-lab: {address: 10.77.0.2, user: rig}\n")
    waiting = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "lab.supervisor"]
    with subprocess.Popen(waiting, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as supervisor:
        assert supervisor.stdout is not None
        # Its command line is in /proc only once the program has really begun.
        supervisor.stdout.readline()
        (lab / "running").write_text(f"{supervisor.pid}\n")
        yield lab
        supervisor.kill()
