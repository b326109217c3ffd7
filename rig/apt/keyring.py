"""The key ring for a vendor's repository, obtained before anything on the machine changes."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import DeployError

from rig.apt import key
from rig.apt.sources import Repository
from rig.facts.machine import FileText


def text(repository: Repository) -> str:
    """The machine's key ring if it holds exactly the pinned keys; else the vendor's. Raises DeployError."""
    there = host.get_fact(FileText, path=repository.keyring)
    if there is not None and key.is_pinned(there, repository.fingerprints):
        return str(there) + "\n"
    try:
        return key.fetch(repository.key, repository.fingerprints, repository.setting)
    except key.KeyRefused as error:
        raise DeployError(f"{host.name} cannot be deployed, and nothing was changed: {error}") from error
