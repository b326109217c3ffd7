"""rig-models on a machine: whether it is there, and what it says of the models; no model is read for that."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

from pyinfra.api import FactBase

from rig.models.fetch import UNIT, ModelsState
from rigd.base import state

PROGRAMS = "/opt/rig/rigd"
"""A folder for each version of rigd, named by the hash of its wheel."""
LINKS = "/usr/local/bin"
"""Where owners and units find its programs."""
LINK = f"{LINKS}/rig-models"
DESCRIPTION = "Fetch of the models of manifest "


STAMP = ".complete"
"""Of an installed version: the hashes of what was made on the machine, which the wheel does not have."""


def installed(version: str, names: Iterable[str], modules: str) -> str:
    """A condition of the shell: this version of rigd is installed, and its programs are what owners and units call.

    Its environment names the Python it was made for: after an upgrade of the distribution that is another one.
    `modules`: what the wheel's Python files hash to. Every file is read: a power cut leaves files of 0 bytes behind
    complete names, and one that another user can write is not ours.
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


class Programs(FactBase[bool]):
    """Whether this version of rigd is installed."""

    def command(self, version: str, names: tuple[str, ...], modules: str) -> str:
        return f"{installed(version, names, modules)} && echo yes || echo no"

    def process(self, output: list[str]) -> bool:
        return output == ["yes"]


class Models(FactBase[ModelsState]):
    """The state of the models of a manifest, which need not be the one that is on the machine."""

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
