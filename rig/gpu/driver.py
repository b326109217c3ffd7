"""The driver's installation: packages, their order, and their repositories. Plain values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rig.apt.sources import Repository
from rig.gpu.cards import CannotDrive, Card, Modules, branch, modules
from rig.settings import Settings
from rig.settings.packages import DRIVERS

FOLDERS = {
    ("debian", "12"): ("debian12", "3bf863cc.pub"),
    ("debian", "13"): ("debian13", "8793F200.pub"),
    ("ubuntu", "24.04"): ("ubuntu2404", "3bf863cc.pub"),
}
"""(ID, VERSION_ID) of /etc/os-release: the folder of NVIDIA's repository, and the name of its signing key there."""

PACKAGES: dict[Modules, tuple[str, str]] = {
    "open": ("nvidia-open", "nvidia-kernel-open-dkms"),
    "proprietary": ("cuda-drivers", "nvidia-kernel-dkms"),
}
"""The metapackage, and the package of the kernel modules."""

TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)
"""Packages of one source that must all have the same version."""

PINNED_NAMES = ("nvidia*", "cuda*", "libnv*", "libcuda*")
"""Names for which NVIDIA's repository is preferred; its other packages do not replace the distribution's."""

DEVICE = "nvidia.com/gpu=all"
"""All cards, by their name in the toolkit's CDI specification."""
SPECIFICATION = "/var/run/cdi/nvidia.yaml"
"""The specification that the toolkit's own unit, nvidia-cdi-refresh, writes."""

DRIVER_KEYRING = "/etc/apt/keyrings/rig-nvidia.asc"
TOOLKIT_KEYRING = "/etc/apt/keyrings/rig-nvidia-toolkit.asc"
SOURCES = "/etc/apt/sources.list.d/rig-nvidia.sources"
TOOLKIT_PIN = "/etc/apt/preferences.d/00rig-nvidia-toolkit"
NAMES_PIN = "/etc/apt/preferences.d/zz-rig-nvidia"
"""apt uses the first record that names a package, so the more general one sorts after the pinning package's."""
BLACKLIST = "/etc/modprobe.d/rig-nouveau.conf"

KEPT = ("nvidia-", "libnvidia-", "libcuda", "cuda-", "linux-modules-nvidia-", "docker", "containerd", "runc")
"""Prefixes of packages that are never updated unattended: a driver's library that is newer than its module in the
kernel stops the card until the next boot, and a new container engine is the deploy's business."""


def handled(settings: Settings, cards: Sequence[Card]) -> bool:
    """Whether the deploy installs a driver: the settings enable it, and there is a card."""
    return settings.gpu.enabled and bool(cards)


def repositories(settings: Settings, system: tuple[str, str]) -> list[Repository]:
    """The repositories of these packages for a distribution, named by ID and VERSION_ID; the driver's first."""
    driver, toolkit = settings.gpu.driver, settings.gpu.toolkit
    found = []
    if driver.source == "vendor" and system in FOLDERS:
        folder, key = FOLDERS[system]
        part, fingerprints = f"{folder}/x86_64/", driver.key_fingerprints
        address, key = f"{driver.repository}/{part}", f"{driver.keys}/{part}{key}"
        found.append(Repository(address, "/", SOURCES, DRIVER_KEYRING, key, fingerprints, "gpu.driver"))
    found.append(
        Repository(
            f"{toolkit.repository}/stable/deb/amd64/",
            "/",
            SOURCES,
            TOOLKIT_KEYRING,
            f"{toolkit.keys}/gpgkey",
            toolkit.key_fingerprints,
            "gpu.toolkit",
        )
    )
    return found


@dataclass(frozen=True)
class Selection:
    """The packages to install."""

    headers: str
    """Package that brings the headers of every later kernel; empty if no module is built."""
    first: str
    """Package to install before the others are looked up: it selects the driver's branch."""
    packages: tuple[str, ...]
    built: bool
    """DKMS builds the module on the machine; else it comes built and signed."""


def flavour(kernel: str, os_id: str) -> str:
    """The distribution's name for the kernel's flavour: amd64 for 6.12.107+deb13-amd64, generic for 6.8.0-50-generic.

    Raises CannotDrive for a kernel that is not the distribution's.
    """
    found = re.fullmatch(r"[0-9][0-9a-z.+~-]*?-((?:cloud-|rt-)?amd64|generic|lowlatency)", kernel)
    if found is None or (os_id == "debian") != found[1].endswith("amd64"):
        raise CannotDrive(
            f"the running kernel {kernel} is none of the distribution's, and so there are no headers to build the "
            "driver's module with; boot the distribution's kernel, or install the driver yourself and write "
            "'gpu.enabled: false'"
        )
    # Ubuntu 24.04 came with 6.8; packages of its later kernels have another prefix, and the same flavour.
    later = os_id == "ubuntu" and not kernel.startswith("6.8.")
    return f"{found[1]}-hwe-24.04" if later else found[1]


def selection(settings: Settings, cards: Sequence[Card], system: tuple[str, str], kernel: str) -> Selection:
    """The packages for the cards on a distribution, named by ID and VERSION_ID. Raises CannotDrive with the remedy."""
    wanted = settings.gpu.driver
    chosen = modules(cards, wanted.modules, wanted.version)
    if wanted.source == "distribution":
        return _from_ubuntu(wanted.version, chosen, system, kernel)
    return Selection(
        headers=f"linux-headers-{flavour(kernel, system[0])}",
        first=f"nvidia-driver-pinning-{wanted.version}",
        packages=(*PACKAGES[chosen], "nvidia-persistenced"),
        built=True,
    )


def _from_ubuntu(version: str, chosen: str, system: tuple[str, str], kernel: str) -> Selection:
    if system[0] != "ubuntu":
        raise CannotDrive(
            "the distribution's own driver does not know this card; write 'gpu.driver.source: vendor'"
            if system[0] == "debian"
            else "only Ubuntu has built and signed modules; write 'gpu.driver.source: vendor'"
        )
    if "." in version:
        raise CannotDrive(
            f'Ubuntu names its packages by the driver\'s branch; write gpu.driver.version: "{branch(version)}"'
        )
    suffix = "-open" if chosen == "open" else ""
    return Selection(
        headers="",
        first=f"linux-modules-nvidia-{version}{suffix}-{flavour(kernel, 'ubuntu')}",
        packages=(f"nvidia-driver-{version}{suffix}", f"nvidia-compute-utils-{version}"),
        built=False,
    )


def matches(version: str | None, wanted: str) -> bool:
    """Whether an installed version is of the wanted branch, or is the wanted version."""
    if version is None:
        return False
    upstream = _upstream(version)
    return upstream == wanted or upstream.startswith(f"{wanted}.")


def _upstream(version: str) -> str:
    return re.split(r"[-+~]", version.partition(":")[2] or version)[0]


def outdated(settings: Settings, there: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Packages of driver and toolkit whose version differs from the settings: name, setting, its value."""
    driver, toolkit = settings.gpu.driver, settings.gpu.toolkit
    found = []
    for name, version in sorted(there.items()):
        # Debian has packages with NVIDIA's names and unrelated versions, for one those of the CUDA compiler.
        of_driver = name.startswith(DRIVERS) and re.match(r"[1-9][0-9]{2}\b", _upstream(version))
        if name in TOOLKIT and version != toolkit.version:
            found.append((name, "gpu.toolkit.version", toolkit.version))
        elif name not in TOOLKIT and of_driver and not matches(version, driver.version):
            found.append((name, "gpu.driver.version", driver.version))
    return found
