"""Concern containers: the Docker engine and compose, from the vendor's repository or from the distribution."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern
from pyinfra.operations import files

from rig.apt import keyring
from rig.containers import CONFLICTING, DISTRIBUTION, PIN, PINNED, VENDOR, pattern
from rig.daemon import merged
from rig.facts.containers import DAEMON
from rig.gpu import driver as gpu
from rig.operations import containers, packages
from rig.operations.files import written
from rig.preflight.machine import Machine
from rig.render import render
from rig.settings import Settings
from rig.settings.containers import Containers, Vendor

KEYRING = "/etc/apt/keyrings/docker.asc"
SOURCES = "/etc/apt/sources.list.d/docker.sources"


@concern("containers")
def deploy(settings: Settings, found: Machine) -> None:
    """Docker with the settings' daemon.json merged into the owner's."""
    version = settings.containers.version
    written(name=f"Write {PIN}", path=PIN, text=pin(settings.containers))
    if settings.containers.source == "vendor":
        _from_vendor(settings.containers.vendor, found)
        engine = VENDOR
    else:
        files.file(name=f"Remove {SOURCES}", path=SOURCES, present=False)
        packages.absent(name="Remove the vendor's container engine", packages=VENDOR)
        engine = DISTRIBUTION[found.os_id]
    if version is None:
        packages.present(name="Install the container engine", packages=engine)
    else:
        containers.upgraded(name="Install the container engine", packages=engine, version=version)
    daemon = settings.containers.daemon
    if gpu.handled(settings, found.cards):
        # Docker has it on by itself from 28.2 on, and takes the key all the same.
        daemon = merged({"features": {"cdi": True}}, daemon)
    containers.daemon(name=f"Merge {DAEMON}", wanted=daemon)
    containers.running(name="Run the container engine")


def pin(settings: Containers) -> str:
    """What makes apt choose the engine's version."""
    wanted = None if settings.version is None else pattern(settings.version)
    return render(PIN, packages=PINNED[settings.source], pattern=wanted)


def _from_vendor(vendor: Vendor, found: Machine) -> None:
    address = f"{vendor.repository}/{found.os_id}"
    key = f"{vendor.keys}/{found.os_id}/gpg"
    repository = keyring.Repository(address, KEYRING, key, vendor.key_fingerprints, "containers.vendor")
    written(name=f"Write {KEYRING}", path=KEYRING, text=keyring.text(repository))
    sources = render(SOURCES, repository=address, codename=found.os_codename, keyring=KEYRING)
    written(name=f"Write {SOURCES}", path=SOURCES, text=sources)
    packages.absent(name="Remove conflicting packages", packages=CONFLICTING)
