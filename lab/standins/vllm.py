#!/usr/bin/python3 -I
"""vLLM's server where there is no card: as strict with arguments and surroundings, with the same routes.

Nothing is computed: an answer is the prompt's last words. It stops at what the real one stops at: an unknown argument,
another user than the image's, a home or /tmp that cannot be written, a /tmp that executes nothing, too little shared
memory, a checkpoint that is not there, a graphics card that is not there.
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

GUARDED = ("/v1", "/v2", "/inference")
"""Routes that ask for the key; the others are open, as in the real one."""


FIGURES = {
    "num_requests_running": 0.0,
    "num_requests_waiting": 0.0,
    "prompt_tokens_total": 0.0,
    "prompt_tokens_cached_total": 0.0,
    "generation_tokens_total": 0.0,
    "inter_token_latency_seconds_count": 0.0,
    "inter_token_latency_seconds_sum": 0.0,
    "request_prefill_kv_computed_tokens_sum": 0.0,
    "request_prefill_time_seconds_sum": 0.0,
}
"""Those of the real one that are asked for here; tests/engines compares their names with the real one's."""
COUNTING = threading.Lock()
PACE = 0.01
"""Seconds that a token is said to take."""


def main() -> None:
    """`vllm serve MODEL ...`, for ever."""
    options = _options()
    _stop_at_surroundings(options)
    Handler.options = options
    Handler.key = os.environ.get("VLLM_API_KEY", "")
    # The first process of a container gets no signal that it has not asked for.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    print(f"vLLM stand-in: serving {options.served_model_name} on {options.host}:{options.port}", flush=True)
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


def _options() -> argparse.Namespace:
    """Those of the real one that are used here; anything else ends the program, as there."""
    parser = argparse.ArgumentParser(prog="vllm", allow_abbrev=False)
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve", allow_abbrev=False)
    serve.add_argument("model")
    serve.add_argument("--served-model-name", required=True)
    serve.add_argument("--host", required=True)
    serve.add_argument("--port", type=int, required=True)
    serve.add_argument("--max-model-len", type=int)
    serve.add_argument("--max-num-seqs", type=int)
    serve.add_argument("--gpu-memory-utilization", type=float, default=0.92)
    serve.add_argument("--kv-cache-dtype", choices=("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"), default="auto")
    serve.add_argument("--enforce-eager", action="store_true")
    options = parser.parse_args()
    if not 0 < options.gpu_memory_utilization <= 1:
        _stop(f"ValueError: GPU memory utilization must be less than 1.0. Got {options.gpu_memory_utilization}.")
    return options


def _stop_at_surroundings(options: argparse.Namespace) -> None:
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        _stop(f"KeyError: 'getpwuid(): uid not found: {os.getuid()}'")
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        _stop("OSError: We couldn't connect to 'https://huggingface.co' to load the files")
    folder = Path(options.model)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        _stop(f"OSError: {folder} is not a local folder with a checkpoint")
    cache = Path.home() / ".cache" / "vllm"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / "torch_compile_cache").write_text("compiled\n")
        kernel = Path("/tmp/kernel.sh")
        kernel.write_text("#!/bin/sh\nexit 0\n")
        kernel.chmod(0o700)
        subprocess.run([kernel], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        _stop(f"ImportError: a compiled kernel cannot be written or loaded: {error}")
    shared = os.statvfs("/dev/shm")
    if shared.f_blocks * shared.f_frsize < 1 << 30:
        _stop("RuntimeError: unable to write to /dev/shm: too little shared memory")
    if not any(Path("/dev").glob("nvidia*")):
        _stop("RuntimeError: Failed to infer device type: no graphics card")


def _stop(reason: str) -> NoReturn:
    print(reason, file=sys.stderr, flush=True)
    raise SystemExit(1)


def _count(tokens: int) -> None:
    """A request with so many tokens was answered with as many."""
    with COUNTING:
        for name in ("prompt_tokens_total", "generation_tokens_total", "request_prefill_kv_computed_tokens_sum"):
            FIGURES[name] += tokens
        FIGURES["inter_token_latency_seconds_count"] += tokens - 1
        for name in ("inter_token_latency_seconds_sum", "request_prefill_time_seconds_sum"):
            FIGURES[name] += tokens * PACE


class Handler(BaseHTTPRequestHandler):
    """Answers like the real one, as far as health checks, tests and clients of chat look."""

    protocol_version = "HTTP/1.1"
    options: argparse.Namespace
    key: str

    def do_GET(self) -> None:
        if self._refused():
            return
        model = self.options.served_model_name
        match self.path:
            case "/health":
                self._answer(200, None)
            case "/version":
                self._answer(200, {"version": "0.30.0"})
            case "/metrics":
                labels = f'{{engine="0",model_name="{model}"}}'
                self._answer(200, "".join(f"vllm:{name}{labels} {value}\n" for name, value in FIGURES.items()))
            case "/v1/models":
                about = {"id": model, "object": "model", "owned_by": "vllm"}
                length = {"max_model_len": self.options.max_model_len}
                self._answer(200, {"object": "list", "data": [about | length]})
            case _:
                self._answer(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._refused():
            return
        if self.path != "/v1/chat/completions":
            self._answer(404, {"detail": "Not Found"})
            return
        asked = json.loads(body)
        if asked.get("model") not in (None, self.options.served_model_name):
            missing = f"The model `{asked['model']}` does not exist."
            self._answer(404, {"error": {"message": missing, "type": "NotFoundError", "code": 404}})
            return
        words = str(asked["messages"][-1]["content"]).split()[-int(asked.get("max_tokens") or 16) :]
        message = {"role": "assistant", "content": " ".join(words)}
        counts = {"prompt_tokens": len(words), "completion_tokens": len(words), "total_tokens": 2 * len(words)}
        _count(len(words))
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": int(time.time())}
        self._answer(200, {**answer, "model": self.options.served_model_name, "choices": [choice], "usage": counts})

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""

    def _refused(self) -> bool:
        """Whether the key is asked for and not there; the answer is given then."""
        given = self.headers.get("Authorization", "")
        if not self.key or not self.path.startswith(GUARDED) or hmac.compare_digest(given, f"Bearer {self.key}"):
            return False
        self._answer(401, {"error": "Unauthorized"})
        return True

    def _answer(self, code: int, content: dict[str, Any] | str | None) -> None:
        body = b"" if content is None else (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    main()
