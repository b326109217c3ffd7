"""Each wrong value of the table is refused in a sentence with file, line, key and remedy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from rig.settings import loading, tree
from rig.settings.problems import Problem
from tests.unit import mutations
from tests.unit.project import ROOT, WORKSTATION, Project

TABLE = mutations.table()
NAMES = [f"{number}: {key} = {value!r:.40}" for number, (key, value, _) in enumerate(TABLE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One project for all rows, whose all.yml is read once: reading it takes longer than all the rest."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "group_data", root / "group_data")
    (root / "group_data" / "hosts.yml").write_text(WORKSTATION, encoding="utf-8")
    read = tree.read_what_can_be
    once = cache(read)

    def quickly(path: Path, shown: str) -> tuple[tree.Node, list[Problem]]:
        return once(path, shown) if path.name in ("all.yml", "hosts.yml") else read(path, shown)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "read_what_can_be", quickly)
        yield root


def lines(steps: list[str], value: Any) -> tuple[str, int]:
    """The value below its keys in YAML, each key or item on a line of its own, and the line of the last one."""
    text, indent = "", ""
    for step in steps:
        text += f"{indent}- \n" if step == "0" else f"{indent}{yaml.safe_dump(step, width=10**9).split(chr(10))[0]}:\n"
        indent += "  "
    written = yaml.safe_dump(value, default_flow_style=True, width=10**9).removesuffix("...\n").strip()
    return f"{text.rstrip()} {written}\n", len(steps)


def problems(folder: Path, key: str, value: Any) -> list[str]:
    """The problems that loading reports for the value in the file of a group."""
    text, _ = lines(key.split(" "), value)
    (folder / "group_data" / "workstation.yml").write_text(text, encoding="utf-8")
    return Project(folder).problems()


@pytest.mark.parametrize(("key", "value", "sentence"), TABLE, ids=NAMES)
def test_a_wrong_value_is_refused_with_its_line_its_key_and_its_remedy(
    folder: Path, key: str, value: Any, sentence: str
) -> None:
    found = problems(folder, key, value)
    line = len(key.split(" "))
    place = f"group_data/workstation.yml:{line}: {key.replace(' ', '.')}"
    about = [problem for problem in found if problem.startswith(place) and sentence in problem]
    assert about, "\n".join(found) or "it is accepted"
    assert "; " in about[0], "the sentence has no remedy"
    for problem in found:
        assert problem.isprintable()
        for noise in ("Input should", "correct it", "function-", "[key]", "Value error", "Assertion"):
            assert noise not in problem


def test_the_table_has_each_mistake_once() -> None:
    written = [(key, repr(value)) for key, value, _ in TABLE]
    assert sorted({pair for pair in written if written.count(pair) > 1}) == []
    assert len(TABLE) > 600
