"""The README and docs/ name only existing pages, files, settings, commands and options."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, reduce
from pathlib import Path
from typing import Any

import pytest
import yaml

from rig.settings import Settings
from tests.unit.project import ROOT, WORKSTATION, Project

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
CONCERNS = list(Settings.model_fields)

LINK = re.compile(r"\]\(([^)#]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
BLOCK = re.compile(r"(?:^ {4}.*\n|^\n(?= {4}))+", re.MULTILINE)
COMMAND = re.compile(
    r"(?:^|[\s/(])(python -m (?:lab|benchmarks)[.\w]*(?: [a-z]+\b)?|rig [a-z]+\b|script/[a-z]+|pyinfra|pytest)(?=\s|$)"
    r"([^\n|&;#,]*)"
)
FOLDERS = ("benchmarks", "docs", "files", "group_data", "lab", "rig", "script", "tasks", "templates", "tests")
FILES = ("deploy.py", "inventory.py", "requirements.in", "requirements.txt")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path) -> list[str]:
    """Indented blocks, in the form to type."""
    return [re.sub(r"^ {4}", "", found, flags=re.MULTILINE) for found in BLOCK.findall(page.read_text())]


def code(page: Path) -> list[str]:
    """Text between backticks, and the lines of blocks."""
    text = BLOCK.sub("", page.read_text())
    return CODE.findall(text) + [line for block in blocks(page) for line in block.splitlines()]


def links(page: Path) -> list[Path]:
    """Targets of a page's links inside the repository."""
    return [(page.parent / to).resolve() for to in LINK.findall(page.read_text()) if "://" not in to]


def settings_of(page: Path, first: tuple[str, ...]) -> list[dict[str, Any]]:
    """Blocks that are YAML and begin with one of these keys."""
    return [
        yaml.safe_load(block)
        for block in blocks(page)
        if block.lstrip().startswith(tuple(f"{k}:\n" for k in first))
    ]


def laid_over(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: laid_over(below.get(key), value) for key, value in above.items()}


@cache
def schema() -> dict[str, Any]:
    return Settings.model_json_schema()


def below(node: dict[str, Any], key: str) -> Iterator[dict[str, Any]]:
    """Every schema that may apply to a key of a value with this schema; any name will do if names are free."""
    if "$ref" in node:
        node = schema()["$defs"][node["$ref"].rpartition("/")[2]]
    for way in (*node.get("anyOf", []), *node.get("oneOf", [])):
        yield from below(way, key)
    if key in node.get("properties", {}):
        yield node["properties"][key]
    else:
        free = [node.get("additionalProperties"), *node.get("patternProperties", {}).values()]
        yield from (named for named in free if isinstance(named, dict))


def is_setting(dotted: str) -> bool:
    nodes = [schema()]
    for key in dotted.split("."):
        nodes = [child for node in nodes for child in below(node, key)]
    return bool(nodes)


@cache
def help_of(command: str) -> str:
    """A command's help on its options."""
    words = command.split()
    if words[0].startswith("script/"):
        line = [str(ROOT / words[0])]
    elif words[0] == "rig":
        line = [sys.executable, "-m", *words]
    elif words[0] == "python":
        line = [sys.executable, *words[1:]]
    else:
        line = [str(Path(sys.executable).with_name(words[0]))]
    done = subprocess.run([*line, "--help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


@each_page
def test_every_link_leads_to_a_file(page: Path) -> None:
    assert [to.name for to in links(page) if not to.exists()] == []


def test_every_page_can_be_found_from_the_readme() -> None:
    found, new = {README}, {README}
    while new:
        new = {to for page in new for to in links(page) if to.suffix == ".md"} - found
        found |= new
    assert set(PAGES) - found == set()


@each_page
def test_every_file_of_the_repository_that_is_named_is_there(page: Path) -> None:
    named = {
        word.rstrip(".,:")
        for text in code(page)
        for word in re.findall(r"(?<![\w./])[\w.]+[\w./*<>@-]*", text)
    }
    ours = {name for name in named if name in FILES or ("/" in name and name.partition("/")[0] in FOLDERS)}
    assert [
        name for name in sorted(ours) if not any(ROOT.glob(re.sub(r"<\w+>", "*", name.rstrip("/"))))
    ] == []


@each_page
def test_every_setting_that_is_named_exists(page: Path) -> None:
    text = " ".join(text for text in code(page) if "/" not in text and not text.startswith("python"))
    named = re.findall(
        rf"(?<![\w.-])((?:{'|'.join(CONCERNS)})(?:\.[a-z0-9_-]+|\.<[a-z]+>)+)(?![\w.]*\()", text
    )
    assert [key for key in named if not is_setting(key)] == []


@each_page
def test_every_example_of_settings_is_right(page: Path, project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    examples = settings_of(page, tuple(CONCERNS))
    if examples:
        project.write("workstation.yml", yaml.safe_dump(reduce(laid_over, examples)))
    for hosts in settings_of(page, ("hosts",)):
        project.write("hosts.yml", yaml.safe_dump(hosts))
    assert project.problems() == []


@each_page
def test_every_option_of_a_command_that_is_named_exists(page: Path) -> None:
    used = [
        (name, option)
        for text in code(page)
        for name, rest in COMMAND.findall(text)
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest)
    ]
    assert [f"{name} {option}" for name, option in used if option not in help_of(name)] == []


@each_page
def test_every_path_on_the_machine_that_is_named_is_one_that_the_deploy_knows(page: Path) -> None:
    named = {
        path
        for text in code(page)
        for path in re.findall(r"(?<![\w.-])/(?:etc|opt|var|run)/[\w./-]*rig[\w./-]*\w", text)
    }
    sources = [
        *(ROOT / "rig").rglob("*.py"),
        *(ROOT / "rigd").rglob("*.py"),
        *(ROOT / "tasks").glob("*.py"),
        *(ROOT / "files").rglob("*.service"),
    ]
    known = "\n".join(source.read_text() for source in sources)
    assert [path for path in named if path not in known] == []


def test_every_message_of_a_failed_run_is_one_that_a_program_prints() -> None:
    page = (ROOT / "docs" / "failed-runs.md").read_text()
    cells = re.findall(r"^\| (`.*?) \| ", page, re.MULTILINE)
    # Numbers, and other parts that differ from run to run, are filled in.
    told = [part.strip(" :") for cell in cells for said in CODE.findall(cell) for part in re.split(r"\d+|\.{3}", said)]
    sources = "\n".join(source.read_text() for source in (*programs(), ROOT / "inventory.py"))
    # Adjacent pieces of a text are one.
    printed = re.sub(r'"\s*\n\s*f?"', "", sources)
    assert len(cells) > 5
    assert [text for text in told if text not in printed] == []


def programs() -> list[Path]:
    return [path for folder in ("rig", "rigd", "tasks") for path in sorted((ROOT / folder).rglob("*.py"))]


def test_the_modules_of_rig_that_touch_more_than_values_are_those_that_are_named() -> None:
    modules = [path for path in programs() if path.is_relative_to(ROOT / "rig")]
    edge = re.compile(r"^\s*(?:import|from) (?:pyinfra|requests|socket|subprocess|urllib\.request)\b", re.MULTILINE)
    touching = {str(path.relative_to(ROOT)) for path in modules if edge.search(path.read_text())}
    inner = {name for name in touching if not name.startswith(("rig/facts/", "rig/operations/", "rig/operator/"))}
    told = (ROOT / "docs" / "architecture.md").read_text().partition("that are edges: ")[2]
    assert {name for name in CODE.findall(told.partition("\n\n")[0]) if name.endswith(".py")} == inner


def test_the_readme_describes_every_concern_and_each_has_its_four_places() -> None:
    rows = re.findall(r"^\| ([a-z]+) \| (?!what)", README.read_text(), re.MULTILINE)
    places = ("rig/settings/{}.py", "tasks/{}.py", "tests/host/test_{}.py")
    assert rows == CONCERNS
    assert [
        place.format(row) for row in rows for place in places if not (ROOT / place.format(row)).exists()
    ] == []
