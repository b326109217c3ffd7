"""Packages of another Debian release, fetched by apt with a configuration of its own, not installed."""

from __future__ import annotations

import os
from pathlib import Path

from lab.cache import Note, run
from lab.recipes.debian import apt_options, sources


def download(release: str, names: tuple[str, ...], target: Path, note: Note) -> dict[str, Path]:
    """The .deb file of each package, verified by the archive's signature as apt always does."""
    work = target / f".apt-{release}"
    for directory in ("etc/sources.list.d", "etc/preferences.d", "etc/apt.conf.d", "state/lists/partial"):
        (work / directory).mkdir(parents=True)
    (work / "cache/archives/partial").mkdir(parents=True)
    (work / "state/status").touch()
    (work / "etc/sources.list.d/debian.sources").write_text(sources(release))
    settings = [
        f'Dir::Etc "{work}/etc"',
        f'Dir::State "{work}/state"',
        f'Dir::State::status "{work}/state/status"',
        f'Dir::Cache "{work}/cache"',
        'APT::Sandbox::User "root"',
        'Acquire::Languages "none"',
        *apt_options(),
    ]
    configuration = work / "apt.conf"
    configuration.write_text("".join(f"{setting};\n" for setting in settings))
    environment = {**os.environ, "APT_CONFIG": str(configuration)}
    packages = target / release
    packages.mkdir(parents=True)
    run(["apt-get", "update", "--error-on=any"], note, environment)
    run(["apt-get", "download", *names], note, environment, directory=packages)
    return {name: next(packages.glob(f"{name}_*.deb")) for name in names}
