"""Host tests of a machine that cannot be reached end with one sentence."""

from __future__ import annotations

import shutil
import socket

from tests.unit.project import ROOT, Project


def test_a_machine_that_is_off_is_one_sentence_and_not_a_failure_of_each_test(project: Project) -> None:
    with socket.socket() as listener:
        # Bound and not listening: nobody else takes the port, and whoever connects is refused.
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        project.write("hosts.yml", f"hosts:\n  away: {{address: 127.0.0.1, port: {port}, user: root}}\n")
        shutil.copytree(ROOT / "tests" / "host", project.root / "tests" / "host")
        shutil.copy(ROOT / "pyproject.toml", project.root)
        done = project.run("pytest", "-q", "-p", "no:cacheprovider", "tests/host/test_machine.py", "--hosts=ssh://away")
    assert done.returncode == 2
    (sentence,) = [line for line in done.stdout.splitlines() if "away" in line]
    assert "Connection refused" in sentence
    assert "FAILED" not in done.stdout and "ERROR" not in done.stdout and "Traceback" not in done.stdout + done.stderr
