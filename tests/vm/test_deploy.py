"""A whole machine gets a deploy, reboots halfway, comes back by itself, and keeps its limits.

One machine for all tests, in the order of its life. Work that would take hours under emulation was done while its disk
was a container's: packages are unpacked, the image is pulled and models are fetched. Everything about the card, and all
its consequences, is left to the deploy that these tests watch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from lab.machine import Lab
from lab.recipes.driver import DRIVERS, LICENCE
from tests.lab.conftest import Machines
from tests.lab.fingerprint import Fingerprint, differences
from tests.lab.runs import Run, host_tests, run
from tests.lab.traces import eventually

CONTAINER, NATIVE = "llama-70b", "llama-8b"
LOAD = "gpu | Load NVIDIA's driver"
BACK_SECONDS = 900
"""Seconds until engines answer again after a boot, on two cores with other load."""
CLOSED = 9999


@dataclass(frozen=True)
class First:
    """The first deploy of the machine since it has a kernel, and a card on its bus."""

    lab: Lab
    before: str
    """The boot in which it began."""
    boots: int
    """Number of boots before it, as a container and as a whole machine."""
    modules: set[str]
    """The kernel's modules at that time."""
    found: Run


@pytest.fixture(scope="module")
def first(machines: Machines) -> Iterator[First]:
    container = machines.boot(name="vm")
    # As in lab-vm.yml.
    done = container.deploy("-y", "--data", "monitoring.enabled=false")
    assert done.returncode == 0, done.stderr[-6000:]
    lab = machines.whole(container, gpu=True)
    before, boots_before, modules = boot_id(lab), boots(lab), loaded(lab)
    yield First(lab, before, boots_before, modules, run(lab, timeout=3600))


@pytest.fixture
def lab(first: First) -> Lab:
    """The deployed machine."""
    assert first.found.code == 0, first.found.errors[-6000:]
    return first.lab


def boot_id(lab: Lab) -> str:
    return lab.ssh("cat /proc/sys/kernel/random/boot_id").stdout.strip()


def loaded(lab: Lab) -> set[str]:
    return {line.split()[0] for line in lab.ssh("cat /proc/modules").stdout.splitlines()}


def boots(lab: Lab) -> int:
    return lab.sudo("journalctl --list-boots --quiet --no-pager --output=json").stdout.count('"boot_id"')


def test_the_deploy_reboots_once_in_the_middle_and_goes_on(first: First) -> None:
    found = first.found
    assert found.code == 0, found.errors[-6000:]
    assert found.errors.count("rebooting, because nouveau holds the card; this deploy goes on afterwards") == 1
    assert boot_id(first.lab) != first.before
    assert boots(first.lab) == first.boots + 1
    assert LOAD in found.changes
    # Later in the list than the cause of the reboot, and due because of the card.
    defined = f"engines | Define {CONTAINER} in /etc/rig/compose.yaml"
    assert found.operations.index(defined) > found.operations.index(LOAD)
    assert "gpu | Install NVIDIA's container toolkit" in found.changes


def test_the_kernel_runs_the_module_that_dkms_built_for_it_and_nouveau_is_gone(first: First, lab: Lab) -> None:
    assert "nouveau" in first.modules
    assert "nvidia" not in first.modules
    assert "nvidia" in loaded(lab)
    assert "nouveau" not in loaded(lab)
    kernel = lab.ssh("uname -r").stdout.strip()
    assert f"nvidia/{DRIVERS[-1]}, {kernel}, x86_64: installed" in lab.sudo("dkms status").stdout
    assert lab.sudo("modinfo -F license nvidia").stdout.strip() == LICENCE
    assert lab.sudo("cat /sys/module/nvidia/version").stdout.strip() == DRIVERS[-1]
    within = lab.sudo(f"lsinitramfs /boot/initrd.img-{kernel}").stdout
    assert "etc/modprobe.d/rig-nouveau.conf" in within
    assert "nouveau.ko" not in within
    # The kernel would load nouveau for the card, but not any more: the name is blacklisted.
    lab.sudo("modprobe --use-blacklist nouveau", check=False)
    assert "nouveau" not in loaded(lab)


def test_a_second_deploy_changes_nothing(lab: Lab) -> None:
    before = boot_id(lab)
    assert run(lab, timeout=3600).changes == set()
    assert boot_id(lab) == before


def test_after_a_reboot_everything_is_there_without_a_deploy(lab: Lab) -> None:
    before, boot = Fingerprint.of(lab), boot_id(lab)
    lab.reboot()
    assert boot_id(lab) != boot
    is_back(lab, before)


def test_after_a_power_cut_everything_is_there_without_a_deploy(lab: Lab) -> None:
    before, boot = Fingerprint.of(lab), boot_id(lab)
    lab.power_cut()
    lab.start()
    assert boot_id(lab) != boot
    is_back(lab, before)
    verdict = host_tests(lab, "tests/host/test_firewall.py", "tests/host/test_containers.py")
    assert verdict.code == 0, verdict.output
    assert verdict.passed > 10


def is_back(lab: Lab, before: Fingerprint) -> None:
    """Firewall, container engine and both engines work as before, and the rest is unchanged."""
    # Loaded before anybody could connect: the following checks come from outside.
    assert "table inet rig" in lab.sudo("nft list tables").stdout
    with_a_listener = f"systemd-run --quiet --unit=open --collect python3 -m http.server {CLOSED}"
    lab.sudo(with_a_listener)
    try:
        asked = f"timeout 20 bash -c '</dev/tcp/{lab.address}/{CLOSED}'"
        eventually(lambda: lab.ssh(asked, check=False).returncode, seconds=120)
        assert lab.neighbour(asked).returncode != 0
        assert lab.neighbour(f"timeout 20 bash -c '</dev/tcp/{lab.address}/22'").returncode != 0
    finally:
        lab.sudo("systemctl stop open.service")
    eventually(lambda: not_serving(lab), seconds=BACK_SECONDS)
    eventually(lambda: differences(before, Fingerprint.of(lab)), seconds=300)


def not_serving(lab: Lab) -> list[str]:
    """Engines that do not answer their own health check."""
    ports = {CONTAINER: 8002, NATIVE: 8003}
    asked = "curl --silent --fail --max-time 30 --output /dev/null http://127.0.0.1:{}/health"
    return [name for name, port in ports.items() if lab.ssh(asked.format(port), check=False).returncode]


# Grows without end; the machine has four times the memory of either engine's limit.
HOG = "tail /dev/zero"


def killed_for_memory(lab: Lab) -> int:
    return lab.sudo("journalctl --boot --dmesg --quiet --no-pager").stdout.count("Memory cgroup out of memory: Killed")


def test_a_container_that_exceeds_its_memory_is_stopped_by_the_kernel(lab: Lab) -> None:
    limit = int(lab.sudo(f"docker inspect --format '{{{{.HostConfig.Memory}}}}' rig-{CONTAINER}").stdout)
    assert 0 < limit < memory_of(lab) / 2
    before = killed_for_memory(lab)
    done = lab.sudo(f"docker exec rig-{CONTAINER} {HOG}", check=False, timeout=900)
    assert done.returncode == 137, done
    assert killed_for_memory(lab) > before
    eventually(lambda: not_serving(lab), seconds=BACK_SECONDS)


def test_a_native_engine_that_exceeds_its_memory_is_stopped_by_the_kernel_and_started_again(lab: Lab) -> None:
    unit = f"rig-native@{NATIVE}.service"
    shown = lab.sudo(f"systemctl show --property=MemoryMax --value {unit}").stdout.strip()
    assert 0 < int(shown) < memory_of(lab) / 2
    before, restarts = killed_for_memory(lab), restarts_of(lab, unit)
    within = f"/sys/fs/cgroup$(systemctl show --property=ControlGroup --value {unit})/cgroup.procs"
    done = lab.sudo(f"echo $$ >{within} && exec {HOG}", check=False, timeout=900)
    assert done.returncode != 0, done
    assert killed_for_memory(lab) > before
    # The kernel kills the one process; systemd must end the engine with it, and restart it.
    eventually(lambda: [] if restarts_of(lab, unit) > restarts else [f"{unit} was not started again"], seconds=60)
    eventually(lambda: not_serving(lab), seconds=BACK_SECONDS)


def restarts_of(lab: Lab, unit: str) -> int:
    """How often systemd restarted a unit that had ended by itself."""
    return int(lab.sudo(f"systemctl show --property=NRestarts --value {unit}").stdout)


def memory_of(lab: Lab) -> int:
    """Memory of the machine in bytes."""
    kibibytes = lab.ssh("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").stdout
    return int(kibibytes) * 1024
