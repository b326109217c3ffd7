"""Texts for a person when the driver's installation cannot go on without them."""

from __future__ import annotations

from rig.gpu.driver import Selection
from rig.gpu.state import Driver, Reboot, current, kernels

PASSWORD = "/etc/rig/mok-password"
"""The one-time password of a staged key, root's alone."""

FIRMWARE = (
    "Secure Boot is on, and the driver's module is built on this machine: firmware has to trust the key that signs it, "
    "and only a person at the machine's screen can say so"
)


def ahead() -> list[str]:
    """The notice before the first change."""
    return [
        f"{FIRMWARE}.",
        "This run makes the key, stages it, and stops before the driver; then somebody reboots and confirms it there.",
        "If nobody can be at that screen: switch Secure Boot off in firmware, and run again.",
    ]


def enrolment() -> list[str]:
    """The steps to confirm the key; they fit on a screen."""
    return [
        f"{FIRMWARE}. The key is staged. Now:",
        f"  1. Write down the one-time password:  sudo cat {PASSWORD}",
        "  2. Reboot:                            sudo reboot",
        "  3. At the machine's screen, within ten seconds of the blue 'MOK management': press any key; choose",
        "     'Enroll MOK', 'Continue', 'Yes'; type the password; choose 'Reboot'.",
        "  4. Run this deploy again: it goes on from here.",
        "Missed the blue screen? Run the deploy again, and it stages the key again.",
    ]


def no_headers(kernel: str) -> str:
    """The archive no longer has an installed kernel's headers."""
    return (
        f"the archive has no headers for the kernel {kernel} (any more), and the driver's module cannot be built; "
        "bring the system up to date (sudo apt-get full-upgrade), reboot, and run again"
    )


def no_such_version(version: str) -> str:
    """There is neither a branch nor a version of that name."""
    return (
        f"NVIDIA's repository for this distribution has no driver {version}; write another gpu.driver.version "
        "(apt-cache search nvidia-driver-pinning lists them)"
    )


def not_installed(driver: Driver, selection: Selection, version: str, booting: bool) -> str | None:
    """The defect left after a successful apt; None without one. ``booting``: the run boots into the newest kernel."""
    if not current(driver, selection, version):
        there = driver.packages.get(selection.packages[0], "none")
        return (
            f"{selection.packages[0]} is {there} after the installation, and gpu.driver.version asks for {version}; "
            "see what holds it back: apt-cache policy " + " ".join(selection.packages)
        )
    unbuilt = [kernel.release for kernel in kernels(driver, booting) if not kernel.module]
    if selection.built and unbuilt:
        return (
            f"the driver's module was not built for the kernel {' and '.join(unbuilt)}; "
            "look at dkms status, and at /var/lib/dkms/nvidia/*/build/make.log"
        )
    return None


NOT_LOADED = (
    "the driver's module could not be loaded; the cause stands above, and in: journalctl --dmesg --boot | grep NVRM. "
    "'Key was rejected' means Secure Boot, 'No such device' that the card or its firmware settings are at fault. "
    "rig doctor looks at all of it"
)


def rebooting(what: Reboot) -> str:
    """The notice before this run's reboot."""
    return f"rebooting, because {' and '.join(what.due)}; this deploy goes on afterwards"


def pending(what: Reboot) -> str:
    """A reboot is due, and the deploy may not make it."""
    return f"a reboot is due: {' and '.join(what.due)}; reboot the machine, and run this deploy again"


def futile(what: Reboot) -> str:
    """A reboot did not help."""
    return (
        f"{' and '.join(what.futile)}, and the last boot did not change that; "
        "find out what loads it (lsinitramfs /boot/initrd.img-$(uname -r) | grep -e nouveau -e nvidia), or see: "
        "rig doctor"
    )


def not_back(timeout: int) -> str:
    """The machine is not back in time, but may still come."""
    return (
        f"the machine did not come back within {timeout} s (gpu.reboot_timeout); look at its screen, and run this "
        "deploy again when it is there"
    )
