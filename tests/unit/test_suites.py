"""The selection and the order of tests, and the report of slow ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import bench, slowest
from tests.lab.conftest import LONGEST
from tests.unit.project import ROOT

REPORT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_one" time="1.5"/>
<testcase classname="tests.unit.test_b" name="test_two" time="2.0"/>
<testcase classname="tests.unit.test_a" name="test_three" time="1.0"><failure/></testcase>
</testsuite></testsuites>
"""


def test_the_slowest_files_are_listed_with_what_all_their_tests_took(tmp_path: Path) -> None:
    (tmp_path / "unit.xml").write_text(REPORT)
    (tmp_path / "lab.xml").write_text(REPORT.replace("unit", "lab").replace("2.0", "20"))
    lines = slowest.table(slowest.seconds(sorted(tmp_path.iterdir()))).splitlines()
    assert lines[0] == "Slowest of 4 files, which took 27 s:"
    assert [line.split() for line in lines[1:3]] == [
        ["20.0", "s", "tests/lab/test_b.py"],
        ["2.5", "s", "tests/lab/test_a.py"],
    ]


def test_pytest_writes_what_is_listed(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "tests/unit/test_lab_hosts.py"]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    assert list(slowest.seconds([report])) == ["tests/unit/test_lab_hosts.py"]


def test_files_that_begin_first_and_those_of_the_bench_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests/lab" / name).exists()] == []
    assert [name for name in bench.SUBJECTS if not (ROOT / name).exists()] == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A repository with a lab and its tests."""
    for name in bench.SUBJECTS:
        path = tmp_path / name if name.endswith(".py") else tmp_path / name / "part.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


@pytest.mark.parametrize("changed", ["lab/part.py", "lab/standins/new.py", bench.BENCH[0], "tests/lab/conftest.py"])
def test_tests_of_the_bench_have_passed_until_something_of_it_changes(copy: Path, changed: str) -> None:
    assert not bench.passed(copy)
    bench.record(copy)
    assert bench.passed(copy)
    (copy / "rig.py").write_text("of no concern")
    assert bench.passed(copy)
    (copy / changed).parent.mkdir(exist_ok=True)
    (copy / changed).write_text("other")
    assert not bench.passed(copy)


@pytest.mark.parametrize(
    ("passed", "arguments", "collected"),
    [
        (True, ["tests/unit"], False),
        (True, ["tests/unit", "--all"], True),
        (True, [bench.BENCH[-1]], True),
        (False, ["tests/unit"], True),
    ],
)
def test_tests_of_the_bench_are_left_out_when_they_passed_unless_they_are_named_or_all_are_wanted(
    tmp_path: Path, passed: bool, arguments: list[str], collected: bool
) -> None:
    for name in ("tests/bench.py", "tests/conftest.py", bench.BENCH[-1], "lab/hosts.py", "lab/spec.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    if passed:
        bench.record(tmp_path)
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir=.", "--collect-only"]
    done = subprocess.run(
        [sys.executable, *words, "-o", "pythonpath=.", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert ("test_a_disk_starts_as_what_it_was" in done.stdout) is collected, done.stdout + done.stderr
