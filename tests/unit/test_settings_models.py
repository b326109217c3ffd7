"""Entries of models.catalogue: one file or a whole repository, the version before, and what contradicts itself."""

from __future__ import annotations

import pytest

from rig.settings import load_local
from tests.unit.project import Project

ENTRY = "group_data/all.yml:{line}: models.catalogue.llama-3.1-8b-fp8"
FILES = (
    "      files:\n"
    f"        - {{file: config.json, size: 12, sha256: {'a' * 64}}}\n"
    f"        - {{file: model.safetensors, size: 30, sha256: {'b' * 64}}}\n"
)


def _locked(project: Project, size: int = 42, more: str = "") -> None:
    project.change("all.yml", "      files: []\n      size: 9080000000\n", f"{FILES}{more}      size: {size}\n")
    # Its tables alone are larger than what stands there now.
    project.change("all.yml", "        table_bits: 16\n", "        table_bits: null\n")


def _serving(project: Project) -> None:
    project.change("all.yml", "    model: llama-3.1-8b-q4\n", "    model: llama-3.1-8b-fp8\n")


def test_a_repository_is_a_folder_with_all_of_its_files(project: Project) -> None:
    _locked(project)
    settings = load_local(project.root).machine("@local").settings
    folder = settings.model_path("llama-3.1-8b-fp8")
    assert folder.parent.name == "llama-3.1-8b-fp8"
    assert {path.name: file.size for path, file in settings.model_files("llama-3.1-8b-fp8").items()} == {
        "config.json": 12,
        "model.safetensors": 30,
    }
    assert {path.parent for path in settings.model_files("llama-3.1-8b-fp8")} == {folder}


def test_files_that_are_not_known_yet_are_no_mistake_until_an_engine_needs_them(project: Project) -> None:
    assert project.problems() == []
    _serving(project)
    (problem,) = project.problems()
    line = project.line("all.yml", "files: []")
    assert problem == (
        f"{ENTRY.format(line=line)}.files: are not known yet, and engine llama-8b needs them; "
        "run python -m rig lock llama-3.1-8b-fp8"
    )


@pytest.mark.parametrize(
    ("size", "more", "key", "sentence"),
    [
        (43, "", "size", "is 43, and the files have 42 bytes together; write that, or run python -m rig lock"),
        (54, FILES.splitlines(keepends=True)[1], "files", "has 'config.json' twice; remove one of them, or run"),
        (42, f"      sha256: {'a' * 64}\n", "sha256", "is of one file, and each of files has its own; remove it"),
        (42, "      file: config.json\n", "files", "stands beside file; remove one of them"),
        (42, "      use: previous\n", "use", "is previous, and there is no previous version; write current"),
    ],
)
def test_what_contradicts_itself_is_told(project: Project, size: int, more: str, key: str, sentence: str) -> None:
    _locked(project, size, more)
    (problem,) = project.problems()
    assert f"models.catalogue.llama-3.1-8b-fp8.{key}: {sentence}" in problem


def test_an_entry_without_any_file_is_told(project: Project) -> None:
    project.change("all.yml", "      files: []\n", "")
    (problem,) = project.problems()
    assert ".file: is missing; write the name of the file, or files: [] for a whole repository" in problem


def test_one_key_goes_back_to_the_version_before(project: Project) -> None:
    before = load_local(project.root).machine("@local").settings.model_path("llama-3.1-8b-q4")
    text = project.path("all.yml").read_text()
    start = text.index("    llama-3.1-8b-q4:\n")
    old = text[text.index("      revision:", start) : text.index("      # vocabulary", start)]
    new = old.replace("size: 4920739232", "size: 42").replace("7b064f", "000000")
    kept = "      previous:\n" + "".join(f"  {line}\n" for line in old.splitlines())
    project.write("all.yml", text.replace(old, new + kept))
    now = load_local(project.root).machine("@local").settings
    assert now.model_path("llama-3.1-8b-q4") != before
    assert now.models.catalogue["llama-3.1-8b-q4"].chosen.size == 42
    project.change("all.yml", new, f"{new}      use: previous\n")
    back = load_local(project.root).machine("@local").settings
    assert back.model_path("llama-3.1-8b-q4") == before
    assert back.models.catalogue["llama-3.1-8b-q4"].chosen.size == 4920739232
