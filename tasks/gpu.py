"""Concern gpu: NVIDIA's driver if there is a card, loaded and kept, and the card in containers through CDI."""

from __future__ import annotations

from pyinfra import host, logger
from pyinfra.api.deploy import deploy as concern

from rig.apt import keyring
from rig.apt.sources import signer
from rig.facts.gpu import DriverFact
from rig.gpu import driver as wanted
from rig.gpu import words
from rig.gpu.state import enrolment
from rig.operations import gpu, packages, units
from rig.operations.files import written_together
from rig.preflight.machine import Machine
from rig.render import own_file, render
from rig.settings import Settings

CDI_UNIT = "nvidia-cdi-refresh.path"


@concern("gpu")
def deploy(settings: Settings, found: Machine) -> None:
    """Install the driver if the settings and the machine have a card. Without one, installed packages stay."""
    if not wanted.handled(settings, found.cards):
        return
    chosen = wanted.selection(settings, found.cards, (found.os_id, found.os_version), found.kernel)
    texts = {wanted.BLACKLIST: own_file(wanted.BLACKLIST), **_repositories(settings, found)}
    written_together(name="Add NVIDIA's repositories and disable nouveau", texts=texts)

    if found.secure_boot and chosen.built:
        if enrolment(host.get_fact(DriverFact).secure_boot, chosen) != "enrolled":
            for line in words.ahead():
                logger.warning(f"{host.print_prefix}{line}")
        packages.present(name="Install mokutil and openssl", packages=["mokutil", "openssl"])
        gpu.enrolled(name="Enrol the driver's signing key in the firmware", selection=chosen)

    allowed = settings.gpu.reboot == "once"
    version = settings.gpu.driver.version
    gpu.driver(name="Install NVIDIA's driver", selection=chosen, version=version, allowed=allowed)
    gpu.loaded(name="Load NVIDIA's driver", allowed=allowed, timeout=settings.gpu.reboot_timeout)
    units.running(name="Run nvidia-persistenced", unit="nvidia-persistenced.service")
    gpu.awake(name="Disable sleep")
    gpu.toolkit(name="Install NVIDIA's container toolkit", version=settings.gpu.toolkit.version)
    units.running(name=f"Run {CDI_UNIT}", unit=CDI_UNIT)
    gpu.shown(name="Generate the CDI specification")


def _repositories(settings: Settings, found: Machine) -> dict[str, str]:
    """apt's files for these packages: key rings, sources and preferences."""
    signers = {
        repository: signer(repository, found.sources)
        for repository in wanted.repositories(settings, (found.os_id, found.os_version))
    }
    own = [repository for repository, value in signers.items() if value == repository.keyring]
    return {
        **{repository.keyring: keyring.text(repository) for repository in own},
        wanted.SOURCES: render(wanted.SOURCES, signers=signers),
        wanted.TOOLKIT_PIN: render(
            wanted.TOOLKIT_PIN, packages=wanted.TOOLKIT, version=settings.gpu.toolkit.version
        ),
        wanted.NAMES_PIN: render(wanted.NAMES_PIN, names=wanted.PINNED_NAMES),
    }
