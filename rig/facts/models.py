"""rig-models on a machine: whether it is installed, and the state of the models; no model is read for that."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from pyinfra.api import FactBase

from rig.models.fetch import UNIT, ModelsState
from rigd.base import state

PROGRAMS = "/opt/rig/rigd"
"""The folder with one subfolder for each version of rigd, named by the hash of its wheel."""
LINKS = "/usr/local/bin"
"""The folder with links to its programs, for owners and units."""
LINK = f"{LINKS}/rig-models"
DESCRIPTION = "Fetch of the models of manifest "


STAMP = ".complete"
"""File in an installed version with the hashes of the files made on the machine, which the wheel does not have."""


def installed(version: str, names: Iterable[str], modules: str) -> str:
    """A shell condition: this version of rigd is installed, and owners and units call its programs.

    The virtual environment names its Python: an upgrade of the distribution changes that. `modules`: the hash of the
    wheel's Python files. Every file is read: a power cut leaves files of 0 bytes with complete names, and a file that
    another user can write is not ours.
    """
    home = f"{PROGRAMS}/{version}"
    links = "".join(f' && [ "$(readlink {LINKS}/{name})" = {home}/bin/{name} ]' for name in names)
    packages = f'{home}/lib/$(basename "$(readlink -f /usr/bin/python3)")/site-packages'
    listing = 'find rigd -type f -name "*.py" | LC_ALL=C sort | xargs sha256sum | sha256sum'
    return (
        f"(cd {home} && sha256sum --check --status {STAMP}) 2>/dev/null"
        f' && [ "$(cd "{packages}" 2>/dev/null && {listing})" = "{modules}  -" ]'
        f' && [ -z "$(find {home} ! -user "$(id -u)" -o ! -type l -perm /022)" ]{links}'
    )


def older(version: str) -> str:
    """A shell command that lists what was there before this version was begun; a run that waits may have uploaded more.

    A power cut brings back what had just been removed.
    """
    return f"find {PROGRAMS} -mindepth 1 -maxdepth 1 ! -name {version} ! -newer {PROGRAMS}/{version}/.began"


class Programs(FactBase[bool]):
    """Whether this version of rigd is installed, and no older one."""

    def command(self, version: str, names: tuple[str, ...], modules: str) -> str:
        return f'{installed(version, names, modules)} && [ -z "$({older(version)})" ] && echo yes || echo no'

    def process(self, output: list[str]) -> bool:
        return output == ["yes"]


class Models(FactBase[ModelsState]):
    """The state of the models in a manifest, which may differ from the manifest on the machine."""

    def command(self, manifest: str) -> str:
        return (
            f"systemctl show --property=ActiveState,Description {UNIT}\n"
            f"if [ -x {LINK} ]; then printf %s {shlex.quote(manifest)} | {LINK} status --json --manifest -; fi\n"
            "true\n"
        )

    def process(self, output: list[str]) -> ModelsState:
        text = "\n".join(output)
        unit = dict(line.split("=", 1) for line in output if line.startswith(("ActiveState=", "Description=")))
        said = json.loads(text[text.index("\n{") :]) if "\n{" in text else None
        description = unit["Description"]
        models = {} if said is None else said["models"]
        return ModelsState(
            active=unit["ActiveState"] in ("active", "activating", "reloading"),
            manifest=description.removeprefix(DESCRIPTION) if description.startswith(DESCRIPTION) else "",
            verified=frozenset(name for name, model in models.items() if model["verified"]),
            failed=frozenset(name for name, model in models.items() if model["failure"]),
            fetch=None if said is None or said["fetch"] is None else state.from_dict(said["fetch"]),
            holder=None if said is None else said["holder"],
        )
