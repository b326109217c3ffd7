"""Obstacles to a deploy on a machine with a past, or with wrong settings for its hardware."""

from __future__ import annotations

import json
import re
from urllib.parse import urlsplit

from rig import containers, daemon
from rig.apt.sources import CannotShare, Repository, signer
from rig.capacity.units import in_words
from rig.engines import compose
from rig.gpu import driver
from rig.preflight.machine import Machine
from rig.settings import Settings, size_bytes
from rig.settings.storage import Storage
from rig.systemd import mounts

SEEN = 0.9
"""Part of its RAM, and of a card's memory, that a machine reports at least: firmware and kernel keep some."""
HERE = ("unix:///var/run/docker.sock", "unix:///run/docker.sock")
CUDA_OF_BRANCH = ((580, 13), (525, 12), (450, 11))
"""First driver branch for each major version of CUDA (NVIDIA's release notes); newest first."""


def problems(settings: Settings, machine: Machine) -> list[str]:
    """Every obstacle, each a sentence with its remedy."""
    return [
        *_sources(settings, machine),
        *_daemon(settings, machine),
        *_environment(machine),
        *_disks(settings.storage, machine),
        *_hardware(settings, machine),
        *_cuda(settings, machine),
    ]


def repositories(settings: Settings, machine: Machine) -> list[Repository]:
    """The apt repositories that a deploy adds on this machine."""
    found = []
    if settings.containers.source == "vendor":
        found.append(containers.repository(settings.containers.vendor, machine.os_id, machine.os_codename))
    if driver.handled(settings, machine.cards):
        found += driver.repositories(settings, (machine.os_id, machine.os_version))
    return found


def servers(settings: Settings) -> tuple[str, ...]:
    """Servers of all repositories that any machine could get."""
    addresses = (
        settings.containers.vendor.repository,
        settings.gpu.driver.repository,
        settings.gpu.toolkit.repository,
    )
    return tuple(sorted({urlsplit(address).netloc for address in addresses}))


def _sources(settings: Settings, machine: Machine) -> list[str]:
    found = []
    for repository in repositories(settings, machine):
        try:
            signer(repository, machine.sources)
        except CannotShare as error:
            found.append(str(error))
    return found


def _daemon(settings: Settings, machine: Machine) -> list[str]:
    try:
        own = json.loads(machine.daemon) if machine.daemon.strip() else {}
    except ValueError:
        # Refused elsewhere.
        return []
    return daemon.problems(own, settings.containers.daemon, machine.swarm) if isinstance(own, dict) else []


def _environment(machine: Machine) -> list[str]:
    steering = [
        line
        for line in machine.environment
        if line.partition("=")[2].strip("'\"") not in HERE and line != "DOCKER_CONTEXT=default"
    ]
    if not steering:
        return []
    return [
        f"every login has {', '.join(steering)}, by which a deploy's programs work on something else than this "
        "machine; take it out of /etc/environment, or of the files that the login shell reads"
    ]


def _disks(storage: Storage, machine: Machine) -> list[str]:
    found = []
    for name, place in (("models", storage.models), ("backup", storage.backup)):
        if str(place.path) in machine.automounts:
            found.append(
                f"{place.path} is an automount point, and its disk does not come; connect the disk, or correct what "
                "mounts it (findmnt --mountpoint shows both)"
            )
        if place.mount is None or str(place.path) in machine.mounts:
            continue
        link = mounts.device(place.mount.source)
        if link in machine.alike:
            kind = place.mount.source.partition("=")[0]
            found.append(
                f"storage.{name}.mount.source is {place.mount.source}, and the machine's disk is "
                f"{machine.alike[link].rpartition('/')[2]}: capital letters count; write "
                f"'{kind}={machine.alike[link].rpartition('/')[2]}'"
            )
        elif machine.disks.get(link) in ("", link):
            found.append(
                f"no disk of the machine has {place.mount.source} (storage.{name}.mount.source); connect it, or write "
                "one that it has (lsblk -f shows them)"
            )
    return found


def _hardware(settings: Settings, machine: Machine) -> list[str]:
    hardware = settings.machine.hardware
    found = []
    if machine.ram is not None and machine.ram < SEEN * size_bytes(hardware.ram):
        found.append(
            f"the machine has {in_words(machine.ram)} of RAM, and machine.hardware.ram says {hardware.ram}; correct "
            "it, and 'rig check' shows whether all engines still fit"
        )
    if machine.cores is not None and machine.cores < hardware.cores:
        found.append(
            f"the machine has {machine.cores} cores, and machine.hardware.cores says {hardware.cores}; correct it"
        )
    if hardware.gpu is not None and machine.card_memory:
        largest = max(machine.card_memory)
        if largest < SEEN * size_bytes(hardware.gpu.memory):
            found.append(
                f"the graphics card has {in_words(largest)}, and machine.hardware.gpu.memory says "
                f"{hardware.gpu.memory}; correct it, and 'rig check' shows whether all engines still fit"
            )
    return found


def cuda_of(image: str) -> int | None:
    """The major version of CUDA that an image needs, from its name and tag; None if they do not show it.

    llama.cpp's tags have `cuda` for 12 and `cuda13` for 13; vLLM's have `cu129` for 12.9, and none for 13.
    """
    name, _, tag = image.partition("@")[0].rpartition(":")
    if found := re.search(r"(?:^|[-_.])cu(?:da)?-?(1[0-9])(?:[0-9.]|$|[-_])", tag):
        return int(found[1])
    if re.search(r"(?:^|[-_.])cuda(?:[-_.]|$)", tag):
        return 12
    return 13 if name.endswith("/vllm-openai") else None


def _cuda(settings: Settings, machine: Machine) -> list[str]:
    """Images that need a newer CUDA than the driver has, or will have after its installation by the deploy."""
    if not machine.cards:
        return []
    if driver.handled(settings, machine.cards):
        version = settings.gpu.driver.version
        branch = int(version.partition(".")[0])
        there = next((cuda for least, cuda in CUDA_OF_BRANCH if branch >= least), 0)
        what, remedy = f"the driver {version} (gpu.driver.version)", "write a later branch there"
    elif machine.cuda:
        there = int(machine.cuda.partition(".")[0])
        what, remedy = "the machine's driver", "install a later one"
    else:
        return []
    images = {name: engine.image for name, engine in compose.engines(settings).items() if engine.on_card}
    required = {name: cuda_of(image) for name, image in images.items() if image is not None}
    return [
        f"engine {name}'s image asks for CUDA {cuda}, and {what} has CUDA {there}; {remedy}, or an image for "
        f"CUDA {there} in engines.{name}.image"
        for name, cuda in required.items()
        if cuda is not None and cuda > there
    ]
