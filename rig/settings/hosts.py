"""The machines of group_data/hosts.yml (or of a lab): their connections and groups."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

from rig.settings.problems import show
from rig.settings.root import Settings
from rig.settings.types import HOST, Port, Section, Shape, UserName, one_line

LOCAL = "@local"
LAB_GROUPS = ("lab", "lab-gpu", "lab-vm")
RESERVED_GROUPS = ("all", "hosts")
DEVICE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}"
"""The name of a network interface, after the % of an address that is valid on one network only."""


def _address(value: str) -> str:
    """An IP address, a host name, or @local."""
    if value == LOCAL:
        return value
    one_line(value)
    bare, zone, device = value.partition("%")
    if _is_ip(bare) and (not zone or ("." not in bare and re.fullmatch(DEVICE, device))):
        return value
    labels = value.split(".")
    if re.fullmatch(HOST, value) and len(value) <= 253 and not labels[-1].isdigit():
        return value
    raise ValueError(f'{show(value)} is not an address; write an IP address, a host name, or "{LOCAL}"')


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _group(value: str) -> str:
    """A group with a file of its own."""
    if value in RESERVED_GROUPS:
        raise ValueError(f"'{value}' is not a group; remove it, group_data/all.yml holds for every machine")
    return value


def _home(value: str) -> str:
    """A path whose ~ is the home of a user on this computer."""
    try:
        Path(value).expanduser()
    except RuntimeError:
        sentence = f"{show(value)} is in the home of a user whom this computer does not have; write another path"
        raise ValueError(sentence) from None
    return value


Address = Annotated[str, AfterValidator(_address)]
HostName = Annotated[
    str,
    Shape(
        r"(?!all$|lab$)[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?",
        "a usable name of a machine",
        "lower-case letters, digits, - and . only, other than all and lab",
    ),
]
GroupName = Annotated[
    str,
    Shape(r"[a-z][a-z0-9_-]{0,62}", "a group name", "lower-case letters, digits, - and _ only, 63 at most"),
    AfterValidator(_group),
]
FilePath = Annotated[
    str,
    # It appears in commands for copying.
    Shape(
        r"[\w~./+-][\w~./@:,=+-]{0,999}", "a path", "one such as ~/.ssh/id_ed25519, without spaces and signs of a shell"
    ),
    AfterValidator(_home),
]


class HostEntry(Section):
    """One machine."""

    address: Address = Field(
        description='IP address or host name, or "@local" for the machine that runs the deploy itself.'
    )
    port: Port = Field(default=22, description="TCP port of its SSH server, 1 to 65535.")
    user: UserName = Field(default="root", description="User who logs in; root, or one who may use sudo.")
    identity_file: FilePath | None = Field(
        default=None, description="Private key to log in with; null asks the SSH agent and ~/.ssh."
    )
    known_hosts_file: FilePath | None = Field(
        default=None, description="File with the machine's host key; null is ~/.ssh/known_hosts."
    )
    groups: tuple[GroupName, ...] = Field(
        default=(),
        description="Groups of the machine; group_data/<group>.yml exists, later ones beat earlier ones.",
    )
    settings: dict[str, JsonValue] = Field(
        default={},
        description="Settings of this machine alone, in the shape of all.yml; they beat its groups'.",
    )


class HostsFile(Section):
    """The machines, by their names on the command line."""

    hosts: dict[HostName, HostEntry] = Field(description="Machines by name.")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with its complete settings."""

    name: str
    address: str
    port: int
    user: str
    identity_file: Path | None
    known_hosts_file: Path
    groups: tuple[str, ...]
    settings: Settings

    @property
    def is_local(self) -> bool:
        """Whether the deploy runs on the machine itself."""
        return self.address == LOCAL

    @property
    def connector_name(self) -> str:
        """pyinfra's name for the machine."""
        return LOCAL if self.is_local else self.name


def lab_is_running(lab: Path) -> bool:
    """Whether the lab in that folder is running: its pid file names a live supervisor."""
    try:
        pid = int((lab / "running").read_text(encoding="ascii"))
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return False
    return b"lab.supervisor" in command


def given_path(text: str, beside: Path) -> Path:
    """A path from the hosts file: ~ is the operator's home, a relative path starts at the file's folder."""
    return beside / Path(text).expanduser()
