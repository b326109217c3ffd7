"""Things in the settings that a machine lacks: kernel parameters, login shells, a second disk for the backups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from rig.preflight.machine import Machine
from rig.settings import Settings
from rig.systemd import mounts

PARAMETERS = PurePosixPath("/proc/sys")
"""The kernel's folder with a file for each of its parameters."""
SWAPPED = str.maketrans("./", "/.")


def problems(settings: Settings, machine: Machine) -> list[str]:
    """Every missing thing, each a sentence with its remedy."""
    return [*_parameters(settings, machine), *_shells(settings, machine), *_disk(settings, machine)]


def files(settings: Settings) -> tuple[PurePosixPath, ...]:
    """Files whose absence means that the machine lacks something."""
    shells = (PurePosixPath(user.shell) for user in settings.machine.users.values())
    return (*_parameter_files(settings).values(), *shells)


def _parameter_files(settings: Settings) -> dict[str, PurePosixPath]:
    """The file of each kernel parameter in the settings; only the machine can resolve patterns."""
    wanted = settings.machine.sysctl.items()
    return {
        key: PARAMETERS / key.translate(SWAPPED) for key, value in wanted if value is not None and "*" not in key
    }


def _parameters(settings: Settings, machine: Machine) -> Iterator[str]:
    for key, file in _parameter_files(settings).items():
        if str(file) in machine.absent:
            yield (
                f"the machine's kernel does not know {key} (machine.sysctl); correct the name, write null, or have the "
                "module loaded at boot that knows it (/etc/modules-load.d)"
            )


def _shells(settings: Settings, machine: Machine) -> Iterator[str]:
    for name, user in settings.machine.users.items():
        package = PurePosixPath(user.shell).name
        if user.shell in machine.absent and package not in settings.machine.packages:
            yield (
                f"{user.shell}, the shell of machine.users.{name}, is not on the machine; add its package to "
                "machine.packages, or write /bin/bash"
            )


def _disk(settings: Settings, machine: Machine) -> Iterator[str]:
    """One disk under two names in the settings."""
    models, backup = settings.storage.models.mount, settings.storage.backup.mount
    if models is None or backup is None:
        return
    links = [mounts.device(models.source), mounts.device(backup.source)]
    one, other = (machine.disks.get(link, link) for link in links)
    if one == other:
        yield (
            f"storage.models.mount.source ({models.source}) and storage.backup.mount.source ({backup.source}) are both "
            f"{one}, so that models and backups are lost together; name another disk for the backups"
        )
