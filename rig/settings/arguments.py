"""Further arguments of a server: refuses those that undo what the deploy pins, measures or closes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rig.settings.problems import show

HUB = "models are fetched and verified by rig-models, and the engine reaches no hub"
OTHER_MODELS = "it would serve what is not in models.catalogue, and is neither verified nor counted"
PROGRAMS = "it would run programs that nobody has pinned"
REMOTE = "it would give requests to other machines"
HEALTH = "the deploy would not find the engine healthy"
EXITS = "the server would print something and exit"
PROMPTS = "it would show or keep the prompts of others"
UNCOUNTED = "what fits is computed from the settings"

LLAMA_NEVER = {
    **dict.fromkeys(
        (
            *("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-hft", "--hf-token", "-hfv", "-hfrv", "--hf-repo-v"),
            *("-hffv", "--hf-file-v", "-dr", "--docker-repo", "-mu", "--model-url", "-mmu", "--mmproj-url"),
            *("-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"),
        ),
        HUB,
    ),
    **dict.fromkeys(
        (
            *("--models-dir", "--models-preset", "--models-max", "--models-autoload", "--no-models-autoload"),
            *("--lora", "--lora-scaled", "--lora-init-without-apply", "--lora-base"),
            *("--control-vector", "--control-vector-scaled", "--control-vector-layer-range"),
            *("-md", "--model-draft", "--spec-draft-model", "-mv", "--model-vocoder", "--override-kv"),
        ),
        OTHER_MODELS,
    ),
    **dict.fromkeys(
        (
            *("--tools", "--tools-runtime", "--mcp-servers-config", "--mcp-servers-json", "-ag", "--agent"),
            *("--ui-mcp-proxy", "--webui-mcp-proxy"),
        ),
        PROGRAMS,
    ),
    "--rpc": REMOTE,
    **dict.fromkeys(
        (*("--ssl-key-file", "--ssl-cert-file", "--api-prefix", "--reuse-port"),),
        HEALTH,
    ),
    **dict.fromkeys(("-h", "--help", "--usage", "--version", "-cl", "--cache-list", "--list-devices"), EXITS),
    "--completion-bash": EXITS,
    **dict.fromkeys(("--slots", "--slot-save-path", "--props", "--path", "--media-path", "--log-prompts-dir"), PROMPTS),
    **dict.fromkeys(("-fit", "--fit", "-fitt", "--fit-target", "-fitc", "--fit-ctx", "-dev", "--device"), UNCOUNTED),
    **dict.fromkeys(("--no-mmproj", "--no-mmproj-auto"), "projector says whether there is one"),
}
"""Refused arguments of llama-server, with reasons."""

LLAMA_PRESET = re.compile(r"--(.+-)?(default|spec)")
"""Presets such as --gpt-oss-20b-default, which name a model on the hub."""

VLLM_NEVER = {
    "--quantization": "the checkpoint says how it is quantized, and vLLM stops where the two differ",
    "-q": "the checkpoint says how it is quantized, and vLLM stops where the two differ",
    "--trust-remote-code": "it would run programs that came with a model",
    "--config": "it would read further arguments from a file that nobody checks",
    **dict.fromkeys(
        ("--download-dir", "--hf-token", "--revision", "--code-revision", "--tokenizer-revision", "--hf-config-path"),
        HUB,
    ),
    **dict.fromkeys(
        (
            *("--tokenizer", "--enable-lora", "--lora-modules", "--speculative-config", "-sc", "--load-format"),
            *("--hf-overrides", "--model-loader-extra-config", "--enable-prompt-adapter", "--prompt-adapters"),
        ),
        OTHER_MODELS,
    ),
    **dict.fromkeys(
        (
            *("--middleware", "--tool-parser-plugin", "--reasoning-parser-plugin", "--logits-processors"),
            *("--worker-cls", "--worker-extension-cls", "--scheduler-cls", "--io-processor-plugin", "--tool-server"),
        ),
        PROGRAMS,
    ),
    **dict.fromkeys(
        (
            *("--kv-transfer-config", "--ec-transfer-config", "--master-addr", "--master-port", "--nnodes", "-n"),
            *("--node-rank", "-r", "--data-parallel-address", "-dpa", "--distributed-executor-backend"),
        ),
        REMOTE,
    ),
    **dict.fromkeys(
        (
            *("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--uds", "--headless", "--grpc"),
            *("--root-path", "--disable-log-stats"),
        ),
        HEALTH,
    ),
    **dict.fromkeys(("-h", "--help", "-v", "--version"), EXITS),
    **dict.fromkeys(("--kv-cache-memory-bytes", "--num-gpu-blocks-override"), UNCOUNTED),
    **dict.fromkeys(("--enable-log-requests", "--log-requests", "--enable-log-outputs", "--profiler-config"), PROMPTS),
}
"""Refused arguments of vLLM, with reasons."""


def _is_option(word: str) -> bool:
    """Whether a word is an option, and not a value such as -1 or .5."""
    return word.startswith("-") and not re.fullmatch(r"-[0-9.,:e+-]*[0-9]", word)


def _option(word: str) -> str:
    """An option without its value, which must not be shown: it may be a key."""
    return word.partition("=")[0]


def refuse_llama(word: str, own: Mapping[str, str]) -> str:
    """An accepted argument of llama-server; `own`: the deploy's own options, each with the setting behind it.

    llama.cpp turns _ into - in long options, and knows neither prefixes nor --x=y (its common/arg.cpp).
    """
    if not _is_option(word):
        return word
    written = _option(word)
    option = written.replace("_", "-") if written.startswith("--") else written
    _refuse_own(written, own.get(option))
    _refuse_never(written, LLAMA_NEVER.get(option) or (HUB if LLAMA_PRESET.fullmatch(option) else None))
    if "=" in word:
        raise ValueError(f"{show(written)} has its value behind =, which llama.cpp does not take; write two entries")
    _refuse_bare_dashes(word)
    return word


def refuse_vllm(word: str, own: Mapping[str, str]) -> str:
    """An accepted argument of vLLM; `own`: the deploy's own options, each with the setting behind it.

    vLLM takes _ for -, --x=y, --x.y for a part of x, and each unique prefix of a long option (its
    FlexibleArgumentParser, and Python's argparse); a short option may have its value attached.
    """
    if not _is_option(word):
        return word
    _refuse_bare_dashes(word)
    written = _option(word)
    option = written.replace("_", "-").partition(".")[0]
    _refuse_own(written, own.get(option) or _begun(option, own))
    _refuse_never(written, VLLM_NEVER.get(option) or _begun(option, VLLM_NEVER) or _attached(option))
    return word


def refuse_first(words: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse a value without its option: a server takes it for a model or for a mistake."""
    if words and not _is_option(words[0]):
        raise ValueError(f"begins with {show(words[0])}, which is no option; write the option before its value")
    return words


def _begun(option: str, known: Mapping[str, str]) -> str | None:
    """The reason in `known` for an option that this one is a prefix of."""
    if not option.startswith("--"):
        return None
    return next((said for name, said in known.items() if name.startswith(option)), None)


def _attached(option: str) -> str | None:
    """The reason for the short option at the start of this one: -qfp8 is -q fp8."""
    if option.startswith("--") or option in ("-tp", "-pp", "-dp", "-dpb", "-dcp", "-ep", "-ac", "-cc", "-asc"):
        return None
    return next((said for name, said in VLLM_NEVER.items() if len(name) == 2 and option.startswith(name)), None)


def _refuse_own(written: str, setting: str | None) -> None:
    if setting is not None:
        raise ValueError(f"{show(written)} is already passed, from {setting}; remove it here")


def _refuse_never(written: str, reason: str | None) -> None:
    if reason is not None:
        raise ValueError(f"{show(written)} must not be passed: {reason}; remove it here")


def _refuse_bare_dashes(word: str) -> None:
    if not word.strip("-"):
        raise ValueError(f"{show(word)} is no option; remove it here")
