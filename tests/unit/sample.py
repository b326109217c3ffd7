"""Settings for tests of computed values, and a shell that runs the commands of an operation."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pyinfra.api import FactBase

from rig.settings import Settings
from tests.unit.project import ROOT

DIGEST = "sha256:" + "d" * 64
IMAGE = f"example.org/llama:server@{DIGEST}"
ARCHIVE = {"url": "http://example.org/llama.tar.gz", "sha256": "a" * 64, "binary": "bin/llama-server"}



def public_key(kind: str, *parts: bytes) -> str:
    """A public key in the form of a .pub file, without a comment: its parts behind their lengths."""
    blob = b"".join(len(part).to_bytes(4) + part for part in (kind.encode(), *parts))
    return f"{kind} {base64.b64encode(blob).decode()}"


ED25519 = public_key("ssh-ed25519", b"\1" * 32)
RSA = public_key("ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 256)

hypothesis_settings.register_profile(
    "short", deadline=None, max_examples=20, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.register_profile("thorough", hypothesis_settings.get_profile("short"), max_examples=500)
hypothesis_settings.load_profile("thorough" if os.environ.get("RIG_TEST_ALL") else "short")
examples = hypothesis_settings()
"""For tests on generated examples; few of them unless RIG_TEST_ALL is set: a busy machine must not cause a failure."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="files that belong to root can only be made by root")


def needs(*programs: str) -> pytest.MarkDecorator:
    """Mark a test that compares with other programs and needs them."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def folder(model: str) -> str:
    """Folder of a model of one file, named by the hash of sha256sum's output for it."""
    entry = json.loads(_shipped())["models"]["catalogue"][model]
    listing = f"{entry['sha256']}  {entry['file']}\n"
    return f"/mnt/models/{model}/{hashlib.sha256(listing.encode()).hexdigest()[:12]}"


def settings(changes: Mapping[str, Any] | None = None) -> Settings:
    """all.yml with a container `one` on port 8002 and a service `two` on port 8003, and dotted `changes` on top."""
    document = json.loads(_shipped())
    document["engines"] = {
        "one": {"runtime": "container", "image": IMAGE, "model": "llama-3.3-70b-q4", "port": 8002},
        "two": {"runtime": "native", "archive": ARCHIVE, "model": "llama-3.1-8b-q4", "port": 8003},
    }
    for dotted, value in (changes or {}).items():
        *above, last = dotted.split("/")
        at = document
        for key in above:
            at = at[key]
        at[last] = value
    return Settings.model_validate_json(json.dumps(document))


@cache
def _shipped() -> str:
    return json.dumps(yaml.safe_load((ROOT / "group_data" / "all.yml").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Here:
    """Stands in for pyinfra's `host`: this machine's own shell runs facts and commands for real."""

    rewrite: Callable[[str], str] = str
    """Changes a command before it runs: a path of a real machine becomes one of the test."""

    def get_fact(self, fact: type[FactBase[Any]], **arguments: Any) -> Any:
        reader: Any = fact()
        return reader.process(self.shell(reader.command(**arguments)).stdout.splitlines())

    def shell(self, command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", self.rewrite(command)],
            env={**os.environ, "LC_ALL": "C", **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def carry_out(self, commands: Iterator[Any], **environ: str) -> list[subprocess.CompletedProcess[str]]:
        """Run the commands of an operation up to the first that fails, as pyinfra does."""
        done = []
        for command in commands:
            assert isinstance(command, str), f"not a shell command: {command!r}"
            done.append(self.shell(command, **environ))
            if done[-1].returncode != 0:
                break
        return done


def tree(directory: Path) -> dict[str, str]:
    """Every file below a directory with its mode; a leftover shows in it."""
    return {
        str(path.relative_to(directory)): f"{path.stat().st_mode & 0o7777:o}"
        for path in sorted(directory.rglob("*"))
        if not path.is_dir()
    }


def waits_for(lock: Path, command: str, meanwhile: Callable[[], bool]) -> None:
    """Start a command while its lock is held, see it wait, and let it finish."""
    held = os.open(lock, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    process = subprocess.Popen(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 20
        inode = f":{lock.stat().st_ino} "
        while not any(" -> " in line and inode in line for line in Path("/proc/locks").read_text().splitlines()):
            assert process.poll() is None, "it did not wait for the lock"
            assert time.monotonic() < end, "it did not come to the lock"
            time.sleep(0.01)
        assert meanwhile()
    finally:
        os.close(held)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said
