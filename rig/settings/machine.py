"""Settings of the concern `machine`: the operating system itself, before anything is served from it."""

from __future__ import annotations

import zoneinfo
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from rig.settings.problems import show
from rig.settings.types import AbsolutePath, PackageName, Section, Shape, Size, UserName
from rig.settings.words import nearest_word


def _known_timezone(value: str) -> str:
    """A time zone of the tz database."""
    known = zoneinfo.available_timezones()
    if value in known:
        return value
    meant = nearest_word(value, known) or "one such as Europe/Berlin"
    raise ValueError(f"{show(value)} is not a known time zone; write {meant}")


def _sysctl_value(value: object) -> object:
    """Refuses what the kernel would not take in one sentence, where a union would say two."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {show(value)}; write {int(value)}")
    if value is None or isinstance(value, int | str):
        return value
    raise ValueError("must be a whole number, text or null; write one of these")


TimeZone = Annotated[str, AfterValidator(_known_timezone)]
SysctlName = Annotated[
    str, Shape(r"[a-z0-9_]+(\.[A-Za-z0-9_*/-]+)+", "a kernel parameter", "one such as vm.swappiness")
]
SysctlValue = Annotated[int | str | None, BeforeValidator(_sysctl_value)]
AuthorizedKey = Annotated[
    str,
    Shape(
        r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp[0-9]+|sk-[a-z0-9@.-]+) [A-Za-z0-9+/]{40,}={0,3}( [^\n]*)?",
        "an SSH public key",
        "the line of a .pub file, such as 'ssh-ed25519 AAAA... name'",
    ),
]
TimeSpan = Annotated[
    str, Shape(r"[1-9][0-9]*(s|min|h|day|week|month|year)", "a time span of systemd", "one such as 90day")
]
BlockedPackage = Annotated[str, Shape(r"[^\s\"';]+", "a package pattern", "one such as nvidia-")]


class User(Section):
    """A person who logs in."""

    groups: tuple[UserName, ...] = Field(
        default=(), description="Further groups of the user; `sudo` lets them administer the machine."
    )
    shell: AbsolutePath = Field(default="/bin/bash", description="Login shell, absolute path.")
    authorized_keys: tuple[AuthorizedKey, ...] | None = Field(
        default=None,
        description="All SSH public keys that may log in as this user, a line of a .pub file each; null: as they are.",
    )


class Journald(Section):
    """How much of the past the journal keeps."""

    max_use: Size = Field(description="Disk space the journal may take, as a size such as 2G.")
    max_retention: TimeSpan = Field(description="Age after which entries go, as a systemd time span such as 90day.")


class SecurityUpdates(Section):
    """Unattended installation of security updates."""

    enabled: bool = Field(description="Whether security updates are installed unattended, true or false.")
    blocklist: tuple[BlockedPackage, ...] = Field(
        description="Packages never updated unattended: regular expressions for the start of the name."
    )


class Gpu(Section):
    """The graphics card that engines compute on."""

    name: str = Field(description="What the card is called, for people.")
    memory: Size = Field(description="Memory that programs can use, as a size such as 15882M.")
    bandwidth: float = Field(gt=0, le=1_000_000, description="Speed of its memory, GB/s (powers of 1000).")
    compute: float = Field(gt=0, le=1_000_000, description="Peak of 16-bit matrix operations, TFLOP/s.")
    compute_8bit: float = Field(gt=0, le=1_000_000, description="Peak of 8-bit matrix operations, TFLOP/s.")


class Hardware(Section):
    """What the machine is made of: the plan and the checks of what fits calculate with it; nothing is set by it."""

    cores: int = Field(ge=1, description="Physical cores of the processor, a number.")
    cpu_compute: float = Field(gt=0, le=1_000_000, description="Peak of 32-bit operations of all cores, TFLOP/s.")
    ram: Size = Field(description="RAM, as a size such as 128G.")
    ram_reserve: Size = Field(description="RAM that engines must leave to everything else, as a size such as 8G.")
    ram_bandwidth: float = Field(gt=0, le=1_000_000, description="Speed of the RAM, GB/s (powers of 1000).")
    disk: Size | None = Field(description="Size of the disk for the models, as a size such as 900G; null: unknown.")
    gpu: Gpu | None = Field(description="The graphics card; null for none.")


class Machine(Section):
    """The machine and its operating system: hardware, time zone, packages, people, kernel, journal and updates."""

    hardware: Hardware = Field(description="What the machine is made of, for the plan of what fits.")
    timezone: TimeZone = Field(description="Time zone, a name of the tz database such as Europe/Berlin.")
    packages: tuple[PackageName, ...] = Field(description="Debian packages beyond those the deploy itself needs.")
    users: dict[UserName, User] = Field(description="People who log in, by user name.")
    sysctl: dict[SysctlName, SysctlValue] = Field(
        description="Kernel parameters by name; number or text, null leaves one as the kernel has it."
    )
    journald: Journald = Field(description="Limits of the system journal.")
    security_updates: SecurityUpdates = Field(description="Unattended security updates.")
