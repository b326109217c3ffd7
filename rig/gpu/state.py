"""The driver's state on a machine, and the resulting steps: a reboot, a new initramfs, a key to enrol."""

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
    """Time of the file's last change, seconds since the epoch, like all times below."""


@dataclass(frozen=True)
class SecureBoot:
    """Whether firmware admits only signed modules, and the state of DKMS's signing key in it."""

    enabled: bool
    certificate: str = ""
    """SHA-1 of the key's certificate on the disk, lower-case hexadecimal; empty without one."""
    enrolled: frozenset[str] = frozenset()
    staged: frozenset[str] = frozenset()
    """SHA-1 of the certificates that firmware trusts, and of those to be confirmed at the machine's screen."""
    password: bool = False
    """The one-time password of a staged key is still on the disk."""


@dataclass(frozen=True)
class Driver:
    """The driver on the machine, and the kernel around it."""

    kernel: str
    """Release of the running kernel."""
    booted: float
    newest_kernel: str = ""
    """Release of the newest installed kernel; empty if unknown."""
    newest_kernel_changed: float = 0
    newest_headers: bool = False
    newest_module: bool = False
    """Whether the newest kernel's headers, and the driver's module for it, are installed."""
    headers: bool = False
    """The running kernel's headers are installed."""
    loaded: str | None = None
    """Version of the module in the kernel; None when it is not loaded."""
    nouveau: bool = False
    """The kernel has nouveau loaded."""
    module: Module | None = None
    library: str | None = None
    """Version of the user-space library for the module."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of the installed packages with NVIDIA's names."""
    blacklisted: float | None = None
    """Last change of the files that blacklist nouveau; None without any."""
    initramfs: float | None = None
    """Build time of the running kernel's initramfs; None without one."""
    secure_boot: SecureBoot = SecureBoot(enabled=False)
    specification: str | None = None
    """Driver version of the CDI specification; None without one, empty if it names no version."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that must be able to run the driver."""

    release: str
    headers: bool
    module: bool
    """Whether its headers, and the driver's module for it, are installed."""


def kernels(driver: Driver, allowed: bool) -> tuple[Kernel, ...]:
    """Kernels that need the driver's module: that of the next boot, and the running one until then.

    ``allowed``: this run may reboot; then the running kernel, whose headers may be gone from the archive, needs none.
    """
    running = Kernel(driver.kernel, driver.headers, driver.module is not None)
    if not _newer_kernel(driver):
        return (running,)
    newest = Kernel(driver.newest_kernel, driver.newest_headers, driver.newest_module)
    return (newest,) if allowed else (running, newest)


def _newer_kernel(driver: Driver) -> bool:
    """Whether the next boot starts another kernel, as far as is known."""
    # Somebody who boots an older kernel on purpose has booted since the installation of the newer one.
    return driver.newest_kernel not in ("", driver.kernel) and driver.newest_kernel_changed > driver.booted


def missing_headers(driver: Driver, selection: Selection, wanted: Sequence[Kernel]) -> dict[str, str]:
    """Packages of missing headers, by kernel."""
    if not selection.built:
        return {}
    found = {kernel.release: f"linux-headers-{kernel.release}" for kernel in wanted if not kernel.headers}
    if selection.headers not in driver.packages:
        found["that comes next"] = selection.headers
    return found


def initramfs_due(driver: Driver) -> bool:
    """Whether the running kernel's initramfs is older than nouveau's blacklist, and would load nouveau again."""
    return driver.initramfs is not None and driver.blacklisted is not None and driver.initramfs < driver.blacklisted


def enrolment(secure_boot: SecureBoot, selection: Selection) -> Enrolment:
    """The enrolment of the key that signs the driver's module.

    A key staged by somebody else, or by a run that died, counts as missing: nobody can know its password.
    """
    if not secure_boot.enabled or not selection.built:
        return "not needed"
    if secure_boot.certificate in secure_boot.enrolled:
        return "enrolled"
    return "staged" if waits(secure_boot) else "missing"


def waits(secure_boot: SecureBoot) -> bool:
    """Whether the key waits for confirmation at the screen, and its password can still be read."""
    return secure_boot.certificate in secure_boot.staged and secure_boot.password


@dataclass(frozen=True)
class Reboot:
    """The reasons for a reboot."""

    due: tuple[str, ...] = ()
    """Reasons that a reboot would remove, each a part of a sentence."""
    futile: tuple[str, ...] = ()
    """The same kinds of reasons, which the last boot has not removed."""


def reboot(driver: Driver) -> Reboot:
    """Problems of the driver that only a reboot can fix.

    A change after the boot can take effect at the next one. An older change without effect has other causes: another
    reboot would not help, and the deploy would reboot for ever.
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
    """Whether every package of the selection has the wanted branch or version."""
    wanted = (selection.first, *selection.packages)
    return all(name in driver.packages for name in wanted) and all(
        matches(driver.packages[name], version) for name in selection.packages
    )


def described(driver: Driver) -> bool:
    """Whether the CDI specification matches the installed library: containers get its files by name."""
    return driver.specification is not None and driver.specification in ("", driver.library)
