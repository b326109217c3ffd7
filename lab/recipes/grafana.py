"""What stands in for Grafana's image: Debian with Python, and a program under the real one's name, user and entry."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.cache import Cache, Note, recipe_source, run

REPOSITORY = "grafana/grafana"
TAG = "12.4.2"
ENTRY = {"Entrypoint": ["/run.sh"], "User": "472"}
PROGRAM = Path(__file__).parent.parent / "standins" / "grafana.py"


def tree(cache: Cache, python: Path) -> Path:
    """A root file system with the stand-in in it, made from one with Python."""

    def make(target: Path, note: Note) -> None:
        run(["cp", "--archive", "--reflink=auto", python, target], note)
        with (target / "etc/passwd").open("a") as accounts:
            accounts.write("grafana:x:472:0::/usr/share/grafana:/bin/sh\n")
        shutil.copyfile(PROGRAM, target / "run.sh")
        (target / "run.sh").chmod(0o755)

    recipe = [*recipe_source("grafana"), PROGRAM.read_text(), python.name]
    return cache.artefact("grafana", "Make a stand-in for Grafana", recipe, make)
