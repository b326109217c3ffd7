"""The demonstration, as a newcomer runs it: twice, and stopped twice."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cache import Cache
from lab.demo import NONSENSE
from lab.machine import CHECKOUT, Lab, down, purge, running
from lab.progress import Reporter
from lab.recipes import smollm2
from tests.lab.conftest import Machines


@pytest.fixture(scope="module")
def directory(cache: Path) -> Iterator[Path]:
    directory = Machines().directory("demo")
    yield directory
    down(directory)
    purge(directory)


def demo(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(CHECKOUT / "script/demo"), *arguments],
        env={**os.environ, "RIG_LAB": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def first(directory: Path) -> str:
    """The first one's output."""
    return told(demo(directory))


def told(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_it_goes_from_nothing_to_an_answer_and_the_machine_keeps_running(directory: Path, first: str) -> None:
    assert re.findall(r"(?m)^\d/\d(?= )", first) == [f"{step}/6" for step in range(1, 7)]
    assert " passed" in first
    assert re.search(r"(?m)^  You: .+\n  \S+: .+$", first)
    assert not Lab.attach(directory).leashed


def test_the_answer_is_right_or_it_says_that_there_is_no_real_model(cache: Path, first: str) -> None:
    said = " ".join(first.partition("Ask the deployed engine\n")[2].partition("6/6")[0].split())
    assert "You: Which gas do plants take from the air? " in said
    rate = re.search(r"\(\d+ tokens in [\d.]+ s, (\d+) tokens/s, by the server's own clock\)", said)
    assert rate and int(rate[1]) > 0
    if smollm2.found(Cache(cache, Reporter(lambda event: None))) is None:
        assert NONSENSE in said
    else:
        assert re.search(r"smollm2-135m: [^(]*carbon dioxide", said), said
        assert NONSENSE not in said


def test_run_again_it_reuses_what_stands(directory: Path, first: str) -> None:
    lab = Lab.attach(directory)
    before = _running(lab)
    again = told(demo(directory))
    assert f"It stands: Debian {lab.release} at {lab.address}." in again
    assert _running(lab) == before


@pytest.mark.parametrize(("job", "more"), [("Log in", " true"), ("Deploy again", " -y")])
def test_what_it_says_to_go_on_with_works_as_typed(directory: Path, first: str, job: str, more: str) -> None:
    found = re.search(rf"(?m)^  {job} +(.*?)(  .*)?$", first)
    assert found
    typed = found[1].replace(".lab/", f"{shlex.quote(str(directory))}/") + more
    done = subprocess.run(
        ["bash", "-c", f"source .venv/bin/activate && {typed}"],
        cwd=CHECKOUT,
        env={**os.environ, "RIG_LAB": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_taken_down_twice_is_fine(directory: Path, first: str) -> None:
    for expected in ("The lab is down.\n", "No lab was running.\n"):
        done = demo(directory, "--down")
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
        assert not running(directory)


def _running(lab: Lab) -> str:
    """The start values of the machine and its containers."""
    return lab.sudo("journalctl --list-boots --quiet --no-pager | wc -l; docker ps --quiet --no-trunc").stdout
