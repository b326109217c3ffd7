"""Settings that do not fit are refused with the arithmetic, at the key in the way, and with values that fit."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as some

from rig.settings import Settings
from rig.settings.checks import ENGINE
from rig.settings.fitting import misfits
from rig.settings.tree import plain, read
from tests.unit.project import ROOT, WORKSTATION, Project
from tests.unit.sample import examples

SHIPPED = Settings.model_validate(plain(read(ROOT / "group_data" / "all.yml", "all.yml")), strict=False)
BIG, SMALL = "engines.llama-70b", "engines.llama-8b"
ON_PROCESSOR = {f"{BIG}.gpu_layers": "0"}
NEEDS_70B = "needs 44.1 GiB: 2.5 GiB of KV cache, 39.6 GiB of weights, 1.0 GiB of overhead and 1.0 GiB of prompt cache"

# What is said by --data; the key that is told; the sentence.
MISFITS = {
    "more sequences than memory": (
        {f"{SMALL}.sequences": "8", f"{SMALL}.memory": "8G"},
        f"{SMALL}.sequences",
        "8 sequences of 8,192 tokens need 8.0 GiB of KV cache, 1.4 GiB are left of memory 8G after 4.6 GiB of "
        "weights, 1.0 GiB of overhead and 1.0 GiB of prompt cache; write 1, or 2 with kv_cache: q8_0, or memory: 15G",
    ),
    "a longer context than memory": (
        {f"{SMALL}.context": "131072"},
        f"{SMALL}.context",
        "1 sequence of 131,072 tokens needs 16.0 GiB of KV cache, 9.4 GiB are left of memory 16G after 4.6 GiB of "
        "weights, 1.0 GiB of overhead and 1.0 GiB of prompt cache; write 77056, or 131072 with kv_cache: q8_0, or "
        "memory: 23G",
    ),
    "a longer context than any memory": (
        {f"{SMALL}.context": "13107200"},
        f"{SMALL}.context",
        "1 sequence of 13,107,200 tokens needs 1,600.0 GiB of KV cache, 9.4 GiB are left of memory 16G after 4.6 "
        "GiB of weights, 1.0 GiB of overhead and 1.0 GiB of prompt cache; write 77056, or 145152 with kv_cache: q8_0",
    ),
    "less memory than weights": (
        {f"{BIG}.memory": "32G", **ON_PROCESSOR},
        f"{BIG}.memory",
        f"is 32G, and the engine {NEEDS_70B}; write 45G",
    ),
    "overhead that takes it all": (
        {f"{SMALL}.overhead": "12G"},
        f"{SMALL}.memory",
        "is 16G, and the engine needs 18.6 GiB: 1.0 GiB of KV cache, 4.6 GiB of weights, 12.0 GiB of overhead and 1.0 "
        "GiB of prompt cache; write 19G",
    ),
    "less memory than overhead, with all layers and their cache on the card": (
        {f"{BIG}.model": "llama-3.1-8b-q4", f"{BIG}.gpu_layers": "32", f"{BIG}.memory": "1G"},
        f"{BIG}.memory",
        "is 1G, and the engine needs 2.3 GiB: 0.0 GiB of KV cache, 0.3 GiB of weights, 1.0 GiB of overhead and 1.0 GiB "
        "of prompt cache; write 3G",
    ),
    "a model larger than the machine": (
        {"machine.hardware.ram": "32G", **ON_PROCESSOR},
        f"{BIG}.model",
        f"{NEEDS_70B}, and the machine has 24.0 GiB for engines (32G less 8G); write a smaller model, "
        "or correct machine.hardware.ram",
    ),
    "more cache than the machine": (
        {"machine.hardware.ram": "50G", **ON_PROCESSOR},
        f"{BIG}.context",
        "1 sequence of 8,192 tokens needs 2.5 GiB of KV cache, 0.4 GiB are left of the machine's 42.0 GiB after "
        "39.6 GiB of weights, 1.0 GiB of overhead and 1.0 GiB of prompt cache; write 1280, or 2304 with kv_cache: q8_0",
    ),
    "more threads than cores": (
        {f"{BIG}.threads": "24"},
        f"{BIG}.threads",
        "24 are more than the 12 of machine.hardware.cores; write 12",
    ),
    "limits beyond the machine, one of which can give way": (
        {f"{BIG}.memory": "112G"},
        f"{BIG}.memory",
        "112.0 GiB of llama-70b + 16.0 GiB of llama-8b are more than the 120.0 GiB for engines "
        "(128G of RAM less 8G of ram_reserve); write 104G",
    ),
    "limits beyond the machine, none of which can give way": (
        {"machine.hardware.ram": "54G"},
        f"{BIG}.enabled",
        "64.0 GiB of llama-70b + 16.0 GiB of llama-8b are more than the 46.0 GiB for engines "
        "(54G of RAM less 8G of ram_reserve); write false here or at another of them, or make them alternatives "
        "(alternatives: NAME at each), of which one runs at a time; or correct machine.hardware.ram",
    ),
    "more layers than the card": (
        {f"{BIG}.gpu_layers": "30"},
        f"{BIG}.gpu_layers",
        "30 layers need 16.4 GiB: 0.9 GiB of KV cache, 14.5 GiB of weights and 1.0 GiB of overhead, and the graphics "
        "card has 15.5 GiB; write 28, or 29 with kv_cache: q8_0",
    ),
    "more sequences than the card": (
        {f"{BIG}.model": "llama-3.1-8b-q4", f"{BIG}.gpu_layers": "32", f"{BIG}.sequences": "16"},
        f"{BIG}.sequences",
        "16 sequences of 8,192 tokens need 16.0 GiB of KV cache, 10.2 GiB are left of the graphics card's 15.5 GiB "
        "after 4.3 GiB of weights and 1.0 GiB of overhead; write 10, or 16 with kv_cache: q8_0, or gpu_layers: 23",
    ),
    "more layers than the model": (
        {f"{BIG}.gpu_layers": "81"},
        f"{BIG}.gpu_layers",
        "81 are more than the 80 of llama-3.3-70b-q4; write 80",
    ),
    "models beyond the disk": (
        {"machine.hardware.disk": "40G"},
        "machine.hardware.disk",
        "is 40G, and the models of the enabled engines take 44.2 GiB; write 45G or more, or enable less",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_cannot_fit_is_refused_with_its_arithmetic_and_what_would(project: Project, misfit: str) -> None:
    data, path, sentence = MISFITS[misfit]
    told = [problem.split(": ", 1)[1] for problem in project.problems(**data)]
    assert told == [f"{path}: {sentence}"]


def test_a_misfit_is_told_at_its_line(project: Project) -> None:
    line = project.change("all.yml", "    threads: 12", "    threads: 13")
    assert project.problems() == [
        f"group_data/all.yml:{line}: {BIG}.threads: 13 are more than the 12 of machine.hardware.cores; write 12"
    ]


def test_a_misfit_of_one_machine_is_told_in_its_own_file(project: Project) -> None:
    project.write("workstation.yml", "engines:\n  llama-8b:\n    memory: 5G\n")
    project.write("hosts.yml", WORKSTATION)
    (problem,) = project.problems()
    assert problem.startswith(f"group_data/workstation.yml:3: {SMALL}.memory: is 5G, and the engine needs 7.6 GiB")


def test_layers_on_a_card_that_is_not_there_are_refused(project: Project) -> None:
    project.write("workstation.yml", "machine: {hardware: {gpu: null}}\n")
    project.write("hosts.yml", WORKSTATION)
    (problem,) = project.problems()
    assert problem.endswith(
        f"{BIG}.gpu_layers: is 25, and machine.hardware.gpu says that there is no graphics card; write 0"
    )


VLLM = "engines.vllm-8b"


@pytest.fixture
def with_vllm(project: Project) -> Project:
    """The shipped settings with vLLM switched on, as after `rig lock`, and no alternatives."""
    files = f"      files: [{{file: model.safetensors, size: 9080000000, sha256: {'a' * 64}}}]\n"
    project.change("all.yml", "      files: []\n", files)
    text = project.path("all.yml").read_text(encoding="utf-8")
    project.write("all.yml", text.replace("    alternatives: card", "    alternatives: null"))
    return project


ON = {f"{VLLM}.enabled": "true"}
ALONE = {**ON, f"{BIG}.enabled": "false"}
MISFITS_OF_VLLM = {
    "a longer context than its part of the card": (
        {**ALONE, f"{VLLM}.context": "32768"},
        f"{VLLM}.context",
        "1 sequence of 32,768 tokens needs 4.0 GiB of KV cache, 3.0 GiB are left at utilization 0.80 after 8.5 GiB of "
        "weights and 1.0 GiB of overhead; write 24064, or 32768 with kv_cache: fp8, or gpu_utilization: 0.87",
    ),
    "a part that its weights do not fit into": (
        {**ALONE, f"{VLLM}.gpu_utilization": "0.5"},
        f"{VLLM}.gpu_utilization",
        "utilization 0.50 is 7.8 GiB of the graphics card's 15.5 GiB, and the engine needs 10.5 GiB: 1.0 GiB of KV "
        "cache for 1 sequence, 8.5 GiB of weights and 1.0 GiB of overhead; write 0.68",
    ),
    "less RAM than it takes besides": (
        {**ALONE, f"{VLLM}.memory": "2G"},
        f"{VLLM}.memory",
        "is 2G, and the engine needs 4.0 GiB: 0.0 GiB of KV cache, 0.0 GiB of weights and 4.0 GiB of overhead; write "
        "4G",
    ),
    "two engines on the card": (
        ON,
        f"{VLLM}.alternatives",
        "13.9 GiB of llama-70b + 12.4 GiB of vllm-8b are more than the 15.5 GiB of the graphics card; write the same "
        "name here and at llama-70b: of alternatives one runs at a time",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS_OF_VLLM)
def test_what_vllm_cannot_have_is_refused_with_its_arithmetic(with_vllm: Project, misfit: str) -> None:
    data, path, sentence = MISFITS_OF_VLLM[misfit]
    told = [problem.split(": ", 1)[1] for problem in with_vllm.problems(**data)]
    assert told == [f"{path}: {sentence}"]


def test_two_engines_that_do_not_fit_on_the_card_together_are_right_as_alternatives(with_vllm: Project) -> None:
    assert with_vllm.problems(**ON, **{f"{name}.alternatives": "card" for name in (BIG, VLLM)}) == []


def test_more_requests_at_once_than_have_their_whole_context_are_right_for_vllm(with_vllm: Project) -> None:
    assert with_vllm.problems(**ALONE, **{f"{VLLM}.sequences": "256"}) == []


def test_vllm_without_the_hashes_of_its_checkpoint_is_told_how_to_get_them(project: Project) -> None:
    (problem,) = project.problems(**ON)
    assert problem.endswith("and engine vllm-8b needs them; run rig lock llama-3.1-8b-fp8")


def test_llama_cpp_is_not_given_a_whole_repository(with_vllm: Project) -> None:
    problems = with_vllm.problems(**{f"{SMALL}.model": "llama-3.1-8b-fp8"})
    assert any("a whole repository, and llama.cpp serves one GGUF file" in problem for problem in problems)


def test_vllm_is_not_given_a_single_file(with_vllm: Project) -> None:
    (problem,) = with_vllm.problems(**ALONE, **{f"{VLLM}.model": "llama-3.1-8b-q4"})
    assert problem.endswith("a single file, and vLLM serves the files of a repository; write such a model")


def test_engines_that_are_off_need_not_fit(project: Project) -> None:
    assert project.problems(**{"engines.qwen3-vl-4b.memory": "1G", "engines.qwen3-vl-4b.threads": "99"}) == []


def test_of_alternatives_only_the_largest_has_to_fit(project: Project) -> None:
    data = {"machine.hardware.ram": "54G", f"{BIG}.memory": "45G"}
    assert project.problems(**data) != []
    assert project.problems(**data, **{f"{SMALL}.alternatives": "card"}) == []


def test_the_projector_is_part_of_the_weights(project: Project) -> None:
    data = {"engines.qwen3-vl-4b.enabled": "true", "engines.qwen3-vl-4b.memory": "3G"}
    (problem,) = project.problems(**data)
    assert "3.1 GiB of weights" in problem


def test_a_cache_of_fewer_bits_fits_more(project: Project) -> None:
    assert project.problems(**{f"{SMALL}.sequences": "16", f"{SMALL}.memory": "16G"}) != []
    project.change("all.yml", "    port: 8003", "    port: 8003\n    kv_cache: q8_0")
    assert project.problems(**{f"{SMALL}.sequences": "16", f"{SMALL}.memory": "16G"}) == []


def test_a_model_of_unknown_shape_is_judged_by_its_weights_alone(project: Project) -> None:
    text = project.path("all.yml").read_text(encoding="utf-8")
    shape = next(part for part in text.split("      shape:\n") if part.startswith("        layers: 32\n"))
    project.write("all.yml", text.replace("      shape:\n" + shape.partition("    qwen3-vl-4b-q4:")[0], "", 1))
    assert project.problems(**{f"{SMALL}.memory": "7G"}) == []
    (problem,) = project.problems(**{f"{SMALL}.memory": "6G"})
    assert "needs 6.6 GiB besides its KV cache: 4.6 GiB of weights, 1.0 GiB of overhead and 1.0 GiB of " in problem
    assert problem.endswith("prompt cache; write 7G")


def test_what_is_kept_of_earlier_prompts_counts_and_can_be_switched_off(project: Project) -> None:
    assert project.problems(**{f"{SMALL}.memory": "7G"}) != []
    project.change("all.yml", "    port: 8003", "    port: 8003\n    prompt_cache: 0")
    assert project.problems(**{f"{SMALL}.memory": "7G"}) == []
    project.change("all.yml", "    prompt_cache: 0", "    prompt_cache: 8G")
    (problem,) = project.problems(**{f"{SMALL}.memory": "14G"})
    assert problem.endswith("8.0 GiB of prompt cache; write 3328, or 6400 with kv_cache: q8_0, or memory: 15G")


def test_a_shape_that_contradicts_itself_is_refused(project: Project) -> None:
    line = project.change("all.yml", "        parameters: 8030261248\n    q", "        parameters: 803026124\n    q")
    shape = max(number for number in project.lines("all.yml", "shape:") if number < line)
    assert project.problems() == [
        f"group_data/all.yml:{shape}: models.catalogue.llama-3.1-8b-q4.shape: vocabulary x hidden are 1050673152 "
        "parameters already, of 803026124 in all; correct one of them"
    ]


def test_a_size_that_its_tables_do_not_fit_into_is_refused(project: Project) -> None:
    line = project.change("all.yml", "      size: 9080000000", "      size: 2101346304")
    assert project.problems() == [
        f"group_data/all.yml:{line}: models.catalogue.llama-3.1-8b-fp8.size: is 2101346304, and vocabulary x hidden x "
        "table_bits are 2101346304 bytes already; correct one of them"
    ]
    project.change("all.yml", "      size: 2101346304", "      size: 2101346305")
    assert project.problems() == []


@given(
    memory=some.integers(1, 200),
    ram=some.integers(12, 256),
    context=some.integers(1, 2**18).map(lambda n: n * 256),
    sequences=some.integers(1, 256),
    threads=some.integers(1, 64),
    layers=some.integers(0, 99),
)
@examples
def test_who_writes_what_is_told_ends_with_what_fits(
    memory: int, ram: int, context: int, sequences: int, threads: int, layers: int
) -> None:
    hardware = SHIPPED.machine.hardware.model_copy(update={"ram": f"{ram}G"})
    asked = {"memory": f"{memory}G", "context": context, "sequences": sequences, "threads": threads}
    engines = {**SHIPPED.enabled_engines}
    engines["llama-8b"] = engines["llama-8b"].model_copy(update=asked)
    engines["llama-70b"] = engines["llama-70b"].model_copy(update={"gpu_layers": layers})
    for _ in range(12):
        told = list(misfits(engines, SHIPPED.models, hardware))
        if not told:
            return
        (_, name, key), sentence = told[0]
        engines[str(name)] = engines[str(name)].model_copy(update={str(key): advised(str(key), sentence)})
        engines = {name: engine for name, engine in engines.items() if engine.enabled}
    assert told == []


LLAMA = {
    "runtime": some.sampled_from(["container", "native"]),
    "model": some.sampled_from(["llama-3.3-70b-q4", "llama-3.1-8b-q4", "qwen3-vl-4b-q4"]),
    "projector": some.sampled_from([None, None, "qwen3-vl-4b-mmproj"]),
    "gpu_layers": some.sampled_from([0, 1, 2, 24, 32, 36, 80]),
    "kv_cache": some.sampled_from(["f16", "q8_0"]),
}
VLLM_ASKS = {
    "runtime": some.just("vllm"),
    "model": some.just("llama-3.1-8b-fp8"),
    "gpu_utilization": some.sampled_from([0.1, 0.5, 0.8, 0.95, 1.0]),
    "kv_cache": some.sampled_from(["auto", "fp8"]),
}
ANY = {
    "port": some.just(8000),
    "context": some.sampled_from([256, 4096, 8192, 131072]),
    "sequences": some.sampled_from([1, 2, 8, 32]),
    "memory": some.sampled_from(["512M", "1G", "2G", "6G", "16G", "64G"]),
    "overhead": some.sampled_from(["64M", "1G", "4G"]),
}


@given(
    some.fixed_dictionaries(LLAMA | ANY) | some.fixed_dictionaries(VLLM_ASKS | ANY),
    some.sampled_from(["8G", "32G", "128G"]),
    some.sampled_from(["4G", "15882M", "48G"]),
)
@examples
def test_what_is_told_is_another_value_and_never_more_of_what_is_too_much(
    asked: dict[str, object], ram: str, card: str
) -> None:
    assert SHIPPED.machine.hardware.gpu is not None
    gpu = SHIPPED.machine.hardware.gpu.model_copy(update={"memory": card})
    hardware = SHIPPED.machine.hardware.model_copy(update={"ram": ram, "gpu": gpu, "ram_reserve": "1G"})
    if asked["runtime"] == "native":
        del asked["gpu_layers"]
    for _ in range(8):
        told = list(misfits({"one": ENGINE.validate_python(asked, strict=False)}, SHIPPED.models, hardware))
        if not told:
            return
        (_, _, key), sentence = told[0]
        if key in ("model", "enabled"):
            return
        before, written = asked[str(key)], yaml.safe_load(sentence.rpartition("; write ")[2].split()[0].rstrip(","))
        assert written != before, sentence
        if key in ("sequences", "context", "gpu_layers"):
            assert written < before, sentence
        asked[str(key)] = written
    assert told == []


def advised(key: str, sentence: str) -> object:
    """The value that the message recommends; for a smaller model the smallest one."""
    word = sentence.rpartition("; write ")[2].split()[0].rstrip(",")
    if key == "model":
        return "qwen3-embedding-0.6b-q8"
    return False if word == "false" else int(word) if word.isdigit() else word
