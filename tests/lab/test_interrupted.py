"""A run that was killed, or whose machine lost its power, and then a complete one: the result is as if nothing had
happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from dataclasses import dataclass
from typing import Literal

import pytest
import requests

from lab.machine import Lab
from lab.spec import HUB_PORT
from rig.operator.interrupt import INTERRUPTED
from tests.lab.conftest import Boot
from tests.lab.fingerprint import Fingerprint, differences, differences_between
from tests.lab.runs import plan, run
from tests.lab.traces import eventually

STARTING = "--> Starting operation: "
BEFORE_THE_MODEL = "models | Write /etc/rig/models.json"
"""After it, the first download from the hub is the model."""
FIFTHS = 5
"""Each seed strikes in another fifth of a run, so that every part of it is struck."""
LAST = 2
"""Operations at the end that are never drawn: the run would be over before the blow."""
LONG = 15
"""Seconds at most between the start of an operation and a power cut: packages take that long, and hide many moments."""
ALL = bool(os.environ.get("RIG_TEST_ALL"))


@dataclass(frozen=True)
class Cut:
    """A power cut in one of two kinds of runs, at the moment that its seed draws."""

    run: Literal["first", "upgrade"]
    seed: int

    def __str__(self) -> str:
        return f"{self.run}-{self.seed}"


CUTS = [*(Cut("first", seed) for seed in range(40)), *(Cut("upgrade", seed) for seed in range(20))]
SAMPLE = {*(Cut("first", seed) for seed in (11, 33)), *(Cut("upgrade", seed) for seed in (6, 12, 18))}
"""The cuts of a usual test run: one in the packages, one after them, and one in most parts of an upgrade."""

OUTDATED = """set -e
cd /opt/rig/rigd && mv * older && ln -sfn /opt/rig/rigd/older/bin/rig-models /usr/local/bin/rig-models
systemctl stop 'rig-native@*' 'rig-container@*' rig-metrics.timer rig-thermal.service 2>/dev/null || true
docker ps --all --quiet --filter label=rig.engine | xargs --no-run-if-empty docker rm --force
docker image ls --quiet | sort -u | xargs --no-run-if-empty docker image rm --force 2>/dev/null || true
rm -rf /opt/rig/llama.cpp/* /var/lib/rig/images
find /mnt/models -name '*.gguf' -delete
rm -f /var/lib/apt/lists/*Packages*
apt-get remove -y prometheus-alertmanager
sync
"""
"""Gives a deployed machine the engines, model, programs, and one package of an earlier deploy."""


@dataclass(frozen=True)
class Moment:
    """The moment of an interruption: seconds after the start of the operation with this number, from 1."""

    operation: int
    delay: float

    @classmethod
    def of(cls, seed: int, operations: int) -> Moment:
        """The moment that `seed` draws for a run with this number of operations."""
        draw, fifth = random.Random(seed), seed % FIFTHS
        drawn = operations - LAST
        operation = draw.randint(drawn * fifth // FIFTHS + 1, drawn * (fifth + 1) // FIFTHS)
        # The operations of the last fifth are done in an instant.
        return cls(operation, draw.uniform(0, 2) if fifth < FIFTHS - 1 else 0)

    @classmethod
    def of_cut(cls, cut: Cut, operations: int) -> Moment:
        """The moment of a power cut, which may also strike after the drawn operation."""
        moment = cls.of(cut.seed, operations)
        late = random.Random(str(cut)).choice((False, True)) and moment.delay
        return cls(moment.operation, random.Random(str(cut)).uniform(0, LONG)) if late else moment


class Interrupted:
    """A run that is cut short."""

    def __init__(self, lab: Lab, moment: Moment) -> None:
        self.started: list[str] = []
        self._rest = ""
        self._lab = lab
        self._process = lab.deploying()
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._note(line)
            if len(self.started) == moment.operation:
                break
        try:
            self._process.wait(moment.delay)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError(f"the run ended before it could be interrupted, in {self.started[-1]}")

    def stop(self) -> None:
        """Ctrl-C: the terminal sends it to the whole group of processes."""
        os.killpg(self._process.pid, signal.SIGINT)
        assert self._end() == INTERRUPTED
        assert "stopped; what was begun on the machine may go on" in self._rest

    def kill(self) -> None:
        """Kill the run itself: it cannot clean up."""
        os.killpg(self._process.pid, signal.SIGKILL)
        assert self._end() == -signal.SIGKILL

    def fail(self) -> None:
        """End the run, unless it has already noticed that the machine is gone."""
        os.killpg(self._process.pid, signal.SIGTERM)
        assert self._end() != 0

    def _end(self) -> int:
        _, self._rest = self._process.communicate()
        for line in self._rest.splitlines():
            self._note(line)
        print("interrupted in:", self.started[-1])
        return self._process.returncode

    def _note(self, line: str) -> None:
        if line.startswith(STARTING):
            self.started.append(line.removeprefix(STARTING).strip())
            if self.started[-1] == BEFORE_THE_MODEL:
                self._slow_down_the_model()

    def _slow_down_the_model(self) -> None:
        """Slow the lab's small model down: its download takes two seconds, so that it can be interrupted."""
        fault = {"bytes_per_second": 260_000, "times": 1}
        hub = f"http://{self._lab.network.services}:{HUB_PORT}"
        requests.post(f"{hub}/admin/faults", json=fault, timeout=10).raise_for_status()


@pytest.fixture(scope="module")
def uninterrupted(deployed: Lab) -> Fingerprint:
    """The machine that it should become."""
    return Fingerprint.of(deployed)


@pytest.fixture(scope="module")
def operations(deployed: Lab) -> int:
    """Number of operations of a run."""
    return len(plan(deployed).operations)


@pytest.mark.parametrize("seed", range(FIFTHS) if ALL else [1])
def test_a_run_after_a_killed_one_ends_in_the_state_of_an_uninterrupted_one(
    boot: Boot, uninterrupted: Fingerprint, operations: int, seed: int
) -> None:
    lab = boot(name=f"killed-{seed}")
    interrupted = Interrupted(lab, Moment.of(seed, operations))
    interrupted.kill()
    _completed(lab, interrupted, uninterrupted)


@pytest.mark.parametrize("seed", range(FIFTHS, 2 * FIFTHS) if ALL else [7])
def test_ctrl_c_ends_a_run_with_130_and_the_next_one_ends_in_the_state_of_an_uninterrupted_one(
    boot: Boot, uninterrupted: Fingerprint, operations: int, seed: int
) -> None:
    lab = boot(name=f"stopped-{seed}")
    interrupted = Interrupted(lab, Moment.of(seed, operations))
    interrupted.stop()
    _completed(lab, interrupted, uninterrupted)


@pytest.mark.parametrize("cut", [cut for cut in CUTS if ALL or cut in SAMPLE], ids=str)
def test_a_run_after_a_power_cut_in_one_ends_in_the_state_of_an_uninterrupted_one(
    boot: Boot, uninterrupted: Fingerprint, operations: int, cut: Cut
) -> None:
    lab = boot(name=f"cut-{cut}", converged=cut.run == "upgrade")
    if cut.run == "upgrade":
        lab.console(OUTDATED)
    interrupted = Interrupted(lab, Moment.of_cut(cut, operations))
    lab.power_cut()
    interrupted.fail()
    lab.start()
    _completed(lab, interrupted, uninterrupted, same_keys=cut.run == "upgrade")


def test_a_run_after_a_power_cut_between_unpacking_and_configuring_packages_completes_them(
    boot: Boot, uninterrupted: Fingerprint
) -> None:
    lab = boot(name="half-installed")
    interrupted = Interrupted(lab, Moment(operation=2, delay=0))
    eventually(lambda: lab.console("dpkg --audit", check=False).stdout == "", seconds=120)
    lab.power_cut()
    interrupted.fail()
    lab.start()
    assert lab.console("dpkg --audit").stdout != ""
    _completed(lab, interrupted, uninterrupted)


def _completed(lab: Lab, interrupted: Interrupted, uninterrupted: Fingerprint, *, same_keys: bool = False) -> None:
    complete = run(lab)
    assert len(interrupted.started) < len(complete.operations)
    compared = differences if same_keys else differences_between
    assert "\n".join(compared(uninterrupted, Fingerprint.of(lab))) == ""
    assert run(lab).changes == set()
