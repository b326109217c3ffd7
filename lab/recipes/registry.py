"""The registry program, taken from its package without installing a service on the operator's machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.cache import Cache, Note, recipe_source, run


def program(cache: Cache) -> Path:
    """A directory with `usr/bin/docker-registry` in it."""

    def make(target: Path, note: Note) -> None:
        target.mkdir()
        packages = target / "packages"
        packages.mkdir()
        run(["apt-get", "download", "docker-registry"], note, directory=packages)
        for package in packages.iterdir():
            run(["dpkg-deb", "--extract", package, target])
        shutil.rmtree(packages)

    return cache.artefact("registry", "Fetch the image registry", recipe_source("registry"), make)
