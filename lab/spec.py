"""The options of one lab, shared by its processes: one value that fits on a command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

RELEASES = ("trixie", "bookworm")
SSH_PORT = 22
HUB_PORT = 8080
REGISTRY_PORT = 5000
APT_PROXY_PORT = 3142
PREFIX = "10.77"
INDICES = 250
OPERATORS = f"{PREFIX}.254.0/24"
"""The operators of all labs, and nobody else: a disk admits them on whichever network it boots."""
HUB = "hub.rig-lab"
REGISTRY = "registry.rig-lab"
PACKAGES = "packages.rig-lab"
"""Names of the stand-ins, which the machine has in its /etc/hosts: a deployed machine holds no address of a lab."""


@dataclass(frozen=True)
class Spec:
    """The options of a lab."""

    directory: Path
    cache: Path
    release: str
    uid: int
    gid: int
    index: int
    """The network to take; if it is in use, the next free one."""
    gpu: bool = False
    """The machine has the card on its bus, as far as programs can see."""
    vm: bool = False
    """A whole machine under emulation instead of a container."""
    secure_boot: bool = False
    """The whole machine's firmware starts only signed code."""
    origin: Path | None = None
    """The disk to copy, instead of a bare one."""
    only_build: bool = False

    def encode(self) -> str:
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def decode(text: str) -> Spec:
        values = json.loads(text)
        paths = {name: Path(values[name]) for name in ("directory", "cache", "origin") if values[name] is not None}
        return Spec(**values | paths)

    @property
    def disk(self) -> Path:
        return disk_of(self.directory)

    @property
    def root(self) -> Path:
        """The disk's mount point, visible only inside the lab."""
        return self.directory / "machine"

    @property
    def control(self) -> Path:
        return self.directory / "control.sock"

    @property
    def leash(self) -> Path:
        return self.directory / "leash.sock"

    @property
    def running(self) -> Path:
        return self.directory / "running"

    @property
    def logs(self) -> Path:
        return self.directory / "log"


def disk_of(directory: Path) -> Path:
    """The disk of the machine of the lab in `directory`."""
    return directory / "disk.img"


@dataclass(frozen=True)
class Network:
    """The addresses of one lab: 10.77.INDEX.0/24."""

    index: int

    def _host(self, number: int) -> str:
        return f"{PREFIX}.{self.index}.{number}"

    @property
    def subnet(self) -> str:
        return self._host(0) + "/24"

    @property
    def services(self) -> str:
        """The stand-ins: hub, registry, package cache; also the way out."""
        return self._host(1)

    @property
    def machine(self) -> str:
        return self._host(2)

    @property
    def operator(self) -> str:
        """This side of the wire, the source of SSH connections; one of OPERATORS."""
        return OPERATORS.replace(".0/24", f".{self.index + 1}")

    @property
    def neighbour(self) -> str:
        """Another host on the same network, which the machine has no reason to trust."""
        return self._host(4)

    @property
    def interface(self) -> str:
        """The one interface that the operator's machine gets; its existence is the claim to the index."""
        return f"rig-lab-{self.index}"
