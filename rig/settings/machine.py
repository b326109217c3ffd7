"""Settings of the concern `machine`: the operating system itself, before anything is served from it."""

from __future__ import annotations

import re
import zoneinfo
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from rig.settings.accounts import AuthorizedKey, LoginShell, Person
from rig.settings.packages import BlockedPackage, PackageName
from rig.settings.problems import show
from rig.settings.types import Section, Shape, Size, Text, UserName, one_line, sized
from rig.settings.words import either, nearest_word

AREAS = ("abi", "crypto", "debug", "dev", "fs", "kernel", "net", "sunrpc", "user", "vm")
"""First parts of kernel parameters; only the machine's own kernel knows the rest."""
SPANS = {"s": 1, "min": 60, "h": 3600, "day": 86400, "week": 604800, "month": 2_629_800, "year": 31_557_600}
"""Seconds of systemd's units of time."""


def _known_timezone(value: str) -> str:
    """A time zone of the tz database."""
    known = zoneinfo.available_timezones()
    if value in known:
        return value
    meant = nearest_word(value, known) or "one such as Europe/Berlin"
    raise ValueError(f"{show(value)} is not a known time zone; write {meant}")


def _sysctl_value(value: object) -> object:
    """Refuse an invalid value of a kernel parameter in one sentence; a union would give two."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {show(value)}; write {int(value)}")
    if (isinstance(value, str) and one_line(value) != value.strip()) or value == "":
        raise ValueError(f"is {show(value)}, which the kernel would not be given so; write it without spaces around it")
    if isinstance(value, str) and len(value) > 1000:
        raise ValueError(f"is {show(value)} of {len(value)} letters; write 1000 at most")
    if value is None or isinstance(value, int | str):
        return value
    raise ValueError("must be a whole number, text or null; write one of these")


def _known_area(value: str) -> str:
    """A kernel parameter of a known area."""
    area = value.partition(".")[0]
    if area not in AREAS:
        meant = nearest_word(area, AREAS)
        remedy = f"write {meant}.{value.partition('.')[2]}" if meant else f"begin it with {either(AREAS)}"
        raise ValueError(f"{show(value)} is not a kernel parameter; {remedy}")
    return value


def _human(value: str) -> str:
    """A time span between an hour and a century."""
    number, unit = re.sub("[a-z]+", "", value), re.sub("[0-9]+", "", value)
    if not 3600 <= int(number) * SPANS[unit] <= 100 * SPANS["year"]:
        raise ValueError(f"{show(value)} is not between an hour and a century; write one such as 90day")
    return value


TimeZone = Annotated[Text, AfterValidator(_known_timezone)]
SysctlName = Annotated[
    str,
    # A slash is a dot within a name, as of the network device eth0.1; two could leave the kernel's folder.
    Shape(
        r"(?=.{1,200}$)[a-z0-9_]+(\.[A-Za-z0-9_*-]+(/[A-Za-z0-9_*-]+)*)+",
        "a kernel parameter",
        "one such as vm.swappiness",
    ),
    AfterValidator(_known_area),
]
SysctlValue = Annotated[int | str | None, BeforeValidator(_sysctl_value)]
TimeSpan = Annotated[
    str,
    Shape(r"[1-9][0-9]{0,9}(s|min|h|day|week|month|year)", "a time span of systemd", "one such as 90day"),
    AfterValidator(_human),
]
Speed = Annotated[float, Field(ge=0.001, le=1_000_000)]
"""GB/s or TFLOP/s."""


class User(Section):
    """A person who logs in."""

    groups: tuple[UserName, ...] = Field(
        default=(), description="Further groups of the user; `sudo` lets them administer the machine."
    )
    shell: LoginShell = Field(default="/bin/bash", description="Login shell, absolute path.")
    authorized_keys: tuple[AuthorizedKey, ...] | None = Field(
        default=None,
        description="All SSH public keys that may log in as this user, a line of a .pub file each; null: as they are.",
    )


class Ssh(Section):
    """How people log in over SSH."""

    keys_only: bool | None = Field(
        description="Whether only keys log in, true or false; null: where a key logs in as the user of the deploy."
    )


class Journald(Section):
    """The journal's limits of size and age."""

    max_use: Annotated[Size, sized("16M", "100T", "a day of entries takes more")] = Field(
        description="Disk space the journal may take, as a size such as 2G."
    )
    max_retention: TimeSpan = Field(description="Age after which entries go, as a systemd time span such as 90day.")


class SecurityUpdates(Section):
    """Unattended installation of security updates."""

    enabled: bool = Field(description="Whether security updates are installed unattended, true or false.")
    blocklist: tuple[BlockedPackage, ...] = Field(
        description="Packages never updated unattended: regular expressions for the start of the name."
    )


class Gpu(Section):
    """The engines' graphics card."""

    name: Text = Field(max_length=200, description="What the card is called, for people.")
    memory: Size = Field(description="Memory that programs can use, as a size such as 15882M.")
    bandwidth: Speed = Field(description="Speed of its memory, GB/s (powers of 1000).")
    compute: Speed = Field(description="Peak of 16-bit matrix operations, TFLOP/s.")
    compute_8bit: Speed = Field(description="Peak of 8-bit matrix operations, TFLOP/s.")


class Hardware(Section):
    """The machine's hardware, for the plan and the checks of memory and disk; these keys configure nothing."""

    cores: int = Field(ge=1, le=4096, description="Physical cores of the processor, a number.")
    cpu_compute: Speed = Field(description="Peak of 32-bit operations of all cores, TFLOP/s.")
    ram: Size = Field(description="RAM, as a size such as 128G.")
    ram_reserve: Size = Field(description="RAM that engines must leave to everything else, as a size such as 8G.")
    ram_bandwidth: Speed = Field(description="Speed of the RAM, GB/s (powers of 1000).")
    disk: Size | None = Field(description="Size of the disk for the models, as a size such as 900G; null: unknown.")
    gpu: Gpu | None = Field(description="The graphics card; null for none.")


class Machine(Section):
    """The machine and its operating system: hardware, time zone, packages, people, kernel, journal and updates."""

    hardware: Hardware = Field(description="What the machine is made of, for the plan of what fits.")
    timezone: TimeZone = Field(description="Time zone, a name of the tz database such as Europe/Berlin.")
    packages: tuple[PackageName, ...] = Field(description="Debian packages beyond those the deploy itself needs.")
    users: dict[Person, User] = Field(description="People who log in, by user name.")
    ssh: Ssh = Field(description="Logins over SSH.")
    sysctl: dict[SysctlName, SysctlValue] = Field(
        description="Kernel parameters by name; number or text, null leaves one as the kernel has it."
    )
    journald: Journald = Field(description="Limits of the system journal.")
    security_updates: SecurityUpdates = Field(description="Unattended security updates.")
