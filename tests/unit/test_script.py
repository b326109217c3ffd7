"""`script/test` says that all passed only when something was tried, and records the bench only when everything was."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.project import ROOT

PYTHON = """echo "$2" >>called
[[ $2 == pytest ]] || exit 0
code=$(head -n 1 codes)
sed -i 1d codes
exit "$code"
"""


@pytest.mark.parametrize(
    ("arguments", "codes", "status", "said"),
    [
        ("", "0 0 0 0", 0, "all passed"),
        ("--all", "0 0 0 0", 0, "all passed"),
        ("-k compose", "0 5 5 5", 0, "all passed"),
        ("-k neighbour", "5 5 5 0", 0, "all passed"),
        ("-k frewall", "5 5 5 5", 5, "failed"),
        ("--unit -k frewall", "5 5 5", 5, "failed"),
        ("", "5 0", 5, "failed"),
        ("-k compose", "1 0", 1, "failed"),
    ],
)
def test_a_run_that_tried_nothing_has_failed(
    tmp_path: Path, arguments: str, codes: str, status: int, said: str
) -> None:
    """Everything that it calls stands in: pytest ends with one of the codes after the other."""
    (tmp_path / "script").mkdir()
    shutil.copy(ROOT / "script/test", tmp_path / "script/test")
    (tmp_path / "codes").write_text(codes.replace(" ", "\n") + "\n")
    for program in ("script/setup", ".venv/bin/ruff", ".venv/bin/mypy", ".venv/bin/python"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{PYTHON if program.endswith('python') else 'true'}\n")
        path.chmod(0o755)
    done = subprocess.run([tmp_path / "script/test", *arguments.split()], capture_output=True, text=True)
    assert done.returncode == status
    called = (tmp_path / "called").read_text().split()
    assert "tests.slowest" in called
    assert ("tests.bench" in called) is (status == 0 and arguments in ("", "--all"))
    assert done.stdout.splitlines()[-1].startswith(f"== {said} (")
