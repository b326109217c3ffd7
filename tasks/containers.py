"""Concern containers: the Docker engine and compose, from the vendor's repository or from the distribution."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import DeployError
from pyinfra.api.deploy import deploy as concern
from pyinfra.operations import files

from rig import repository_key
from rig.facts.containers import DAEMON
from rig.facts.machine import FileText
from rig.operations import containers, packages, units
from rig.operations.files import written
from rig.preflight import Machine
from rig.render import render
from rig.settings import Settings
from rig.settings.containers import Vendor

KEYRING = "/etc/apt/keyrings/docker.asc"
SOURCES = "/etc/apt/sources.list.d/docker.sources"

VENDOR = ["docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin"]
DISTRIBUTION = {
    "debian": ["docker.io", "docker-cli", "docker-compose", "containerd", "runc"],
    "ubuntu": ["docker.io", "docker-compose-v2", "containerd", "runc"],
}
CONFLICTING = ["docker.io", "docker-cli", "docker-compose", "podman-docker", "containerd", "runc"]
"""Packages whose files the vendor's replace."""


@concern("containers")
def deploy(settings: Settings, found: Machine) -> None:
    """Docker with the settings' daemon.json merged into the owner's."""
    if settings.containers.source == "vendor":
        _from_vendor(settings.containers.vendor, found)
    else:
        files.file(name=f"Remove {SOURCES}", path=SOURCES, present=False)
        packages.absent(name="Remove the vendor's container engine", packages=VENDOR)
        packages.present(name="Install the container engine", packages=DISTRIBUTION[found.os_id])
    containers.daemon(name=f"Merge {DAEMON}", wanted=settings.containers.daemon)
    units.running(name="Run the container engine", unit="docker.service", files=[DAEMON])


def _from_vendor(vendor: Vendor, found: Machine) -> None:
    repository = f"{vendor.repository}/{found.os_id}"
    written(name=f"Write {KEYRING}", path=KEYRING, text=_key(repository, vendor))
    sources = render(SOURCES, repository=repository, codename=found.os_codename, keyring=KEYRING)
    written(name=f"Write {SOURCES}", path=SOURCES, text=sources)
    packages.absent(name="Remove conflicting packages", packages=CONFLICTING)
    packages.present(name="Install the container engine", packages=VENDOR)


def _key(repository: str, vendor: Vendor) -> str:
    """The key ring that is there when it is the pinned one; else the vendor's, refused before anything is changed."""
    there = host.get_fact(FileText, path=KEYRING)
    if there is not None and repository_key.is_pinned(there, vendor.key_fingerprints):
        return str(there) + "\n"
    try:
        return repository_key.fetch(f"{repository}/gpg", vendor.key_fingerprints)
    except repository_key.KeyRefused as error:
        raise DeployError(f"{host.name} cannot be deployed, and nothing was changed: {error}") from error
