"""The doctor of the graphics card: checks, each with its result, its evidence and a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from rig.capacity.units import MIB, in_words, size_bytes
from rig.doctor import Check
from rig.gpu.cards import CannotDrive, Card, modules
from rig.gpu.driver import DEVICE, SPECIFICATION, matches
from rig.gpu.state import Driver, reboot, waits
from rig.settings import Settings
from rigd.base.card import ANSWERED
from rigd.thermal import xid

OPEN_LICENCE = "Dual MIT/GPL"
"""Licence of the open modules; that of the proprietary ones is NVIDIA."""

HANGS = 124
"""Exit status for an nvidia-smi that does not answer in time."""

LEGACY_BAR1 = 256 * MIB
"""Size of BAR1, the window to a card's memory, without Resizable BAR."""


@dataclass(frozen=True)
class Look:
    """Findings on a machine, from one round trip."""

    cards: tuple[Card, ...]
    driver: Driver
    dkms: tuple[str, ...] = ()
    """Lines of `dkms status` with the driver's module."""
    build_log: str = ""
    """The line of the last build's log with an error."""
    smi_code: int = 0
    """Exit status of nvidia-smi; HANGS without an answer in time, 127 if it is not installed."""
    smi: tuple[str, ...] = ()
    """nvidia-smi's output: name, driver version and memory in MiB of each card; or its error."""
    devices: tuple[str, ...] = ()
    """Devices in all CDI specifications."""
    image: str = ""
    """Image of the test container that looks at the card; empty if there was none."""
    container: str = ""
    """nvidia-smi's output in a container."""
    kernel_log: tuple[str, ...] = ()
    """The driver's lines in the kernel log since the boot."""


def diagnose(settings: Settings, look: Look) -> list[Check]:
    """Every check, in order from the hardware up: card, driver, kernel, containers."""
    if not look.cards:
        wanting = [name for name, engine in settings.enabled_engines.items() if engine.on_card]
        if wanting or not settings.gpu.enabled:
            remedy = "seat it, give it its own power cable, and look for it in the firmware's list of devices"
            return [Check("card", "bad", "no card of NVIDIA's is on the PCI bus", remedy)]
        return [Check("card", "good", "no card of NVIDIA's is on the PCI bus, and no engine asks for one")]
    return [check(settings, look) for check in CHECKS]


def _card(settings: Settings, look: Look) -> Check:
    shown = ", ".join(f"{card.id} ({card.architecture.name}) at {card.address}" for card in look.cards)
    installed = look.driver.library
    if installed is None:
        return Check("card", "unknown", f"{shown}; no driver is installed", DEPLOY)
    try:
        modules(look.cards, settings.gpu.driver.modules, installed)
    except CannotDrive as error:
        return Check("card", "bad", str(error), "change that line in group_data, and deploy")
    return Check("card", "good", f"{shown}; the driver {installed} knows it")


DEPLOY = "deploy: pyinfra inventory.py deploy.py"


def _branch(settings: Settings, look: Look) -> Check:
    wanted, installed = settings.gpu.driver.version, look.driver.library
    if installed is None:
        return Check("branch", "bad", "no driver is installed", DEPLOY)
    if not matches(installed, wanted):
        return Check("branch", "bad", f"{installed} is installed, and gpu.driver.version is {wanted}", DEPLOY)
    return Check("branch", "good", f"{installed} is installed, as gpu.driver.version asks")


def _licence(settings: Settings, look: Look) -> Check:
    module = look.driver.module
    if module is None:
        return Check("licence", "unknown", "there is no module for the running kernel", "see the check 'build'")
    wants_open = all("proprietary" not in card.architecture.modules for card in look.cards)
    if wants_open and module.licence != OPEN_LICENCE:
        sentence = (
            f"the module's licence is {module.licence}: it is the proprietary one, which does not drive this card"
        )
        return Check("licence", "bad", sentence, f"write 'gpu.driver.modules: auto', and {DEPLOY}")
    return Check("licence", "good", f"the module's licence is {module.licence}")


def _headers(settings: Settings, look: Look) -> Check:
    kernel = look.driver.kernel
    if look.driver.headers:
        return Check("headers", "good", f"the headers of the kernel {kernel} are there")
    remedy = f"sudo apt-get install linux-headers-{kernel}; where apt has none, bring the system up to date and reboot"
    return Check("headers", "bad", f"the headers of the kernel {kernel} are missing: no module can be built", remedy)


def _build(settings: Settings, look: Look) -> Check:
    kernel = look.driver.kernel
    built = [line for line in look.dkms if f", {kernel}," in line and line.endswith("installed")]
    if built:
        return Check("build", "good", built[0])
    if look.driver.module is not None:
        return Check("build", "good", "the module came built, and not by DKMS")
    seen = "; ".join(look.dkms) or "DKMS has no module of the driver"
    log = f"; the log of the build says: {look.build_log}" if look.build_log else ""
    remedy = (
        "a driver that does not build on this kernel needs another branch (gpu.driver.version), or an older "
        f"kernel; otherwise: sudo dkms autoinstall -k {kernel}"
    )
    return Check("build", "bad", f"no module was built for the kernel {kernel}: {seen}{log}", remedy)


def _secure_boot(settings: Settings, look: Look) -> Check:
    boot = look.driver.secure_boot
    if not boot.enabled:
        return Check("secure boot", "good", "Secure Boot is off")
    if boot.certificate and boot.certificate in boot.enrolled:
        return Check("secure boot", "good", "Secure Boot is on, and firmware trusts the key that signs the module")
    if not look.dkms and look.driver.loaded:
        return Check("secure boot", "good", "Secure Boot is on, and the module came signed")
    waiting = waits(boot)
    state = "waits to be confirmed at the machine's screen" if waiting else "is not known to firmware"
    remedy = "reboot and confirm it there, as docs/gpu.md says" if waiting else f"{DEPLOY}, which says what to do"
    return Check("secure boot", "bad", f"Secure Boot is on, and the key that signs the module {state}", remedy)


def _nouveau(settings: Settings, look: Look) -> Check:
    if not look.driver.nouveau:
        return Check("nouveau", "good", "nouveau is not loaded")
    remedy = "sudo update-initramfs -u -k all, and reboot; or deploy, which does both"
    return Check("nouveau", "bad", "nouveau is loaded, and holds the card", remedy)


def _versions(settings: Settings, look: Look) -> Check:
    """Versions of kernel, module and library; and nvidia-smi, which fails when they differ."""
    driver = look.driver
    versions = {
        "loaded": driver.loaded,
        "for the running kernel": driver.module.version if driver.module else None,
        "library": driver.library,
    }
    shown = ", ".join(f"{name}: {version or 'none'}" for name, version in versions.items())
    if len(set(versions.values())) == 1 and driver.loaded:
        # nouveau has its own check.
        due = reboot(replace(driver, nouveau=False)).due
        if due:
            return Check("versions", "bad", f"{shown}; but {' and '.join(due)}", "reboot, or deploy")
        return Check("versions", "good", shown)
    remedy = "reboot, or deploy" if driver.loaded else "sudo modprobe nvidia, and read what it says"
    return Check("versions", "bad", shown, remedy)


SMI = {
    6: "the driver finds no card: switch on 'Above 4G Decoding' in firmware, seat the card again, and see: journalctl "
    "--dmesg --boot | grep NVRM",
    9: "the driver's module is not loaded: sudo modprobe nvidia",
    15: "the card does not answer any more: reboot; if it happens again, look at its power and its heat",
    18: "library and module are of different versions: reboot",
    HANGS: "nvidia-smi hangs in the driver: reboot; journalctl --dmesg --boot | grep NVRM may say why",
    127: DEPLOY,
}
"""Remedies for exit codes of nvidia-smi (its manual page), and of timeout and the shell."""


def _answer(settings: Settings, look: Look) -> Check:
    rows, remarks = _rows(look)
    said = "; ".join(remarks) or (rows[0] if rows else "nothing")
    if look.smi_code not in ANSWERED:
        remedy = SMI.get(look.smi_code, "look at it: nvidia-smi")
        return Check("answer", "bad", f"nvidia-smi ends with {look.smi_code}: {said}", remedy)
    remark = f"; it remarks: {'; '.join(remarks)}" if remarks else ""
    if len(rows) != len(look.cards):
        sentence = f"{len(look.cards)} cards are on the bus, and nvidia-smi shows {len(rows)}{remark}"
        return Check("answer", "bad", sentence, "journalctl --dmesg --boot | grep NVRM may say why")
    return Check("answer", "good", f"nvidia-smi shows {rows[0] if rows else 'no card'}{remark}")


def _rows(look: Look) -> tuple[list[str], list[str]]:
    """nvidia-smi's output, split into the cards and its remarks."""
    rows = [line for line in look.smi if re.search(r", [0-9][0-9.]*, (?:[0-9]+|[\[(].*[\])])$", line)]
    return rows, [line for line in look.smi if line not in rows]


def _memory(settings: Settings, look: Look) -> Check:
    wanted = settings.machine.hardware.gpu
    found = [re.search(r"([0-9]+)$", line) for line in _rows(look)[0]]
    sizes = [int(match[1]) * MIB for match in found if match]
    if not sizes or wanted is None:
        return Check("memory", "unknown", "nvidia-smi shows no memory, or machine.hardware.gpu none to compare it with")
    planned, there = size_bytes(wanted.memory), max(sizes)
    # Programs can use 97 % of the card's memory: the driver keeps the rest.
    if planned > there:
        sentence = f"the card has {in_words(there)}, and machine.hardware.gpu.memory plans with {in_words(planned)}"
        return Check("memory", "bad", sentence, "write what there is, less 3 % for the driver; rig plan")
    if planned < 0.9 * there:
        sentence = (
            f"the card has {in_words(there)}, and machine.hardware.gpu.memory plans with {in_words(planned)} only"
        )
        return Check("memory", "bad", sentence, "write what there is, less 3 % for the driver; rig plan")
    return Check("memory", "good", f"the card has {in_words(there)}, of which {in_words(planned)} are planned with")


def _bar(settings: Settings, look: Look) -> Check:
    sizes = {card.address: card.bar1 for card in look.cards if card.bar1}
    if not sizes:
        return Check("resizable bar", "unknown", "the kernel does not say how large the window to the card's memory is")
    small = [address for address, size in sizes.items() if size <= LEGACY_BAR1]
    shown = ", ".join(f"{size // MIB} MiB at {address}" for address, size in sizes.items())
    if small:
        remedy = "switch on 'Above 4G Decoding' and 'Resizable BAR' in firmware, and its compatibility mode (CSM) off"
        return Check("resizable bar", "bad", f"the window to the card's memory is the small one: {shown}", remedy)
    return Check("resizable bar", "good", f"the window to the card's memory has {shown}")


def _cdi(settings: Settings, look: Look) -> Check:
    if DEVICE not in look.devices:
        seen = f"CDI knows {', '.join(look.devices)}" if look.devices else "CDI knows no device"
        return Check("cdi", "bad", f"{seen}, and not {DEVICE}", "sudo systemctl restart nvidia-cdi-refresh.service")
    described = look.driver.specification
    if described not in (None, "", look.driver.library):
        sentence = f"{SPECIFICATION} is of the driver {described}, and {look.driver.library} is installed"
        return Check("cdi", "bad", sentence, "sudo systemctl restart nvidia-cdi-refresh.service")
    return Check("cdi", "good", f"CDI knows {', '.join(look.devices)}")


def _container(settings: Settings, look: Look) -> Check:
    if not look.image:
        sentence = "no image of an engine is on the machine to look with"
        return Check("container", "unknown", sentence, DEPLOY)
    if look.container.startswith("GPU "):
        return Check("container", "good", f"in a container of {look.image}: {look.container}")
    said = look.container or "nothing"
    remedy = (
        "see the check 'cdi'; then restart the container engine: sudo systemctl restart docker.service, "
        "and see that its daemon.json has features.cdi"
    )
    return Check("container", "bad", f"in a container of {look.image}, nvidia-smi says: {said}", remedy)


def _xid(settings: Settings, look: Look) -> Check:
    found = [event for event in map(xid.parse, look.kernel_log) if event is not None]
    if not found:
        return Check("xid", "good", "the driver has reported no error since the boot")
    numbers = ", ".join(str(number) for number in sorted({event.number for event in found}))
    last = found[-1]
    remedy = "look the number up in NVIDIA's list of Xid errors; 79 is a card that fell off the bus: power or heat"
    return Check("xid", "bad", f"Xid {numbers} since the boot ({len(found)} lines); the last: {last.text}", remedy)


CHECKS: tuple[Callable[[Settings, Look], Check], ...] = (
    _card,
    _bar,
    _branch,
    _headers,
    _build,
    _licence,
    _secure_boot,
    _nouveau,
    _versions,
    _answer,
    _memory,
    _xid,
    _cdi,
    _container,
)
