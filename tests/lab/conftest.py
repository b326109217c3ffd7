"""Machines for the lab tests: each on a leash, so that none outlives the tests."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import machine
from lab.machine import Lab
from lab.spec import RELEASES

Boot = Callable[..., Lab]

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
    ) -> Lab:
        """A new machine of `release`; what it can be otherwise is described at `Lab.boot`."""
        lab = Lab.boot(self.directory(name), release=release, gpu=gpu, vm=vm, secure_boot=secure_boot)
        self._labs.append(lab)
        return lab

    def whole(self, lab: Lab, gpu: bool = False) -> Lab:
        """The same disk as a whole machine's, with a kernel of its own."""
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


@pytest.fixture(scope="session")
def cache() -> Path:
    """Everything that takes long to make, made; workers that come later wait for the first."""
    sweep()
    for release in RELEASES:
        machine.build(release)
    return machine.cache_directory()


@pytest.fixture(scope="session")
def lasting(cache: Path) -> Iterator[Machines]:
    """Boots machines that live until the session ends."""
    machines = Machines()
    yield machines
    machines.end_all()


@pytest.fixture(scope="module")
def machines(cache: Path) -> Iterator[Machines]:
    """Boots machines that live until the file's last test ends: idle ones take the others' time."""
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
    """A machine as the installer leaves it."""
    return boot()


@pytest.fixture(scope="session")
def deployed(lasting: Machines) -> Lab:
    """A Debian 13 that the tool has been run against once; shared: a test that breaks it has to mend it."""
    return _deploy(lasting, "trixie")


@pytest.fixture(scope="session", params=RELEASES)
def deployed_release(request: pytest.FixtureRequest, lasting: Machines) -> Lab:
    """A deployed machine of each Debian release; that of Debian 13 is `deployed`."""
    if request.param == "trixie":
        lab: Lab = request.getfixturevalue("deployed")
        return lab
    return _deploy(lasting, request.param)


def _deploy(machines: Machines, release: str) -> Lab:
    lab = machines.boot(release, name=f"deployed-{release}")
    done = lab.deploy("-y")
    assert done.returncode == 0, done.stderr[-6000:]
    return lab


def sweep() -> None:
    """Remove disks of tests that were killed."""
    for directory in STATE.glob("*-*-*"):
        if not Path("/proc", directory.name.split("-")[0]).exists():
            machine.purge(directory)
