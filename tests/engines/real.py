"""A real vLLM without a graphics card, in an environment of its own, as the container would start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from lab.recipes import checkpoint
from rig.engines import vllm
from rig.settings.engines import VllmEngine

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHON = CHECKOUT / ".venv-engines/bin/python"
LAUNCHER = Path(__file__).with_name("launcher.py")
SPECIAL = ("<unk>", "<s>", "</s>")
PATIENCE = 600.0
"""Seconds that a start may take: 30 on two idle cores, 150 on busy ones."""
ON_A_PROCESSOR = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1"}
"""What is different from the container: where it computes, and how many GiB of KV cache it has there."""


def environment(home: Path, key: str | None = None) -> dict[str, str]:
    """The rendered environment, with a home that is here."""
    rendered = {**vllm.ENVIRONMENT, "HOME": str(home), **ON_A_PROCESSOR}
    path = f"{PYTHON.parent}:{os.defpath}"
    return {"PATH": path, "TMPDIR": str(home), **rendered, **({} if key is None else {vllm.KEY: key})}


def understood(words: list[str], home: Path) -> dict[str, Any]:
    """What vLLM's own command line makes of the words that follow `vllm serve`; raises AssertionError with its no."""
    command = [str(PYTHON), str(LAUNCHER), "show", *words]
    shown = subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=300)
    if shown.returncode != 0:
        raise AssertionError(shown.stderr.strip().splitlines()[-1])
    options: dict[str, Any] = json.loads(shown.stdout.splitlines()[-1])
    return options


@contextmanager
def serving(engine: VllmEngine, folder: Path, home: Path, key: str) -> Iterator[int]:
    """It serves the checkpoint in a folder as an engine's settings have it; the process' number."""
    words = vllm.arguments(engine, str(folder), host=engine.address)
    log = home / "vllm.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PYTHON, LAUNCHER, "serve", *words],
            env=environment(home, key),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        _wait(process, f"http://{engine.address}:{engine.port}/health", log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline, said = time.monotonic() + PATIENCE, time.monotonic()
    while True:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.RequestException:
            pass
        last = log.read_text(errors="replace")[-3000:]
        assert process.poll() is None, f"vLLM ended with {process.returncode}: {last}"
        assert time.monotonic() < deadline, f"vLLM did not become healthy within {PATIENCE:.0f} s: {last}"
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"vLLM starts: {said - deadline + PATIENCE:.0f} s", file=sys.stderr)
        time.sleep(1)


def tiny(folder: Path) -> None:
    """The lab's checkpoint of a Llama with random weights, and a tokenizer that makes a token of each byte."""
    checkpoint.write(folder)
    words = [*SPECIAL, *_alphabet()]
    assert len(words) == checkpoint.VOCABULARY
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    files: Mapping[str, Any] = {
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [_special(number, word) for number, word in enumerate(SPECIAL)],
            "pre_tokenizer": level,
            "decoder": level,
            "model": {"type": "BPE", "vocab": {word: number for number, word in enumerate(words)}, "merges": []},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **dict(zip(("unk_token", "bos_token", "eos_token"), SPECIAL, strict=True)),
            "chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")


def _special(number: int, word: str) -> dict[str, Any]:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": word, "special": True, **plain}


def _alphabet() -> list[str]:
    """A letter that can be seen for each byte, as GPT-2 and all after it have them."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    unseen = [byte for byte in range(256) if byte not in seen]
    return [*map(chr, seen), *(chr(256 + number) for number in range(len(unseen)))]
