"""Concern gpu: the configured driver runs, nothing else changes it, and containers see the card."""

from __future__ import annotations

import pytest

from rig.apt.openpgp import fingerprints
from rig.settings import Settings
from tests.host.machine import Machine

TOOLKIT = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


@pytest.fixture(scope="module")
def cards(machine: Machine) -> list[str]:
    """Classes of NVIDIA's display controllers on the bus."""
    vendors = "grep -ls 0x10de /sys/bus/pci/devices/*/vendor | xargs -rn 1 dirname"
    return machine.lines(f"for card in $({vendors}); do grep ^0x03 $card/class || true; done")


@pytest.fixture(scope="module", autouse=True)
def _only_where_a_card_is_driven(cards: list[str], settings: Settings) -> None:
    """Skip unless the settings want the driver, and the bus has a card, or should have one."""
    if not settings.gpu.enabled or not (cards or any(engine.on_card for engine in settings.enabled_engines.values())):
        pytest.skip("this machine has no graphics card of NVIDIA's and needs none, or the settings leave it alone")


def test_card_is_on_the_bus(cards: list[str]) -> None:
    assert cards, "no graphics card of NVIDIA's is on the PCI bus, and an engine computes on one"


def test_driver_answers_and_is_of_the_branch_of_the_settings(machine: Machine, settings: Settings) -> None:
    # Other lines are remarks, which come with another exit code.
    versions = machine.lines("nvidia-smi --query-gpu=driver_version --format=csv,noheader | grep -xE '[0-9.]+' || true")
    assert versions
    wanted = settings.gpu.driver.version
    assert [version for version in versions if version != wanted and not version.startswith(f"{wanted}.")] == []


def test_module_in_the_kernel_is_the_one_on_the_disk(machine: Machine) -> None:
    kernel = machine.run("cat /proc/sys/kernel/osrelease")
    assert machine.run("cat /sys/module/nvidia/version") == machine.run(f"modinfo -k {kernel} -F version nvidia")


def test_open_module_says_that_it_is_open(machine: Machine, settings: Settings) -> None:
    if settings.gpu.driver.modules == "proprietary":
        pytest.skip("the settings ask for the proprietary one")
    kernel = machine.run("cat /proc/sys/kernel/osrelease")
    assert machine.run(f"modinfo -k {kernel} -F license nvidia") == "Dual MIT/GPL"


def test_nouveau_is_not_loaded_and_will_not_be(machine: Machine) -> None:
    assert machine.run("ls -d /sys/module/nouveau 2>/dev/null || true") == ""
    assert "blacklist nouveau" in machine.run("cat /etc/modprobe.d/rig-nouveau.conf")
    changed, made = (
        machine.run(f"stat -c %Z {path}")
        for path in ("/etc/modprobe.d/rig-nouveau.conf", "/boot/initrd.img-$(cat /proc/sys/kernel/osrelease)")
    )
    assert int(made) >= int(changed), "the initramfs is older than what keeps nouveau off"


def test_key_rings_hold_the_pinned_keys_and_no_other(machine: Machine, settings: Settings) -> None:
    pinned = {"/etc/apt/keyrings/rig-nvidia-toolkit.asc": settings.gpu.toolkit.key_fingerprints}
    if settings.gpu.driver.source == "vendor":
        pinned["/etc/apt/keyrings/rig-nvidia.asc"] = settings.gpu.driver.key_fingerprints
    for path, known in pinned.items():
        assert set(fingerprints(machine.run(f"cat {path}").encode() + b"\n")) <= set(known), path
        assert machine.stat(path) == "644 root root"


def test_nvidias_repository_is_preferred_for_its_own_packages_alone(machine: Machine, settings: Settings) -> None:
    """By apt's own choice of a source for each package."""
    if settings.gpu.driver.source == "vendor":
        assert " 1000\n" not in machine.run("apt-cache policy curl")
        assert machine.run("apt-cache policy | grep -c 'o=NVIDIA' || true") != "0"
        candidate = machine.run("apt-cache policy nvidia-persistenced | sed -n 's/ *Candidate: //p'")
        assert candidate == machine.run("dpkg-query -W -f '${Version}' nvidia-persistenced"), "an upgrade is pending"


def test_toolkit_is_of_one_version(machine: Machine, settings: Settings) -> None:
    shown = machine.lines(f"dpkg-query -W -f '${{Version}}\\n' {' '.join(TOOLKIT)}")
    assert shown == [settings.gpu.toolkit.version] * len(TOOLKIT)


def test_persistence_daemon_runs_and_starts_at_boot(machine: Machine) -> None:
    state = machine.unit("nvidia-persistenced.service", "ActiveState", "UnitFileState")
    assert state == {"ActiveState": "active", "UnitFileState": "enabled"}


@pytest.mark.parametrize("target", ["sleep", "suspend", "hibernate", "hybrid-sleep"])
def test_machine_cannot_be_put_to_sleep(machine: Machine, target: str) -> None:
    assert machine.unit(f"{target}.target", "LoadState") == {"LoadState": "masked"}


@pytest.mark.parametrize("held", ["nvidia-open", "libnvidia-ml1", "cuda-drivers", "docker-ce", "containerd.io"])
def test_package_is_kept_out_of_unattended_updates(machine: Machine, held: str) -> None:
    """By unattended-upgrades' own reading of its list: regular expressions at the start of the name."""
    listed = machine.lines("apt-config dump Unattended-Upgrade::Package-Blacklist | sed -n 's/.*\"\\(..*\\)\";/\\1/p'")
    assert [pattern for pattern in listed if held.startswith(pattern)]


def test_specification_for_containers_is_of_the_driver_that_runs(machine: Machine) -> None:
    assert "nvidia.com/gpu=all" in machine.lines("nvidia-ctk cdi list 2>/dev/null")
    version = machine.run("cat /sys/module/nvidia/version")
    assert f".so.{version}" in machine.run("cat /var/run/cdi/nvidia.yaml")
    state = machine.unit("nvidia-cdi-refresh.path", "ActiveState", "UnitFileState")
    assert state == {"ActiveState": "active", "UnitFileState": "enabled"}


def test_container_engine_knows_of_cdi_and_has_no_legacy_hook(machine: Machine) -> None:
    assert machine.json("cat /etc/docker/daemon.json").get("features", {}).get("cdi") is True
    runtimes = machine.json("docker info --format '{{json .Runtimes}}'")
    assert "nvidia" not in runtimes


def test_container_sees_the_card(machine: Machine) -> None:
    images = machine.lines("docker images --quiet")
    if not images:
        pytest.skip("there is no image to run")
    card = "--rm --pull never --network none --user 65534:65534 --cap-drop ALL --device nvidia.com/gpu=all"
    assert "GPU 0: " in machine.run(f"docker run {card} --entrypoint /usr/bin/nvidia-smi {images[0]} -L")
