"""A project folder that a test may break, and the command line to run on it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, chdir
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from unittest import mock

from click.testing import CliRunner

from rig.operator.commands import COMMANDS, main
from rig.settings import SettingsError, load

ROOT = Path(__file__).resolve().parents[2]

WORKSTATION = """\
hosts:
  workstation:
    address: 192.168.1.20
    user: owner
    groups: [workstation]
"""


def _own_variables() -> list[str]:
    """Names in the tests' environment that would change the effect of a command."""
    return [key for key in os.environ if key.startswith(("RIG_", "PYINFRA_"))]


@dataclass(frozen=True)
class Project:
    """A folder with the shipped group_data, inventory.py and the package."""

    root: Path

    def path(self, name: str) -> Path:
        return self.root / "group_data" / name

    def write(self, name: str, text: str) -> None:
        self.path(name).write_text(text, encoding="utf-8")

    def change(self, name: str, old: str, new: str) -> int:
        """Replace the only occurrence of `old`; return the line on which `new` begins."""
        text = self.path(name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        self.write(name, text.replace(old, new))
        return text[: text.index(old)].count("\n") + 1

    def lines(self, name: str, start: str) -> list[int]:
        """Numbers of the lines that begin with `start`, after their indentation."""
        lines = self.path(name).read_text(encoding="utf-8").splitlines()
        return [number for number, text in enumerate(lines, 1) if text.strip().startswith(start)]

    def line(self, name: str, start: str) -> int:
        """Number of the only line that begins with `start`."""
        (number,) = self.lines(name, start)
        return number

    def problems(self, **data: str) -> list[str]:
        """The problems that loading reports, a line each; empty for correct settings."""
        try:
            load(self.root, data=data)
        except SettingsError as error:
            return error.report().splitlines()
        return []

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the project in the project's folder, as typed."""
        clean = {key: value for key, value in os.environ.items() if key not in _own_variables()}
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.root,
            env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def rig(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run ``rig`` in this process; starting another one takes most of the time."""
        runner = CliRunner(env=dict.fromkeys(_own_variables()) | environ)
        package = main.callback.__module__
        with ExitStack() as stack:
            stack.enter_context(chdir(self.root))
            for module in (package, *(f"{package}.{name}" for name in COMMANDS)):
                if hasattr(import_module(module), "ROOT"):
                    stack.enter_context(mock.patch(f"{module}.ROOT", self.root))
            done = runner.invoke(main, arguments, prog_name="rig")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(["rig", *arguments], done.exit_code, done.stdout, done.stderr)
