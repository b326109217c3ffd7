"""What is known of the driver on one machine, and what follows: a reboot, a new initramfs, a key to be confirmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rig.gpu.driver import Selection, matches

Enrolment = Literal["not needed", "enrolled", "staged", "missing"]


@dataclass(frozen=True)
class Module:
    """The module that the running kernel would load."""

    version: str
    licence: str
    changed: float
    """When its file changed, seconds since the epoch; so are the times below."""


@dataclass(frozen=True)
class SecureBoot:
    """Whether firmware lets only signed modules in, and what it knows of the key that DKMS signs with."""

    enabled: bool
    certificate: str = ""
    """SHA-1 of the key's certificate on the disk, lower-case hexadecimal; empty without one."""
    enrolled: frozenset[str] = frozenset()
    staged: frozenset[str] = frozenset()
    """SHA-1 of the certificates that firmware trusts, and of those that wait for a person at its screen."""
    password: bool = False
    """The one-time password of a staged key is still on the disk."""


@dataclass(frozen=True)
class Driver:
    """The driver on the machine, and the kernel around it."""

    kernel: str
    """Release of the kernel that runs."""
    booted: float
    newest_kernel: str = ""
    """Release of the newest kernel that is installed; empty where none is known."""
    newest_kernel_changed: float = 0
    newest_headers: bool = False
    newest_module: bool = False
    """Whether its headers, and the driver's module for it, are there."""
    headers: bool = False
    """The running kernel's headers are there."""
    loaded: str | None = None
    """Version of the module in the kernel; None when it is not loaded."""
    nouveau: bool = False
    """nouveau is in the kernel."""
    module: Module | None = None
    library: str | None = None
    """Version of the library that speaks with the module."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of the installed packages whose names are NVIDIA's."""
    blacklisted: float | None = None
    """When what keeps nouveau off changed last; None when nothing does."""
    initramfs: float | None = None
    """When the running kernel's initramfs was made; None without one."""
    secure_boot: SecureBoot = SecureBoot(enabled=False)
    specification: str | None = None
    """Version of the driver that the CDI specification is of; None without one, empty where it does not say."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that is to run with the driver."""

    release: str
    headers: bool
    module: bool
    """Whether its headers, and the driver's module for it, are there."""


def kernels(driver: Driver, allowed: bool) -> tuple[Kernel, ...]:
    """Those that need the driver's module: the one that the next boot brings, and the running one until then.

    ``allowed``: that boot is this run's; the running one, whose headers may be gone from the archive, then needs none.
    """
    running = Kernel(driver.kernel, driver.headers, driver.module is not None)
    if not _newer_kernel(driver):
        return (running,)
    newest = Kernel(driver.newest_kernel, driver.newest_headers, driver.newest_module)
    return (newest,) if allowed else (running, newest)


def _newer_kernel(driver: Driver) -> bool:
    """Whether the next boot brings another kernel, as far as is known."""
    # Whoever boots an older kernel on purpose has booted since the newer one was installed.
    return driver.newest_kernel not in ("", driver.kernel) and driver.newest_kernel_changed > driver.booted


def missing_headers(driver: Driver, selection: Selection, wanted: Sequence[Kernel]) -> dict[str, str]:
    """Packages of headers that are missing, by the kernel that they are for."""
    if not selection.built:
        return {}
    found = {kernel.release: f"linux-headers-{kernel.release}" for kernel in wanted if not kernel.headers}
    if selection.headers not in driver.packages:
        found["that comes next"] = selection.headers
    return found


def initramfs_due(driver: Driver) -> bool:
    """Whether the running kernel's initramfs is older than what keeps nouveau off, and would load it again."""
    return driver.initramfs is not None and driver.blacklisted is not None and driver.initramfs < driver.blacklisted


def enrolment(secure_boot: SecureBoot, selection: Selection) -> Enrolment:
    """How far the key is with which the driver's module is signed.

    One that was staged by somebody else, or by a run that died, waits for a password that nobody can be told.
    """
    if not secure_boot.enabled or not selection.built:
        return "not needed"
    if secure_boot.certificate in secure_boot.enrolled:
        return "enrolled"
    return "staged" if waits(secure_boot) else "missing"


def waits(secure_boot: SecureBoot) -> bool:
    """Whether the key waits for a person at the screen, who can look its password up."""
    return secure_boot.certificate in secure_boot.staged and secure_boot.password


@dataclass(frozen=True)
class Reboot:
    """Why the machine has to be booted again."""

    due: tuple[str, ...] = ()
    """Reasons that a reboot would remove, a part of a sentence each."""
    futile: tuple[str, ...] = ()
    """What is wrong in the same way, and the last boot has not removed."""


def reboot(driver: Driver) -> Reboot:
    """What only a reboot can make right, as far as the driver is concerned.

    What is younger than the boot can become effective by the next one. What is older, and is not effective, has other
    causes: to boot again would change nothing, and again, and again.
    """
    reasons: list[tuple[str, float]] = []
    if driver.nouveau:
        reasons.append(("nouveau holds the card", max(driver.blacklisted or 0, driver.initramfs or 0)))
    if driver.module is not None and driver.loaded is not None and driver.loaded != driver.module.version:
        sentence = f"the kernel runs the driver's module {driver.loaded}, and {driver.module.version} is installed"
        reasons.append((sentence, driver.module.changed))
    due = [text for text, since in reasons if since > driver.booted]
    futile = [text for text, since in reasons if since <= driver.booted]
    if _newer_kernel(driver):
        due.append(f"the kernel {driver.newest_kernel} is installed, and {driver.kernel} runs")
    return Reboot(tuple(due), tuple(futile))


def current(driver: Driver, selection: Selection, version: str) -> bool:
    """Whether every package of the selection is there, in the wanted branch or version of the driver."""
    wanted = (selection.first, *selection.packages)
    return all(name in driver.packages for name in wanted) and all(
        matches(driver.packages[name], version) for name in selection.packages
    )


def described(driver: Driver) -> bool:
    """Whether the CDI specification is of the library that is installed: containers get its files by name."""
    return driver.specification is not None and driver.specification in ("", driver.library)
