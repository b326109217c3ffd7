"""A project folder that a test may spoil, and the command line to show it to."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rig.settings import SettingsError, load

ROOT = Path(__file__).resolve().parents[2]

WORKSTATION = """\
hosts:
  workstation:
    address: 192.168.1.20
    user: owner
    groups: [workstation]
"""


@dataclass(frozen=True)
class Project:
    """A folder with the shipped group_data, inventory.py and the package."""

    root: Path

    def path(self, name: str) -> Path:
        return self.root / "group_data" / name

    def write(self, name: str, text: str) -> None:
        self.path(name).write_text(text, encoding="utf-8")

    def change(self, name: str, old: str, new: str) -> int:
        """Replaces the only place where `old` stands; the line on which `new` begins."""
        text = self.path(name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        self.write(name, text.replace(old, new))
        return text[: text.index(old)].count("\n") + 1

    def lines(self, name: str, start: str) -> list[int]:
        """The numbers of the lines that begin with `start`, after their indentation."""
        lines = self.path(name).read_text(encoding="utf-8").splitlines()
        return [number for number, text in enumerate(lines, 1) if text.strip().startswith(start)]

    def line(self, name: str, start: str) -> int:
        """The number of the only line that begins with `start`."""
        (number,) = self.lines(name, start)
        return number

    def problems(self, **data: str) -> list[str]:
        """What loading says, a line each; empty when all is right."""
        try:
            load(self.root, data=data)
        except SettingsError as error:
            return error.report().splitlines()
        return []

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """A command of the project, as it is typed in the project's folder."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("RIG_", "PYINFRA_"))}
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
