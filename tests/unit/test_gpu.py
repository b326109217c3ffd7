"""The driver that a card needs, and what is due on a machine: a reboot, a new initramfs, a key to be confirmed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rig.facts.gpu import DriverFact, Masked
from rig.gpu import words
from rig.gpu.cards import ARCHITECTURES, CannotDrive, Card, modules
from rig.gpu.driver import FOLDERS, KEPT, TOOLKIT, Selection, matches, selection
from rig.gpu.state import (
    Driver,
    Kernel,
    Module,
    Reboot,
    SecureBoot,
    current,
    described,
    enrolment,
    initramfs_due,
    kernels,
    missing_headers,
    reboot,
)
from rig.operations.gpu import stage
from rig.preflight.problems import SUPPORTED
from rig.render import render
from tests.unit.sample import Here, settings

DEBIAN, NOBLE = ("debian", "13"), ("ubuntu", "24.04")
KERNEL = "6.12.107+deb13-amd64"
BLACKWELL = Card("0000:01:00.0", 0x2C05)


def select(
    changes: dict[str, Any] | None = None,
    cards: tuple[Card, ...] = (BLACKWELL,),
    system: tuple[str, str] = DEBIAN,
    kernel: str = KERNEL,
) -> Selection:
    return selection(settings(changes), cards, system, kernel)


# Cards


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (0x1380, "Maxwell"),  # GTX 750 Ti
        (0x1B06, "Pascal"),  # GTX 1080 Ti
        (0x1DB1, "Volta"),  # V100
        (0x1E04, "Turing"),  # RTX 2080 Ti
        (0x2204, "Ampere"),  # RTX 3090
        (0x2330, "Hopper"),  # H100
        (0x2684, "Ada"),  # RTX 4090
        (0x2B85, "Blackwell"),  # RTX 5090
        (0x2C05, "Blackwell"),  # RTX 5070 Ti
        (0x2F04, "Blackwell"),  # RTX 5070
    ],
)
def test_a_card_is_known_by_its_number_on_the_bus(device: int, name: str) -> None:
    assert Card("0000:01:00.0", device).architecture.name == name


def test_no_number_belongs_to_two_architectures() -> None:
    blocks = sorted(block for architecture in ARCHITECTURES for block in architecture.devices)
    assert all(first[1] < second[0] for first, second in itertools.pairwise(blocks))


def test_a_card_is_named_as_lspci_names_it() -> None:
    assert BLACKWELL.id == "10de:2c05"


@pytest.mark.parametrize(("device", "expected"), [(0x2C05, "open"), (0x1E04, "open"), (0x1B06, "proprietary")])
def test_the_modules_follow_from_the_card(device: int, expected: str) -> None:
    assert modules([Card("0000:01:00.0", device)], "auto", "580") == expected


def test_a_card_newer_than_all_that_are_known_gets_the_open_modules() -> None:
    assert modules([Card("0000:01:00.0", 0x4001)], "auto", "620") == "open"


def test_either_modules_can_be_chosen_where_both_drive_the_card() -> None:
    ada = Card("0000:01:00.0", 0x2684)
    assert modules([ada], "proprietary", "595") == "proprietary"
    assert modules([ada], "open", "595") == "open"


def test_modules_are_taken_that_drive_all_cards() -> None:
    turing, volta = Card("0000:01:00.0", 0x1E04), Card("0000:02:00.0", 0x1DB1)
    assert modules([turing, volta], "auto", "580") == "proprietary"
    with pytest.raises(CannotDrive, match="all of this machine's cards together"):
        modules([BLACKWELL, volta], "auto", "580")


@pytest.mark.parametrize(
    ("device", "wanted", "version", "sentence"),
    [
        (
            0x2C05,
            "proprietary",
            "595",
            "10de:2c05 at 0000:01:00.0 is Blackwell, which the proprietary kernel modules do not",
        ),
        (0x2C05, "auto", "565.57.01", 'branch 565 does not know it; write gpu.driver.version: "570" or a later one'),
        (0x1B06, "auto", "595", 'Pascal, which the driver\'s branch 595 has dropped; write gpu.driver.version: "580"'),
        (0x1B06, "open", "580", "Pascal, which the open kernel modules do not drive"),
        (0x2684, "proprietary", "620", "branch 620 has no proprietary kernel modules"),
        (0x1E04, "open", "470", "branch 470 has no open kernel modules"),
        (0x0FC6, "auto", "595", "older than Maxwell, which no driver here knows; write 'gpu.enabled: false'"),
    ],
)
def test_what_cannot_work_is_refused_with_the_remedy(device: int, wanted: str, version: str, sentence: str) -> None:
    with pytest.raises(CannotDrive) as refused:
        modules([Card("0000:01:00.0", device)], wanted, version)
    assert sentence in str(refused.value)


# Packages


def test_a_blackwell_card_gets_the_open_driver_its_pin_first_and_headers() -> None:
    assert select() == Selection(
        headers="linux-headers-amd64",
        first="nvidia-driver-pinning-595",
        packages=("nvidia-open", "nvidia-kernel-open-dkms", "nvidia-persistenced"),
        built=True,
    )


def test_one_setting_chooses_branch_or_version() -> None:
    assert select({"gpu/driver/version": "610"}).first == "nvidia-driver-pinning-610"
    assert select({"gpu/driver/version": "595.91.07"}).first == "nvidia-driver-pinning-595.91.07"


def test_an_older_card_gets_the_proprietary_driver() -> None:
    chosen = select({"gpu/driver/version": "580"}, cards=(Card("0000:01:00.0", 0x1B06),))
    assert chosen.packages == ("cuda-drivers", "nvidia-kernel-dkms", "nvidia-persistenced")


@pytest.mark.parametrize(
    ("system", "kernel", "headers"),
    [
        (("debian", "12"), "6.1.0-50-amd64", "linux-headers-amd64"),
        (("debian", "12"), "6.12.9+bpo-amd64", "linux-headers-amd64"),
        (DEBIAN, "6.12.107+deb13-cloud-amd64", "linux-headers-cloud-amd64"),
        (DEBIAN, "6.12.107+deb13-rt-amd64", "linux-headers-rt-amd64"),
        (NOBLE, "6.8.0-50-generic", "linux-headers-generic"),
        (NOBLE, "6.14.0-33-generic", "linux-headers-generic-hwe-24.04"),
    ],
)
def test_headers_of_every_later_kernel(system: tuple[str, str], kernel: str, headers: str) -> None:
    assert select(system=system, kernel=kernel).headers == headers


@pytest.mark.parametrize(("system", "kernel"), [(DEBIAN, "6.18.44"), (DEBIAN, "6.8.0-50-generic"), (NOBLE, KERNEL)])
def test_a_kernel_of_another_maker_is_refused(system: tuple[str, str], kernel: str) -> None:
    with pytest.raises(CannotDrive, match="none of the distribution's"):
        select(system=system, kernel=kernel)


def test_ubuntu_has_modules_that_are_built_and_signed() -> None:
    prebuilt = {"gpu/driver/source": "distribution"}
    assert select(prebuilt, system=NOBLE, kernel="6.8.0-50-generic") == Selection(
        headers="",
        first="linux-modules-nvidia-595-open-generic",
        packages=("nvidia-driver-595-open", "nvidia-compute-utils-595"),
        built=False,
    )
    later = select(prebuilt, system=NOBLE, kernel="6.14.0-33-generic")
    assert later.first == "linux-modules-nvidia-595-open-generic-hwe-24.04"
    with pytest.raises(CannotDrive, match=r'by the driver.s branch; write gpu\.driver\.version: "595"'):
        select({**prebuilt, "gpu/driver/version": "595.91.07"}, system=NOBLE, kernel="6.8.0-50-generic")


def test_debians_own_driver_is_refused() -> None:
    with pytest.raises(CannotDrive, match=r"write 'gpu\.driver\.source: vendor'"):
        select({"gpu/driver/source": "distribution"})


def test_every_supported_system_has_a_folder_in_the_repository() -> None:
    assert FOLDERS.keys() == SUPPORTED.keys()


@pytest.mark.parametrize(
    ("version", "wanted", "is_it"),
    [
        ("595.91.07-1", "595", True),
        ("595.91.07-1", "595.91.07", True),
        ("1:595.91.07-0ubuntu1", "595.91", True),
        ("595.91.07-1", "595.91.0", False),
        ("590.48.01-1", "595", False),
        ("5950.1-1", "595", False),
        (None, "595", False),
    ],
)
def test_a_version_belongs_to_a_branch_or_not(version: str | None, wanted: str, is_it: bool) -> None:
    assert matches(version, wanted) is is_it


def test_packages_are_kept_out_of_unattended_updates_whatever_the_owner_writes() -> None:
    names = (
        *select().packages,
        *TOOLKIT,
        "libcuda1",
        "cuda-drivers",
        "docker-ce",
        "docker.io",
        "containerd.io",
        "runc",
    )
    assert [name for name in names if not name.startswith(KEPT)] == []


def test_the_vendors_repository_is_preferred_for_the_vendors_names_alone() -> None:
    text = render("/etc/apt/preferences.d/zz-rig-nvidia", names=("nvidia*", "cuda*"))
    assert text.splitlines()[1:] == ["Package: nvidia* cuda*", "Pin: release o=NVIDIA", "Pin-Priority: 600"]


# The state of a machine


BOOTED = 1000.0
FINE = Driver(
    kernel=KERNEL,
    booted=BOOTED,
    newest_kernel=KERNEL,
    newest_kernel_changed=1.0,
    headers=True,
    loaded="595.91.07",
    module=Module("595.91.07", "Dual MIT/GPL", 900.0),
    library="595.91.07",
    packages=dict.fromkeys(("nvidia-driver-pinning-595", *select().packages), "595.91.07-1"),
    blacklisted=800.0,
    initramfs=810.0,
    specification="595.91.07",
)


def test_nothing_is_due_on_a_machine_that_is_as_it_should_be() -> None:
    assert reboot(FINE) == Reboot()
    assert not initramfs_due(FINE)
    assert current(FINE, select(), "595")
    assert described(FINE)


def test_a_driver_that_was_installed_since_the_boot_asks_for_another() -> None:
    newer = replace(FINE, module=Module("610.1", "Dual MIT/GPL", BOOTED + 5))
    assert reboot(newer).due == ("the kernel runs the driver's module 595.91.07, and 610.1 is installed",)
    assert reboot(replace(newer, loaded=None)) == Reboot()


def test_a_module_that_a_boot_did_not_take_is_told_and_not_rebooted_for() -> None:
    older = replace(FINE, module=Module("610.1", "Dual MIT/GPL", BOOTED - 5))
    assert reboot(older).due == ()
    assert "610.1 is installed" in reboot(older).futile[0]


def test_nouveau_asks_for_a_reboot_until_one_has_been_made() -> None:
    held = replace(FINE, nouveau=True, loaded=None)
    assert reboot(replace(held, blacklisted=BOOTED + 1)).due == ("nouveau holds the card",)
    assert reboot(replace(held, initramfs=BOOTED + 1)).due == ("nouveau holds the card",)
    assert reboot(held).futile == ("nouveau holds the card",)


def test_a_kernel_that_was_installed_since_the_boot_asks_for_another() -> None:
    newer = replace(FINE, newest_kernel="6.12.110+deb13-amd64", newest_kernel_changed=BOOTED + 1)
    assert reboot(newer).due == (f"the kernel 6.12.110+deb13-amd64 is installed, and {KERNEL} runs",)


def test_an_older_kernel_that_was_booted_on_purpose_is_left_alone() -> None:
    assert reboot(replace(FINE, newest_kernel="6.12.110+deb13-amd64", newest_kernel_changed=BOOTED - 1)) == Reboot()


def test_an_initramfs_is_made_anew_when_it_is_older_than_what_keeps_nouveau_off() -> None:
    assert initramfs_due(replace(FINE, initramfs=799.0))
    assert not initramfs_due(replace(FINE, initramfs=None))
    assert not initramfs_due(replace(FINE, blacklisted=None))


@pytest.mark.parametrize("package", ["nvidia-driver-pinning-595", "nvidia-open", "nvidia-persistenced"])
def test_a_package_that_is_missing_is_due(package: str) -> None:
    there = {name: version for name, version in FINE.packages.items() if name != package}
    assert not current(replace(FINE, packages=there), select(), "595")


def test_a_driver_of_another_branch_is_due() -> None:
    assert not current(FINE, select({"gpu/driver/version": "610"}), "610")
    said = words.not_installed(FINE, select({"gpu/driver/version": "610"}), "610", booting=True)
    assert said is not None and "nvidia-open is 595.91.07-1 after the installation" in said


def test_a_module_that_was_not_built_is_told() -> None:
    said = words.not_installed(replace(FINE, module=None), select(), "595", booting=True)
    assert said is not None and f"was not built for the kernel {KERNEL};" in said


LATER = "6.12.110+deb13-amd64"
PENDING = replace(FINE, newest_kernel=LATER, newest_kernel_changed=BOOTED + 1)
BARE = replace(FINE, headers=False, module=None, packages={})


def test_headers_are_those_of_the_running_kernel_while_no_other_waits() -> None:
    assert kernels(BARE, allowed=True) == (Kernel(KERNEL, headers=False, module=False),)
    assert missing_headers(BARE, select(), kernels(BARE, allowed=True)) == {
        KERNEL: f"linux-headers-{KERNEL}",
        "that comes next": "linux-headers-amd64",
    }


def test_a_kernel_that_the_run_boots_into_needs_the_module_and_the_old_one_nothing_any_more() -> None:
    bare = replace(BARE, newest_kernel=LATER, newest_kernel_changed=BOOTED + 1)
    assert kernels(bare, allowed=True) == (Kernel(LATER, headers=False, module=False),)
    assert missing_headers(bare, select(), kernels(bare, allowed=True)) == {
        LATER: f"linux-headers-{LATER}",
        "that comes next": "linux-headers-amd64",
    }
    said = words.not_installed(PENDING, select(), "595", booting=True)
    assert said is not None and f"was not built for the kernel {LATER};" in said
    assert words.not_installed(replace(PENDING, newest_module=True), select(), "595", booting=True) is None


def test_where_the_run_does_not_reboot_both_kernels_need_the_module() -> None:
    assert [kernel.release for kernel in kernels(PENDING, allowed=False)] == [KERNEL, LATER]
    ready = replace(PENDING, newest_headers=True, newest_module=True)
    there = replace(ready, packages={**FINE.packages, "linux-headers-amd64": "1"})
    assert missing_headers(there, select(), kernels(there, allowed=False)) == {}
    assert words.not_installed(there, select(), "595", booting=False) is None


def test_no_headers_are_wanted_where_nothing_is_built() -> None:
    prebuilt = select({"gpu/driver/source": "distribution"}, system=NOBLE, kernel="6.8.0-50-generic")
    assert missing_headers(BARE, prebuilt, kernels(BARE, allowed=True)) == {}


@pytest.mark.parametrize(("specification", "is_described"), [(None, False), ("590.48.01", False), ("", True)])
def test_a_specification_of_another_driver_is_due(specification: str | None, is_described: bool) -> None:
    assert described(replace(FINE, specification=specification)) is is_described


def test_a_key_goes_from_missing_over_staged_to_enrolled() -> None:
    on = SecureBoot(enabled=True)
    assert enrolment(on, select()) == "missing"
    made = replace(on, certificate="aa")
    assert enrolment(made, select()) == "missing"
    assert enrolment(replace(made, staged=frozenset({"aa"}), password=True), select()) == "staged"
    assert enrolment(replace(made, enrolled=frozenset({"aa", "bb"})), select()) == "enrolled"
    assert enrolment(replace(made, enrolled=frozenset({"bb"})), select()) == "missing"


def test_a_key_that_waits_with_a_password_that_nobody_knows_is_staged_anew() -> None:
    """The owner staged it, or a run that died in the middle."""
    waiting = SecureBoot(enabled=True, certificate="aa", staged=frozenset({"aa"}))
    assert enrolment(waiting, select()) == "missing"


MOKUTIL = """#!/bin/sh
echo "$1" >>{folder}/asked
[ "$1" != --import ] || [ "$(cat {folder}/rig/mok-password)" = "$(head -n 1)" ] || echo another >>{folder}/asked
"""


@pytest.mark.parametrize(("again", "asked"), [(False, ["--import"]), (True, ["--revoke-import", "--import"])])
def test_a_key_is_staged_with_the_password_that_is_in_its_place_by_then(
    tmp_path: Path, again: bool, asked: list[str]
) -> None:
    for folder in ("bin", "rig", "dkms"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dkms/mok.pub").touch()
    (tmp_path / "rig/mok-password").write_text("of a run before\n")
    (tmp_path / "bin/mokutil").write_text(MOKUTIL.format(folder=tmp_path))
    (tmp_path / "bin/mokutil").chmod(0o755)
    script = stage(again).replace("/etc/rig", f"{tmp_path}/rig").replace("/var/lib/dkms", f"{tmp_path}/dkms")
    done = Here(lambda command: f"export PATH={tmp_path}/bin:/usr/bin:/bin; {command}").shell(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "asked").read_text().split("\n")[:-1] == asked
    assert [path.name for path in (tmp_path / "rig").iterdir()] == ["mok-password"]
    assert f"{(tmp_path / 'rig/mok-password').stat().st_mode & 0o777:o}" == "600"


def test_no_key_is_needed_without_secure_boot_or_with_signed_modules() -> None:
    assert enrolment(SecureBoot(enabled=False), select()) == "not needed"
    prebuilt = select({"gpu/driver/source": "distribution"}, system=NOBLE, kernel="6.8.0-50-generic")
    assert enrolment(SecureBoot(enabled=True), prebuilt) == "not needed"


def test_what_a_person_has_to_do_fits_on_a_screen() -> None:
    lines = words.enrolment()
    assert len(lines) <= 20
    text = "\n".join(lines)
    for word in ("sudo cat /etc/rig/mok-password", "sudo reboot", "Enroll MOK", "Run this deploy again"):
        assert word in text


# What is read from a machine


def test_what_the_machine_prints_is_read_as_it_is_meant() -> None:
    printed = f"""kernel\t{KERNEL}
booted\t5000.5\t4100.25\t100000000
newest\t6.12.110+deb13-amd64\t4999.125
newest headers\tyes
newest module\tyes
headers\tyes
loaded\t590.48.01
module\t595.91.07\tDual MIT/GPL\t4998.5
library\t595.91.07
package\tnvidia-open\t595.91.07-1
blacklisted\t4000
initramfs\t4001
secure\tyes
certificate\tabcd
password\tyes
enrolled\tAB:CD
new\t01:23
specification\t595.91.07"""
    assert DriverFact().process(printed.splitlines()) == Driver(
        kernel=KERNEL,
        booted=5000.5 - 4100.25 + 100,
        newest_kernel="6.12.110+deb13-amd64",
        newest_kernel_changed=4999.125,
        newest_headers=True,
        newest_module=True,
        headers=True,
        loaded="590.48.01",
        module=Module("595.91.07", "Dual MIT/GPL", 4998.5),
        library="595.91.07",
        packages={"nvidia-open": "595.91.07-1"},
        blacklisted=4000,
        initramfs=4001,
        secure_boot=SecureBoot(True, "abcd", frozenset({"abcd"}), frozenset({"0123"}), password=True),
        specification="595.91.07",
    )


def test_a_machine_without_any_of_it_is_read_too() -> None:
    found = DriverFact().process([f"kernel\t{KERNEL}", "booted\t5000\t4000\t", "specification\t"])
    assert found == Driver(kernel=KERNEL, booted=1000, specification="")


def test_masked_units_are_told_apart() -> None:
    shown = ["Id=sleep.target", "LoadState=masked", "", "Id=suspend.target", "LoadState=loaded"]
    assert Masked().process(shown) == {"sleep.target"}
