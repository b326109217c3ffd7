"""The doctor judges what was found on a machine: each broken part is named, with its evidence and what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rig.doctor import Check
from rig.facts.doctor import look
from rig.gpu.cards import Card
from rig.gpu.doctor import CHECKS, Look, diagnose
from rig.gpu.state import Module, SecureBoot
from tests.unit.sample import settings
from tests.unit.test_gpu import FINE as DRIVER
from tests.unit.test_gpu import KERNEL

CARD = Card("0000:01:00.0", 0x2C05, 16 << 30)
WELL = Look(
    cards=(CARD,),
    driver=DRIVER,
    dkms=(f"nvidia/595.91.07, {KERNEL}, x86_64: installed",),
    smi=("NVIDIA GeForce RTX 5070 Ti, 595.91.07, 16303",),
    devices=("nvidia.com/gpu=0", "nvidia.com/gpu=all"),
    image="example.org/llama",
    container="GPU 0: NVIDIA GeForce RTX 5070 Ti",
)


def _bad(found: Look, changes: dict[str, Any] | None = None) -> dict[str, Check]:
    return {check.name: check for check in diagnose(settings(changes), found) if check.result == "bad"}


def test_a_machine_that_is_well_is_good_in_every_check() -> None:
    found = diagnose(settings(), WELL)
    assert [check.result for check in found] == ["good"] * len(CHECKS)
    assert len({check.name for check in found}) == len(CHECKS)


BROKEN: dict[str, tuple[Look, str, str]] = {
    "a branch that does not know the card": (
        replace(WELL, driver=replace(DRIVER, library="565.1")),
        "card",
        "branch 565 does not know it",
    ),
    "another branch than the settings'": (
        replace(WELL, driver=replace(DRIVER, library="590.48.01")),
        "branch",
        "590.48.01 is installed, and gpu.driver",
    ),
    "the small window": (
        replace(WELL, cards=(replace(CARD, bar1=256 << 20),)),
        "resizable bar",
        "the window to the card's memory is the small one",
    ),
    "no headers": (
        replace(WELL, driver=replace(DRIVER, headers=False)),
        "headers",
        f"of the kernel {KERNEL} are missing",
    ),
    "a build that failed": (
        replace(WELL, driver=replace(DRIVER, module=None), dkms=("nvidia/595.91.07: added",), build_log="x: error: y"),
        "build",
        "nvidia/595.91.07: added; the log of the build says: x: error: y",
    ),
    "the proprietary module": (
        replace(WELL, driver=replace(DRIVER, module=Module("595.91.07", "NVIDIA", 900.0))),
        "licence",
        "licence is NVIDIA",
    ),
    "an unknown key": (
        replace(WELL, driver=replace(DRIVER, secure_boot=SecureBoot(True, "aa"))),
        "secure boot",
        "not known to firmware",
    ),
    "a key that waits": (
        replace(
            WELL, driver=replace(DRIVER, secure_boot=SecureBoot(True, "aa", staged=frozenset({"aa"}), password=True))
        ),
        "secure boot",
        "waits to be confirmed",
    ),
    "nouveau": (replace(WELL, driver=replace(DRIVER, nouveau=True)), "nouveau", "holds the card"),
    "module and library that differ": (
        replace(WELL, driver=replace(DRIVER, loaded="590.48.01")),
        "versions",
        "loaded: 590.48.01",
    ),
    "no module": (replace(WELL, driver=replace(DRIVER, loaded=None)), "versions", "loaded: none"),
    "no answer": (replace(WELL, smi_code=9, smi=("NVIDIA-SMI has failed",)), "answer", "ends with 9: NVIDIA-SMI has"),
    "a card too few": (replace(WELL, cards=(CARD, replace(CARD, address="0000:02:00.0"))), "answer", "2 cards are on"),
    "less memory": (replace(WELL, smi=("x, 595.91.07, 12282",)), "memory", "the card has 12.0 GiB"),
    "more memory": (replace(WELL, smi=("x, 595.91.07, 32607",)), "memory", "plans with 15.5 GiB only"),
    "Xid lines": (
        replace(WELL, kernel_log=("NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.",)),
        "xid",
        "Xid 79 since",
    ),
    "no device": (replace(WELL, devices=()), "cdi", "CDI knows no device"),
    "an old specification": (
        replace(WELL, driver=replace(DRIVER, specification="590.48.01")),
        "cdi",
        "is of the driver 590.48.01",
    ),
    "a container without the card": (
        replace(WELL, container="Failed to initialize NVML: Unknown Error"),
        "container",
        "Unknown Error",
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_named_with_evidence_and_remedy(broken: str) -> None:
    found, name, evidence = BROKEN[broken]
    check = _bad(found)[name]
    assert evidence in check.evidence
    assert check.remedy


REMARK = "WARNING: infoROM is corrupted at gpu 0000:01:00.0"


@pytest.mark.parametrize("smi", [(*WELL.smi, REMARK), (REMARK, *WELL.smi)])
@pytest.mark.parametrize("code", [0, 14])
def test_a_remark_of_nvidia_smi_is_shown_and_is_no_failure(smi: tuple[str, ...], code: int) -> None:
    found = replace(WELL, smi=smi, smi_code=code)
    assert _bad(found) == {}
    (answer,) = [check for check in diagnose(settings(), found) if check.name == "answer"]
    assert answer.evidence == f"nvidia-smi shows {WELL.smi[0]}; it remarks: {REMARK}"


@pytest.mark.parametrize("code", [0, 15, 255])
def test_a_lost_card_is_named_by_what_is_wrong_with_it(code: int) -> None:
    lost = "Unable to determine the device handle for GPU0000:02:00.0: Unknown Error"
    both = (CARD, replace(CARD, address="0000:02:00.0"))
    check = _bad(replace(WELL, cards=both, smi=(*WELL.smi, lost), smi_code=code))["answer"]
    assert lost in check.evidence


def test_every_check_can_fail() -> None:
    assert {name for _, name, _ in BROKEN.values()} == {check.name for check in diagnose(settings(), WELL)}


def test_a_machine_without_a_card_is_well_as_long_as_no_engine_asks_for_one() -> None:
    without = replace(WELL, cards=())
    assert _bad(without) == {}
    assert "seat it" in _bad(without, {"engines/one/gpu_layers": 25})["card"].remedy


def test_what_cannot_be_known_is_not_called_wrong() -> None:
    unknown = replace(WELL, cards=(replace(CARD, bar1=0),), image="", container="")
    assert _bad(unknown) == {}
    results = {check.name: check.result for check in diagnose(settings(), unknown)}
    assert (results["resizable bar"], results["container"]) == ("unknown", "unknown")


def test_what_the_machine_prints_is_read_as_it_is_meant() -> None:
    printed = f"""card\t0000:01:00.0\t0x2c05\t0x0000004000000000 0x00000043ffffffff 0x0
kernel\t{KERNEL}
booted\t5000\t4000\t
dkms\tnvidia/595.91.07: added
log\tx.c: error: y
code\t137
smi\tno answer
device\tnvidia.com/gpu=all
image\texample.org/llama
container\tGPU 0: x
kernel_log\tNVRM: one
kernel_log\tNVRM: two"""
    found = look(printed.splitlines())
    assert found.cards == (CARD,)
    assert (found.smi_code, found.smi) == (124, ("no answer",))
    assert (found.dkms, found.build_log) == (("nvidia/595.91.07: added",), "x.c: error: y")
    assert (found.devices, found.image, found.container) == (("nvidia.com/gpu=all",), "example.org/llama", "GPU 0: x")
    assert found.kernel_log == ("NVRM: one", "NVRM: two")
