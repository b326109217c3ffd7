"""Preflight's facts of a machine: the login, its sockets and mounts, and the machine before a deploy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from rig.apt.sources import NONE, Sources
from rig.gpu.cards import Card

KEY = re.compile(r"(?:^|\s)(?:ssh|ecdsa|sk)-\S+\s+([A-Za-z0-9+/]{40,}={0,3})")
"""A public key in a line of authorized_keys, after its kind; options may come before that."""


@dataclass(frozen=True)
class Login:
    """The login on the machine, without any privilege."""

    uid: int
    user: str
    sudo: bool
    """Whether `sudo -n true` succeeds."""
    source: str | None
    """Address the SSH connection comes from; None without SSH."""
    port: int | None
    """The machine's port of the SSH connection; None without SSH."""
    keys: frozenset[str] = frozenset()
    """Keys that its authorized_keys accepts now, in the form of `key_bodies`."""
    chatter: str = ""
    """Other output of its shell, before and after the answer; or all output if `user` is empty."""


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
    """A mounted file system; UUID and label are empty if the machine cannot find them."""

    device: str
    uuid: str = ""
    label: str = ""


@dataclass(frozen=True)
class Overrides:
    """The machine's files beside our own, by path, in the order in which they are read."""

    sysctl: Mapping[str, str] = field(default_factory=dict)
    journald: Mapping[str, str] = field(default_factory=dict)
    apt: Mapping[str, str] = field(default_factory=dict)
    drop_ins: tuple[str, ...] = ()
    """Paths of drop-ins for units that a deploy writes or runs."""
    masks: tuple[str, ...] = ()
    """Paths of links to /dev/null in place of a unit, whoever needs that."""


@dataclass(frozen=True)
class Machine:
    """The machine's state before a deploy, all sizes in bytes."""

    os_id: str
    os_version: str
    os_codename: str
    architecture: str
    free: Mapping[str, int]
    """Free bytes of the file system that holds (or will hold) each requested path."""
    device: Mapping[str, str]
    """That file system's device number: two paths with one device share their free space."""
    mounts: Mapping[str, Mounted]
    """The requested paths that are mount points now, each with its file system."""
    sizes: Mapping[str, int]
    """Present bytes of each requested file, its unfinished download included."""
    absent: frozenset[str] = frozenset()
    """The requested files that do not exist."""
    disks: Mapping[str, str] = field(default_factory=dict)
    """Target device of each requested link; the link itself if it has no target."""
    listeners: tuple[Listener, ...] = ()
    published: Mapping[str, frozenset[int]] = field(default_factory=dict)
    """Rig's containers by name, each with its ports of the machine, also those that it gets at its start."""
    docker: bool = False
    """Docker is installed."""
    missing_images: frozenset[str] = frozenset()
    """The requested images that Docker does not have."""
    apt_holder: str | None = None
    """Process that holds a lock of apt or dpkg."""
    switch: str | None = None
    """PID of a running rig-mode."""
    daemon: str = ""
    """Text of /etc/docker/daemon.json; empty when it is missing."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Versions of the installed packages that the owner has put on hold."""
    cards: tuple[Card, ...] = ()
    """NVIDIA's cards on the PCI bus."""
    kernel: str = ""
    """Release of the running kernel."""
    secure_boot: bool = False
    """Firmware lets only signed modules into the kernel."""
    sources: Sources = NONE
    """apt's entries for servers in the settings, and their key rings."""
    data_root: str = "/var/lib/docker"
    """Docker's folder for images; its free space is in `free`, too."""
    swarm: bool = False
    """The machine is a node of a Docker swarm."""
    environment: tuple[str, ...] = ()
    """Variables of every login that redirect Docker or apt, as NAME=value."""
    automounts: frozenset[str] = frozenset()
    """The requested paths that are automount points whose disk does not appear."""
    alike: Mapping[str, str] = field(default_factory=dict)
    """For each requested link to a missing disk, a link that differs only in upper and lower case."""
    ram: int | None = None
    cores: int | None = None
    """Physical cores."""
    card_memory: tuple[int, ...] = ()
    """Memory of each card, by nvidia-smi; empty if it does not answer."""
    cuda: str = ""
    """Newest CUDA version that the driver supports; empty if nvidia-smi does not answer."""
    overrides: Overrides = field(default_factory=Overrides)
    """Files of others that could undo ours."""
    malformed_keys: tuple[str, ...] = ()
    """Variables of /etc/rig/keys.env without a valid key, or with two lines."""


def key_bodies(text: str) -> frozenset[str]:
    """The public keys in lines of authorized_keys, without kinds, options and comments."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return frozenset(body for line in lines for body in KEY.findall(line)[:1])
