"""`python -m rig plan`: the figures of a machine, for people and for programs, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rig.capacity.units import GIB
from tests.unit.project import ROOT, WORKSTATION, Project
from tests.unit.test_capacity_header import write_model

ALONE = "group_data/all.yml"
FILE_8B = "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf"


def told(project: Project, *arguments: str, machine: str = ALONE, **environ: str) -> Any:
    """One machine's figures."""
    done = project.run("rig", "plan", "--json", *arguments, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["machines"][machine]


def engine(figures: Any, name: str, part: str = "engines") -> Any:
    (found,) = [engine for engine in figures[part] if engine["name"] == name]
    return found


def test_without_a_machine_the_one_that_all_yml_describes_is_planned(project: Project) -> None:
    figures = told(project)
    big = engine(figures, "llama-70b")
    assert big["ram"] == {"weights": 42_520_398_816, "kv_cache": 5 * GIB // 2, "overhead": GIB}
    assert big["gpu"] == {"weights": 0, "kv_cache": 0, "overhead": 0}
    assert big["tokens_per_second"] == pytest.approx(2.44, abs=0.01)
    assert big["first_token_seconds"] == pytest.approx(21.2, abs=0.1)
    assert (big["limit"], big["context"], big["sequences"], big["sequences_that_fit"]) == (64 * GIB, 8192, 1, 9)
    assert figures["ram"] == {"taken": 80 * GIB, "there": 120 * GIB}
    assert figures["gpu"]["taken"] == 0
    assert figures["disk"] == {"taken": 42_520_398_816 + 4_920_739_232, "there": None}
    assert figures["together"] == [["llama-70b", "llama-8b", "qwen3-vl-4b"]]


def test_what_the_card_could_do_fits_on_it(project: Project) -> None:
    figures = told(project)
    big, small = (engine(figures, name, "on_card") for name in ("llama-70b", "llama-8b"))
    assert 0 < big["gpu_layers"] < big["layers"]
    assert sum(big["gpu"].values()) <= figures["gpu"]["there"]
    assert small["gpu_layers"] == small["layers"]
    for before, after in ((engine(figures, "llama-70b"), big), (engine(figures, "llama-8b"), small)):
        assert after["tokens_per_second"] > before["tokens_per_second"]
        assert after["first_token_seconds"] < before["first_token_seconds"]
    assert ["llama-70b"] in figures["together_on_card"]


def test_each_machine_is_planned_with_its_own_hardware(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION + "  second: {address: 10.0.0.2, groups: []}\n")
    project.write("workstation.yml", "machine: {hardware: {ram_bandwidth: 57.6, gpu: null}}\n")
    slow, fast = (told(project, machine=machine) for machine in ("workstation", "second"))
    ratio = engine(fast, "llama-70b")["tokens_per_second"] / engine(slow, "llama-70b")["tokens_per_second"]
    assert ratio == pytest.approx(102.4 / 57.6)
    assert (slow["gpu"], slow["on_card"], slow["together_on_card"]) == (None, [], [])


def test_a_longer_prompt_and_fewer_threads_answer_later(project: Project) -> None:
    usual = engine(told(project), "llama-8b")["first_token_seconds"]
    long = engine(told(project, "--prompt", "1024"), "llama-8b")["first_token_seconds"]
    halved = engine(told(project, "--data", "engines.llama-8b.threads=6"), "llama-8b")["first_token_seconds"]
    assert long == halved == pytest.approx(2 * usual)


def test_a_lab_is_planned_and_what_is_unknown_of_its_model_is_said(project: Project) -> None:
    model = f"{{repository: lab/x, revision: main, file: x.gguf, size: 1024, sha256: {'a' * 64}}}"
    lab = project.root / ".lab"
    lab.mkdir()
    (lab / "hosts.yml").write_text(
        "hosts:\n  rig-lab:\n    address: 10.77.0.2\n    groups: [lab]\n"
        f"    settings: {{models: {{catalogue: {{tiny: {model}}}}}}}\n",
        encoding="utf-8",
    )
    found = engine(told(project, machine="rig-lab", RIG_LAB=".lab"), "llama-8b")
    assert found["ram"] == {"weights": 1024, "kv_cache": None, "overhead": 256 * GIB // 1024}
    assert (found["sequences_that_fit"], found["first_token_seconds"]) == (None, None)
    shown = project.run("rig", "plan", RIG_LAB=".lab").stdout
    assert "> 0.3 GiB" in shown
    assert " unknown" in shown
    assert "> unknown" not in shown


def test_a_file_that_is_here_beats_the_figures_of_the_catalogue(project: Project, tmp_path: Path) -> None:
    file = write_model(tmp_path / FILE_8B)
    before = told(project)
    after = told(project, "--file", str(file))
    assert engine(after, "llama-8b")["layers"] == 3
    assert engine(after, "llama-8b")["ram"]["weights"] < file.stat().st_size
    assert engine(after, "llama-70b") == engine(before, "llama-70b")


def test_a_file_that_the_catalogue_does_not_name_is_told(project: Project, tmp_path: Path) -> None:
    file = write_model(tmp_path / "other.gguf")
    done = project.run("rig", "plan", "--file", str(file))
    assert done.returncode == 2
    assert "the catalogue has no file 'other.gguf'; give one of" in done.stderr
    assert FILE_8B in done.stderr


def test_a_file_that_is_no_model_is_told(project: Project, tmp_path: Path) -> None:
    (tmp_path / FILE_8B).write_text("not a model", encoding="utf-8")
    done = project.run("rig", "plan", "--file", str(tmp_path / FILE_8B))
    assert done.returncode == 2
    assert "is not a complete GGUF file" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_fit_is_refused_with_exit_2(project: Project) -> None:
    done = project.run("rig", "plan", "--json", "--data", "engines.llama-8b.memory=5G")
    assert done.returncode == 2
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["path"] == "engines.llama-8b.memory"


def test_in_a_pipe_the_plan_is_plain_and_at_most_100_columns_wide(project: Project) -> None:
    shown = project.run("rig", "plan").stdout
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 100
    assert "80.0 GiB of 120.0 GiB, 40.0 GiB left" in shown
    for part in ("llama-70b", "43.1 GiB", "1 (9 fit)", "< 2.4", "> 21.2 s", "28 of 80"):
        assert part in shown
    assert "…" not in shown


def test_bars_can_be_read_where_only_ascii_can_be_shown(project: Project) -> None:
    shown = project.run("rig", "plan", PYTHONIOENCODING="ascii").stdout
    assert shown.isascii()
    assert "####------" in shown


def test_the_plan_of_the_documentation_is_current(project: Project) -> None:
    page = project.root / "capacity.md"
    shipped = (ROOT / "docs" / "capacity.md").read_text(encoding="utf-8")
    page.write_text(shipped, encoding="utf-8")
    done = project.run("rig", "plan", "--into", "capacity.md")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert page.read_text(encoding="utf-8") == shipped, "run: python -m rig plan --into docs/capacity.md"


def test_the_plan_of_the_documentation_follows_the_settings(project: Project) -> None:
    page = project.root / "capacity.md"
    page.write_text((ROOT / "docs" / "capacity.md").read_text(encoding="utf-8"), encoding="utf-8")
    project.run("rig", "plan", "--into", "capacity.md", "--data", "machine.hardware.ram_bandwidth=57.6")
    written = page.read_text(encoding="utf-8")
    assert "57.6 GB/s" in written
    assert "| llama-70b | 43.1 GiB | 64.0 GiB | 8,192 | 1 (9 fit) | < 1.4 |" in written


def test_a_page_without_a_place_for_the_plan_is_left_alone(project: Project) -> None:
    page = project.root / "page.md"
    page.write_text("# Words\n", encoding="utf-8")
    done = project.run("rig", "plan", "--into", "page.md")
    assert done.returncode == 2
    assert "has no place for the plan; write the lines" in done.stderr
    assert page.read_text(encoding="utf-8") == "# Words\n"


def test_help_says_what_the_plan_shows(project: Project) -> None:
    assert "Print what each engine takes and how fast it can be." in project.run("rig", "--help").stdout
    for option in ("--json", "--file", "--prompt", "--data", "--into"):
        assert option in project.run("rig", "plan", "--help").stdout
