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
        "run rig lock llama-3.1-8b-fp8"
    )


@pytest.mark.parametrize(
    ("size", "more", "key", "sentence"),
    [
        (43, "", "size", "is 43, and the files have 42 bytes together; write that, or run rig lock"),
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


# A GGUF in several parts

FIRST = "Q4_K_M/big-00001-of-00002.gguf"
SECOND = "Q4_K_M/big-00002-of-00002.gguf"


def _part(file: str, size: int = 21, sha256: str = "a") -> str:
    return f"      - {{file: {file}, size: {size}, sha256: {sha256 * 64}}}\n"


def _in_parts(project: Project, listed: str, file: str = FIRST, size: int = 42) -> None:
    """Write the small model's entry in parts."""
    text = project.path("all.yml").read_text()
    start = text.index("    llama-3.1-8b-q4:\n")
    old = text[text.index("      file:", start) : text.index("      # vocabulary", start)]
    end = text.index("    qwen3-vl-4b-q4:", start)
    entry = text[start:end].replace(old, f"      file: {file}\n      size: {size}\n{listed}")
    shapeless = entry[: entry.index("      # vocabulary")]
    project.write("all.yml", text[:start] + shapeless + text[end:])


def test_a_model_in_parts_is_one_model_of_which_the_engine_gets_the_first(project: Project) -> None:
    _in_parts(project, "      files:\n" + _part(FIRST) + _part(SECOND, sha256="b"))
    assert project.problems() == []
    settings = load_local(project.root).machine("@local").settings
    folder = settings.model_folder("llama-3.1-8b-q4")
    assert settings.model_path("llama-3.1-8b-q4") == folder / FIRST
    assert set(settings.model_files("llama-3.1-8b-q4")) == {folder / FIRST, folder / SECOND}


@pytest.mark.parametrize(
    ("listed", "file", "key", "sentence"),
    [
        ("", FIRST, "files", "is missing, as the model has 2 parts; write files: [], and run rig lock"),
        (
            "      files: []\n",
            FIRST,
            "files",
            "are not known yet, and engine llama-8b needs them; run rig lock",
        ),
        ("      files:\n" + _part(FIRST, 42), FIRST, "files", f"lacks '{SECOND}', a part of the model; run rig lock"),
        (
            "      files:\n" + _part(FIRST) + _part(SECOND),
            SECOND,
            "file",
            f"is a part of a model; write the first one, {FIRST}",
        ),
        (
            "      files:\n" + _part(FIRST) + _part(SECOND) + _part("other.gguf", 0),
            FIRST,
            "files",
            "has 'other.gguf', which is no part of the model; remove it, or run",
        ),
        (
            "      files:\n" + _part(FIRST) + _part(SECOND, 20),
            FIRST,
            "size",
            "is 42, and the files have 41 bytes together",
        ),
        (
            "      files:\n" + _part(FIRST) + _part(SECOND) + f"      sha256: {'c' * 64}\n",
            FIRST,
            "sha256",
            "is of one file, and each of files has its own; remove it",
        ),
    ],
)
def test_parts_that_do_not_make_a_model_are_told(
    project: Project, listed: str, file: str, key: str, sentence: str
) -> None:
    _in_parts(project, listed, file)
    assert any(f"models.catalogue.llama-3.1-8b-q4.{key}: {sentence}" in problem for problem in project.problems())


def test_a_file_without_a_hash_is_no_mistake_until_an_engine_needs_it(project: Project) -> None:
    assert project.problems() == []
    (problem,) = project.problems(**{"engines.llama-8b.model": "qwen3-14b-q4"})
    assert problem.endswith(
        "models.catalogue.qwen3-14b-q4.sha256: is missing, and engine llama-8b needs it; write it, or run "
        "rig lock qwen3-14b-q4"
    )


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ("experts: {count: 4, active: 5, parameters: 1000}", "experts.active are 5 of 4; correct one of them"),
        ("experts: {count: 4, active: 2, parameters: 8000000000}", "experts.parameters and vocabulary x hidden are"),
        ("window: {tokens: 128, layers: 33}", "window.layers are 33 of 32 with attention; correct one of them"),
        ("attention_layers: 33", "attention_layers are 33, and layers 32; correct one of them"),
    ],
)
def test_a_shape_whose_parts_exceed_the_whole_is_refused(project: Project, changed: str, sentence: str) -> None:
    project.change(
        "all.yml", "        parameters: 8030261248\n    q", f"        parameters: 8030261248\n        {changed}\n    q"
    )
    assert any(f"llama-3.1-8b-q4.shape: {sentence}" in problem for problem in project.problems())
