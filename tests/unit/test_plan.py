"""`rig plan`: the figures of a machine, for people and for programs, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rig.capacity.units import GIB
from tests.unit.project import ROOT, WORKSTATION, Project
from tests.unit.test_capacity_checkpoint import checkpoint, shapes
from tests.unit.test_capacity_header import write_model

ALONE = "group_data/all.yml"
FILE_8B = "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf"


def told(project: Project, *arguments: str, machine: str = ALONE, **environ: str) -> Any:
    """One machine's figures."""
    done = project.rig("plan", "--json", *arguments, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["machines"][machine]


def engine(figures: Any, name: str, part: str = "engines") -> Any:
    (found,) = [engine for engine in figures[part] if engine["name"] == name]
    return found


def test_without_a_machine_the_one_that_all_yml_describes_is_planned(project: Project) -> None:
    figures = told(project)
    big = engine(figures, "llama-70b")
    parts = big["ram"], big["gpu"]
    assert sum(part["weights"] for part in parts) == 42_520_398_816
    assert sum(part["kv_cache"] for part in parts) == 5 * GIB // 2
    assert [part["overhead"] for part in parts] == [GIB, GIB]
    assert sum(big["gpu"].values()) / GIB == pytest.approx(13.87, abs=0.01)
    assert (big["gpu_layers"], big["layers"]) == (25, 80)
    assert big["tokens_per_second"] == pytest.approx(3.37, abs=0.01)
    assert (big["limit"], big["context"], big["sequences"], big["sequences_that_fit"]) == (64 * GIB, 8192, 1, 3)
    small = engine(figures, "llama-8b")
    assert small["gpu"] == {"weights": 0, "kv_cache": 0, "overhead": 0, "prompts": 0}
    assert small["ram"]["prompts"] == GIB
    assert small["tokens_per_second"] == pytest.approx(22.3, abs=0.1)
    assert figures["ram"] == {"taken": 80 * GIB, "there": 120 * GIB}
    assert figures["gpu"] == {"taken": sum(big["gpu"].values()), "there": 15882 * GIB // 1024}
    assert figures["disk"] == {"taken": 42_520_398_816 + 4_920_739_232, "there": None}
    others = ["llama-8b", "qwen3-vl-4b"]
    assert figures["together"] == [["llama-70b", *others], ["vllm-8b", *others]]


def test_vllm_is_planned_with_the_figures_of_the_field(project: Project) -> None:
    card = engine(told(project), "vllm-8b")
    assert sum(card["gpu"].values()) / GIB == pytest.approx(0.80 * 15.51, abs=0.02)
    assert card["gpu"]["weights"] / 1e9 == pytest.approx(9.08, abs=0.005)
    assert 2.6 * GIB < card["gpu"]["kv_cache"] < 3.2 * GIB
    assert (card["sequences"], card["sequences_that_fit"]) == (32, 2)
    assert card["tokens_per_second"] == pytest.approx(111, abs=1)
    eight_bits = engine(told(project, "--data", "engines.vllm-8b.kv_cache=fp8"), "vllm-8b")
    assert eight_bits["sequences_that_fit"] == 5


def test_layers_on_the_card_make_it_faster_and_take_memory_there_instead_of_in_ram(project: Project) -> None:
    before, after = (
        engine(told(project, "--data", f"engines.llama-70b.gpu_layers={layers}"), "llama-70b") for layers in (10, 28)
    )
    assert after["tokens_per_second"] > before["tokens_per_second"]
    assert after["first_token_seconds"] < before["first_token_seconds"]
    assert after["gpu"]["weights"] > before["gpu"]["weights"]
    for part in ("weights", "kv_cache"):
        assert after["gpu"][part] + after["ram"][part] == before["gpu"][part] + before["ram"][part]


def test_each_machine_is_planned_with_its_own_hardware(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION + "  second: {address: 10.0.0.2, groups: []}\n")
    hardware = "machine: {hardware: {ram_bandwidth: 57.6, gpu: null}}\n"
    project.write("workstation.yml", f"{hardware}engines: {{llama-70b: {{gpu_layers: 0}}}}\n")
    slow, fast = (told(project, machine=machine) for machine in ("workstation", "second"))
    ratio = engine(fast, "llama-8b")["tokens_per_second"] / engine(slow, "llama-8b")["tokens_per_second"]
    assert ratio == pytest.approx(102.4 / 57.6)
    assert slow["gpu"] is None
    assert sum(engine(slow, "llama-70b")["gpu"].values()) == 0
    assert engine(slow, "vllm-8b")["tokens_per_second"] is None
    assert "no card" in project.rig("plan").stdout


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
    assert found["ram"] == {"weights": 1024, "kv_cache": None, "overhead": 256 * GIB // 1024, "prompts": GIB // 16}
    assert (found["sequences_that_fit"], found["first_token_seconds"]) == (None, None)
    shown = project.rig("plan", RIG_LAB=".lab").stdout
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


@pytest.mark.parametrize("name", ["whole", "Up-8B", "whole/0123456789ab"])
def test_a_checkpoint_that_is_here_beats_the_figures_of_the_catalogue(
    project: Project, tmp_path: Path, name: str
) -> None:
    entry = "    whole: {repository: made/Up-8B, revision: main, size: 9080934400, files: []}\n"
    project.change("all.yml", "  catalogue:\n", f"  catalogue:\n{entry}")
    folder = tmp_path / name
    folder.parent.mkdir(exist_ok=True)
    checkpoint(folder, shapes())
    done = project.rig("plan", "--json", "--file", str(folder))
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_that_the_catalogue_does_not_name_is_told(project: Project, tmp_path: Path) -> None:
    done = project.rig("plan", "--file", str(checkpoint(tmp_path / "x", shapes())))
    assert done.returncode == 2
    assert "the catalogue has no repository 'x'; give one of" in done.stderr
    assert "Meta-Llama-3.1-8B-Instruct-FP8" in done.stderr


def test_a_file_that_the_catalogue_does_not_name_is_told(project: Project, tmp_path: Path) -> None:
    file = write_model(tmp_path / "other.gguf")
    done = project.rig("plan", "--file", str(file))
    assert done.returncode == 2
    assert "the catalogue has no file 'other.gguf'; give one of" in done.stderr
    assert FILE_8B in done.stderr


def test_a_file_that_is_no_model_is_told(project: Project, tmp_path: Path) -> None:
    (tmp_path / FILE_8B).write_text("not a model", encoding="utf-8")
    done = project.rig("plan", "--file", str(tmp_path / FILE_8B))
    assert done.returncode == 2
    assert "is not a complete GGUF file" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_fit_is_refused_with_exit_2(project: Project) -> None:
    done = project.rig("plan", "--json", "--data", "engines.llama-8b.memory=5G")
    assert done.returncode == 2
    (problem,) = json.loads(done.stdout)["problems"]
    assert problem["path"] == "engines.llama-8b.memory"


def test_in_a_pipe_the_plan_is_plain_and_at_most_100_columns_wide(project: Project) -> None:
    shown = project.rig("plan").stdout
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 100
    assert "80.0 GiB of 120.0 GiB, 40.0 GiB left" in shown
    for part in ("llama-70b", "13.9 GiB", "31.2 GiB", "1 (3 fit)", "< 3.4", "> 14.5 s"):
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
    done = project.rig("plan", "--into", "capacity.md")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert page.read_text(encoding="utf-8") == shipped, "run: rig plan --into docs/capacity.md"


def test_the_plan_of_the_documentation_follows_the_settings(project: Project) -> None:
    page = project.root / "capacity.md"
    page.write_text((ROOT / "docs" / "capacity.md").read_text(encoding="utf-8"), encoding="utf-8")
    project.rig("plan", "--into", "capacity.md", "--data", "machine.hardware.ram_bandwidth=57.6")
    written = page.read_text(encoding="utf-8")
    assert "57.6 GB/s" in written
    assert "| llama-70b | 13.9 GiB | 25 of 80 | 31.2 GiB | 64.0 GiB | 8,192 | 1 (3 fit) | < 1.9 |" in written


def test_a_page_that_is_no_text_is_left_alone(project: Project) -> None:
    page = project.root / "page.md"
    page.write_bytes(b"\xff\xfe")
    done = project.rig("plan", "--into", "page.md")
    assert (done.returncode, "page.md is not UTF-8 text" in done.stderr) == (2, True), done.stderr
    assert page.read_bytes() == b"\xff\xfe"


def test_a_page_without_a_place_for_the_plan_is_left_alone(project: Project) -> None:
    page = project.root / "page.md"
    page.write_text("# Words\n", encoding="utf-8")
    done = project.rig("plan", "--into", "page.md")
    assert done.returncode == 2
    assert "has no place for the plan; write the lines" in done.stderr
    assert page.read_text(encoding="utf-8") == "# Words\n"


def test_help_says_what_the_plan_shows(project: Project) -> None:
    assert "Print what each engine takes and how fast it can be." in project.rig("--help").stdout
    for option in ("--json", "--file", "--prompt", "--data", "--into"):
        assert option in project.rig("plan", "--help").stdout


# What of the catalogue fits


def test_what_fits_is_listed_the_fastest_first(project: Project) -> None:
    done = project.rig("plan", "--fits", "--json")
    (listed,) = json.loads(done.stdout)["machines"].values()
    speeds = [fit["tokens_per_second"] for fit in listed]
    assert speeds == sorted(speeds, reverse=True)
    found = {fit["model"]: fit for fit in listed}
    assert "qwen3-vl-4b-mmproj" not in found
    oss, large = found["gpt-oss-20b"], found["llama-3.3-70b-q4"]
    assert (oss["on_card"], oss["layers"]) == (24, 24)
    assert oss["tokens_per_second"] == pytest.approx(896 / 2.6, rel=0.02)
    assert (large["on_card"], large["missing"]) == (28, None)
    for fit in listed:
        assert sum(fit["gpu"].values()) <= 15882 << 20
        assert sum(fit["ram"].values()) <= 120 * GIB


def test_what_does_not_fit_comes_last_with_the_reason(project: Project) -> None:
    small = {"machine.hardware.ram": "24G", "machine.hardware.gpu.memory": "8G"}
    off = {f"engines.{name}.enabled": "false" for name in ("llama-70b", "llama-8b")}
    data = [word for key, value in (small | off).items() for word in ("--data", f"{key}={value}")]
    (listed,) = json.loads(project.rig("plan", "--fits", "--json", *data).stdout)["machines"].values()
    missing = {fit["model"]: fit["missing"] for fit in listed if fit["missing"]}
    assert list(missing) == [fit["model"] for fit in listed[-len(missing) :]]
    assert missing["llama-3.3-70b-q4"].endswith("of RAM, and 16.0 GiB are there for engines")
    assert "of GPU memory, and 8.0 GiB are there" in missing["llama-3.1-8b-fp8"]
    shown = project.rig("plan", "--fits", *data).stdout
    assert f"llama-3.3-70b-q4 {missing['llama-3.3-70b-q4']}." in " ".join(shown.split())


def test_without_a_card_everything_lies_in_ram_and_vllm_fits_nowhere(project: Project) -> None:
    project.write("workstation.yml", "machine: {hardware: {gpu: null}}\nengines: {llama-70b: {gpu_layers: 0}}\n")
    project.write("hosts.yml", WORKSTATION)
    (listed,) = json.loads(project.rig("plan", "--fits", "--json").stdout)["machines"].values()
    found = {fit["model"]: fit for fit in listed}
    assert found["llama-3.1-8b-fp8"]["missing"] == "is for vLLM, which needs a graphics card"
    assert sum(found["gpt-oss-20b"]["gpu"].values()) == 0
    assert found["gpt-oss-20b"]["tokens_per_second"] == pytest.approx(102.4 / 2.6, rel=0.02)
