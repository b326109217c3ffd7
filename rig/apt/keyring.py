"""The key ring of a vendor's repository as it is to stand on a machine, had before anything there is changed."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import DeployError

from rig.apt import key
from rig.apt.sources import Repository
from rig.facts.machine import FileText


def text(repository: Repository) -> str:
    """The key ring that is there when it is the pinned one; else the vendor's. Raises DeployError."""
    there = host.get_fact(FileText, path=repository.keyring)
    if there is not None and key.is_pinned(there, repository.fingerprints):
        return str(there) + "\n"
    try:
        return key.fetch(repository.key, repository.fingerprints, repository.setting)
    except key.KeyRefused as error:
        raise DeployError(f"{host.name} cannot be deployed, and nothing was changed: {error}") from error
