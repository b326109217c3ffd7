"""Concern containers: the Docker engine and compose, from the vendor's repository or from the distribution."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern
from pyinfra.operations import files

from rig import containers as wanted
from rig.apt import keyring, sources
from rig.containers import CONFLICTING, DISTRIBUTION, PIN, PINNED, SOURCES, VENDOR, pattern
from rig.daemon import merged
from rig.facts.containers import DAEMON
from rig.gpu import driver as gpu
from rig.operations import containers, packages
from rig.operations.files import written
from rig.preflight.machine import Machine
from rig.render import render
from rig.settings import Settings
from rig.settings.containers import Containers, Vendor


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
        # From 28.2 on, Docker enables it by default, and still accepts the key.
        daemon = merged({"features": {"cdi": True}}, daemon)
    containers.daemon(name=f"Merge {DAEMON}", wanted=daemon)
    containers.running(name="Run the container engine")


def pin(settings: Containers) -> str:
    """apt's preferences that select the engine's version."""
    wanted = None if settings.version is None else pattern(settings.version)
    return render(PIN, packages=PINNED[settings.source], pattern=wanted)


def _from_vendor(vendor: Vendor, found: Machine) -> None:
    repository = wanted.repository(vendor, found.os_id, found.os_codename)
    signer = sources.signer(repository, found.sources)
    if signer == repository.keyring:
        written(name=f"Write {signer}", path=signer, text=keyring.text(repository))
    text = render(SOURCES, repository=repository, signer=signer)
    written(name=f"Write {SOURCES}", path=SOURCES, text=text)
    packages.absent(name="Remove conflicting packages", packages=CONFLICTING)
