"""What stands in for vLLM's image: Debian with Python, and a program under the real one's name and user."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.cache import Cache, Note, recipe_source
from lab.recipes.debian import debootstrap

RELEASE = "trixie"
# curl: the real image has it, for health checks.
PACKAGES = ("python3", "ca-certificates", "curl")
REPOSITORY = "vllm/vllm-openai"
TAG = "v0.30.0"
PROGRAM = Path(__file__).parent.parent / "standins" / "vllm.py"


def tree(cache: Cache) -> Path:
    """A root file system with the stand-in in it."""

    def make(target: Path, note: Note) -> None:
        debootstrap(RELEASE, target, "apt", PACKAGES, note)
        with (target / "etc/passwd").open("a") as accounts:
            accounts.write("vllm:x:2000:0::/home/vllm:/bin/sh\n")
        shutil.copyfile(PROGRAM, target / "usr/local/bin/vllm")
        (target / "usr/local/bin/vllm").chmod(0o755)

    recipe = [*recipe_source("debian", "vllm"), PROGRAM.read_text()]
    return cache.artefact("vllm", "Make a stand-in for vLLM", recipe, make)
