"""What preflight knows of a machine: the login, its sockets and mounts, and the machine as it is before a deploy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rig.apt.sources import NONE, Sources
from rig.gpu.cards import Card

KEY = re.compile(r"(?:^|\s)(?:ssh|ecdsa|sk)-\S+\s+([A-Za-z0-9+/]{40,}={0,3})")
"""A public key in a line of authorized_keys, behind its kind; options may stand before that."""


@dataclass(frozen=True)
class Login:
    """Who we are on the machine, seen without any privilege."""

    uid: int
    user: str
    sudo: bool
    """Whether `sudo -n true` succeeds."""
    source: str | None
    """Address the SSH connection comes from; None without SSH."""
    port: int | None
    """Port of the machine that it came in on; None without SSH."""
    keys: frozenset[str] = frozenset()
    """What its authorized_keys lets in now, as `key_bodies` has it."""
    chatter: str = ""
    """What its shell prints besides the answer, before and behind it; instead of it where `user` is empty."""


@dataclass(frozen=True)
class Listener:
    """One listening TCP socket."""

    address: str
    port: int
    process: str
    unit: str
    """systemd unit of the process; empty when unknown."""
    container: str = ""
    """Docker's container of the process, which then shares the machine's network; empty without one."""


@dataclass(frozen=True)
class Mounted:
    """A file system that is mounted; its UUID and label are empty where the machine cannot tell them."""

    device: str
    uuid: str = ""
    label: str = ""


@dataclass(frozen=True)
class Overrides:
    """What the machine has beside our own files, each file by its path, in the order in which they are read."""

    sysctl: Mapping[str, str] = field(default_factory=dict)
    journald: Mapping[str, str] = field(default_factory=dict)
    apt: Mapping[str, str] = field(default_factory=dict)
    drop_ins: tuple[str, ...] = ()
    """Paths of the drop-ins of units that a deploy writes or runs for itself."""


@dataclass(frozen=True)
class Machine:
    """What preflight needs to know, all sizes in bytes."""

    os_id: str
    os_version: str
    os_codename: str
    architecture: str
    free: Mapping[str, int]
    """Free bytes of the file system that holds (or will hold) each asked path."""
    device: Mapping[str, str]
    """That file system's device number: two paths with one device share their free space."""
    mounts: Mapping[str, Mounted]
    """Those of the asked paths that are mount points now, and what is mounted there."""
    sizes: Mapping[str, int]
    """Bytes already there under each asked file, its unfinished download included."""
    absent: frozenset[str] = frozenset()
    """Those of the asked files that are not there."""
    disks: Mapping[str, str] = field(default_factory=dict)
    """The device that each asked link to one leads to; the link itself where it leads nowhere."""
    listeners: tuple[Listener, ...] = ()
    published: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Name of each container that Rig made, and the ports of the machine that it has, or gets when it is started."""
    docker: bool = False
    """Docker is installed."""
    missing_images: frozenset[str] = frozenset()
    """Those of the asked images that Docker says it does not hold."""
    apt_holder: str | None = None
    """Process that holds a lock of apt or dpkg."""
    switch: str | None = None
    """PID of a rig-mode that is at work."""
    daemon: str = ""
    """Text of /etc/docker/daemon.json; empty when it is missing."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Versions of the installed packages that their owner has put on hold."""
    cards: tuple[Card, ...] = ()
    """NVIDIA's cards on the PCI bus."""
    kernel: str = ""
    """Release of the kernel that runs."""
    secure_boot: bool = False
    """Firmware lets only signed modules into the kernel."""
    sources: Sources = NONE
    """apt's entries for servers that the settings name, and the key rings of these."""
    data_root: str = "/var/lib/docker"
    """Where Docker keeps images; its free space is in `free`, too."""
    swarm: bool = False
    """The machine is a node of a Docker swarm."""
    environment: tuple[str, ...] = ()
    """Variables of every login that steer Docker or apt elsewhere, as NAME=value."""
    automounts: frozenset[str] = frozenset()
    """Those of the asked paths that are automount points whose disk does not come."""
    alike: Mapping[str, str] = field(default_factory=dict)
    """For an asked link to a disk that is not there: one that differs in capital letters alone."""
    ram: int | None = None
    cores: int | None = None
    """Physical ones."""
    card_memory: tuple[int, ...] = ()
    """As nvidia-smi shows it; empty where it does not answer."""
    cuda: str = ""
    """Newest CUDA that the driver has; empty where nvidia-smi does not answer."""
    overrides: Overrides = field(default_factory=Overrides)
    """Files that could undo ours."""
    malformed_keys: tuple[str, ...] = ()
    """Variables of /etc/rig/keys.env that stand there without a key, or twice."""


def key_bodies(text: str) -> frozenset[str]:
    """The public keys in lines of authorized_keys, without kinds, options and comments."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return frozenset(body for line in lines for body in KEY.findall(line)[:1])
