"""Machines for the lab tests: each on a leash, so that none outlives the tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import machine
from lab.converged import disk
from lab.machine import Lab
from lab.spec import RELEASES
from tests.lab.traces import eventually

Boot = Callable[..., Lab]

LONGEST = (
    *("test_interrupted.py", "test_gpu.py", "test_converge.py", "test_drift.py", "test_backup.py", "test_thermal.py"),
    *("test_lockout.py", "test_upgrades.py", "test_monitoring.py", "test_card.py", "test_models.py", "test_lab.py"),
    *("test_alternatives.py", "test_refusals.py", "test_secrecy.py", "test_demo.py", "test_network.py"),
)
"""Files in order of their start, so that no worker is left with a long one: `script/test` lists them."""

# Beside the cache, with which disks can share blocks; not in pytest's own folders, which are kept.
STATE = machine.DEFAULT / "tests"


class Machines:
    """Boots machines in directories of their own and removes both at the end."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._labs: list[Lab] = []

    def directory(self, name: str) -> Path:
        return STATE / f"{os.getpid()}-{next(self._numbers)}-{name}"

    def boot(
        self,
        release: str = "trixie",
        name: str = "bare",
        gpu: bool = False,
        vm: bool = False,
        secure_boot: bool = False,
        converged: bool = False,
        chat: bool = False,
    ) -> Lab:
        """A new machine of `release`; `Lab.boot` describes the other options.

        `converged`: the tool has run against it, on another network, and all its services are running. Its keys are
        those of all machines from this disk. With `chat` as well, the real model is still to be deployed.
        """
        origin = disk(release, gpu) if converged else None
        directory = self.directory(name)
        lab = Lab.boot(directory, release=release, gpu=gpu, vm=vm, secure_boot=secure_boot, origin=origin, chat=chat)
        self._labs.append(lab)
        if converged:
            eventually(lambda: not_serving(lab), seconds=180)
        return lab

    def whole(self, lab: Lab, gpu: bool = False) -> Lab:
        """Boot the same disk as a whole machine, with a kernel of its own."""
        lab.down()
        self._labs.remove(lab)
        whole = Lab.boot(lab.directory, release=lab.release, vm=True, gpu=gpu)
        self._labs.append(whole)
        return whole

    def end(self, lab: Lab) -> None:
        lab.kill()
        machine.purge(lab.directory)
        self._labs.remove(lab)

    def end_all(self) -> None:
        for lab in list(self._labs):
            self.end(lab)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first; otherwise in the order of collection."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session")
def cache() -> Path:
    """The cache with all slow artefacts; later workers wait for the first."""
    sweep()
    machine.fetch_real_model()
    for release in RELEASES:
        machine.build(release)
    return machine.cache_directory()


@pytest.fixture(scope="module")
def machines(cache: Path) -> Iterator[Machines]:
    """Boots machines that live until the file's last test ends: idle ones take processor time from others."""
    machines = Machines()
    yield machines
    machines.end_all()


@pytest.fixture
def boot(cache: Path) -> Iterator[Boot]:
    """Boots machines that live until the test ends."""
    machines = Machines()
    yield machines.boot
    machines.end_all()


@pytest.fixture
def bare(boot: Boot) -> Lab:
    """A machine right after the installer."""
    return boot()


@pytest.fixture(scope="module")
def deployed(machines: Machines) -> Lab:
    """A Debian 13 after one run of the tool, for the tests of a file: a test that breaks it repairs it."""
    return machines.boot(name="deployed", converged=True)


@pytest.fixture(scope="module", params=RELEASES)
def deployed_release(request: pytest.FixtureRequest, machines: Machines) -> Lab:
    """A deployed machine of each Debian release; that of Debian 13 is `deployed`."""
    if request.param == "trixie":
        lab: Lab = request.getfixturevalue("deployed")
        return lab
    return machines.boot(request.param, name=f"deployed-{request.param}", converged=True)


def not_serving(lab: Lab) -> list[str]:
    """Whatever is not running yet on a machine that has just booted, by systemd, Docker and the engines."""
    ask = (
        "systemctl is-system-running; docker ps --format '{{.Names}} {{.Status}}'; "
        "curl -so /dev/null -w '%{http_code}\n' http://127.0.0.1:8003/health"
    )
    found = lab.sudo(ask, check=False).stdout.splitlines()
    wrong = [line for line in found if "starting" in line or "unhealthy" in line]
    return [*wrong, *(word for word in ("running", "200") if word not in found)]


def sweep() -> None:
    """Remove disks of killed tests."""
    for directory in STATE.glob("*-*-*"):
        if not Path("/proc", directory.name.split("-")[0]).exists():
            machine.purge(directory)
