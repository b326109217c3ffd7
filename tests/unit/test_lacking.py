"""A deploy stops before it changes anything where the machine lacks what the settings name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rig.facts.preflight import MachineFact
from rig.preflight.lacking import files, problems
from rig.preflight.machine import Machine
from tests.unit.sample import Here, settings

MACHINE = Machine("debian", "13", "trixie", "amd64", free={}, device={}, mounts={}, sizes={})


def said(machine: Machine, changes: dict[str, Any]) -> list[str]:
    return problems(settings(changes), machine)


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("vm.swapiness", "/proc/sys/vm/swapiness"),
        ("net.core.somaxcon", "/proc/sys/net/core/somaxcon"),
        ("net.ipv4.conf.eth0/1.rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
    ],
)
def test_a_kernel_parameter_that_the_kernel_does_not_know_is_refused(key: str, file: str) -> None:
    changes = {"machine/sysctl": {key: 1}}
    assert file in map(str, files(settings(changes)))
    (sentence,) = said(replace(MACHINE, absent=frozenset({file})), changes)
    assert sentence.startswith(f"the machine's kernel does not know {key} (machine.sysctl); correct the name, ")
    assert said(MACHINE, changes) == []


def test_a_kernel_parameter_that_is_left_to_the_kernel_is_not_looked_up() -> None:
    assert files(settings({"machine/sysctl": {"vm.swapiness": None, "net.ipv4.conf.*.rp_filter": 1}})) == ()


def test_a_shell_that_is_not_there_is_refused_unless_its_package_is_installed() -> None:
    machine = replace(MACHINE, absent=frozenset({"/usr/bin/fish"}))
    changes: dict[str, Any] = {"machine/users": {"owner": {"shell": "/usr/bin/fish"}}}
    (sentence,) = said(machine, changes)
    assert sentence == (
        "/usr/bin/fish, the shell of machine.users.owner, is not on the machine; add its package to machine.packages, "
        "or write /bin/bash"
    )
    assert said(machine, {**changes, "machine/packages": ["fish"]}) == []
    assert said(MACHINE, changes) == []


def test_one_disk_by_two_names_is_refused() -> None:
    changes = {
        "storage/models/mount": {"source": "LABEL=models"},
        "storage/backup/mount": {"source": "UUID=0a1b"},
    }
    one = {"/dev/disk/by-label/models": "/dev/sdb1", "/dev/disk/by-uuid/0a1b": "/dev/sdb1"}
    (sentence,) = said(replace(MACHINE, disks=one), changes)
    assert "are both /dev/sdb1, so that models and backups are lost together" in sentence
    assert said(replace(MACHINE, disks=one | {"/dev/disk/by-uuid/0a1b": "/dev/sdc1"}), changes) == []


def test_what_is_absent_is_seen_on_a_real_system() -> None:
    files = ("/proc/sys/vm/swappiness", "/proc/sys/vm/swapiness", "/bin/sh", "/bin/rig-no-such-shell")
    seen = Here().get_fact(MachineFact, paths=("/",), files=files, disks=(), images=(), servers=())
    assert seen.absent == {"/proc/sys/vm/swapiness", "/bin/rig-no-such-shell"}
