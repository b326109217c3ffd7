"""A fetch lives on the machine: it outlives the run that began it, is joined by the next, and guards what is served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from lab.machine import CHECKOUT, NAME, Lab
from lab.spec import HUB_PORT
from rig.settings import load
from tests.lab.runs import host_tests, run
from tests.lab.traces import eventually

PROGRAM = "/usr/local/bin/rig-models"
MARKER = "/var/lib/rig/models/tiny.failed"
UNITS = ("rig-container@llama-70b.service", "rig-native@llama-8b.service")
SLOW = 20_000
"""Bytes a second: the lab's model of half a megabyte takes longer than all else on a machine that has the rest."""


class Hub:
    """The lab's hub, as the machine sees it."""

    def __init__(self, lab: Lab) -> None:
        self._address = f"http://{lab.network.services}:{HUB_PORT}"

    def fault(self, **fault: Any) -> None:
        requests.post(f"{self._address}/admin/faults", json=fault, timeout=10).raise_for_status()

    def reset(self) -> None:
        requests.post(f"{self._address}/admin/reset", timeout=10).raise_for_status()

    @property
    def sent(self) -> int:
        """Bytes of the model."""
        counters = requests.get(f"{self._address}/admin/counters", timeout=10).json()
        return sum(entry["bytes"] for path, entry in counters.items() if path.endswith(".gguf") and "/" not in path)


@pytest.fixture(scope="module")
def machine(machines: Any) -> Lab:
    """A deployed machine for the tests of this module, in their order."""
    lab: Lab = machines.boot(name="models")
    assert run(lab).changes
    return lab


def _file(lab: Lab) -> str:
    """Where the model lies."""
    return str(load(CHECKOUT, lab=lab.directory).machine(NAME).settings.model_path("tiny"))


@pytest.fixture
def hub(machine: Lab) -> Iterator[Hub]:
    hub = Hub(machine)
    hub.reset()
    yield hub
    hub.reset()


def _status(lab: Lab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.sudo(f"{PROGRAM} status --json").stdout)
    return found


def _fetching(lab: Lab) -> list[str]:
    state = lab.sudo("systemctl show --property=ActiveState,InvocationID rig-models-fetch.service").stdout.split()
    return [] if "ActiveState=active" in state else [f"no fetch is at work: {state}"]


def _start_without_the_model(lab: Lab, hub: Hub) -> subprocess.Popen[str]:
    """Take the model away, and begin a run that fetches it slowly."""
    lab.sudo(f"rm -r {_file(lab)} /var/lib/rig/models/tiny.verified")
    hub.reset()
    hub.fault(bytes_per_second=SLOW, times=1)
    return lab.deploying()


def test_a_fetch_outlives_the_run_that_started_it_and_the_next_run_joins_it(machine: Lab, hub: Hub) -> None:
    deploy = _start_without_the_model(machine, hub)
    assert deploy.stderr is not None
    for line in deploy.stderr:
        # What is told while the fetch is waited for: files, bytes, rate, time left.
        if "0 of 1 files" in line and "kB" in line:
            break
    os.killpg(deploy.pid, signal.SIGKILL)
    deploy.communicate()
    assert _fetching(machine) == []
    invocation = machine.sudo("systemctl show --property=InvocationID rig-models-fetch.service").stdout
    size = _status(machine)["fetch"]["files"][0]["total"]

    following = machine.deploying()
    assert following.stderr is not None
    for line in following.stderr:
        if "0 of 1 files" in line:
            break
    assert machine.sudo("systemctl show --property=InvocationID rig-models-fetch.service").stdout == invocation
    _, told = following.communicate(timeout=300)
    assert following.returncode == 0, told[-3000:]
    assert hub.sent == size
    verdict = host_tests(machine, "tests/host/test_models.py")
    assert verdict.code == 0, verdict.output


def test_a_run_after_it_changes_nothing_and_asks_the_hub_for_nothing(machine: Lab, hub: Hub) -> None:
    assert run(machine).changes == set()
    assert hub.sent == 0


def test_a_model_that_rotted_is_found_by_the_scrub_and_served_by_nobody(machine: Lab, hub: Hub) -> None:
    """As a failing disk does it: nothing but the bytes tells, so the record still fits."""
    machine.sudo(f"printf X | dd of={_file(machine)} bs=1 seek=300000 conv=notrunc status=none")
    failed = machine.sudo("systemctl start rig-models-scrub.service", check=False)
    assert failed.returncode != 0
    journal = machine.sudo("journalctl --output=cat --unit=rig-models-scrub.service").stdout
    assert f"{_file(machine)} has SHA-256" in journal
    assert machine.sudo(f"ls {MARKER}").stdout.strip() == MARKER
    for unit in UNITS:
        assert machine.sudo(f"systemctl restart {unit}", check=False).returncode != 0
        assert machine.sudo(f"systemctl is-active {unit}", check=False).stdout != "active\n"


def test_the_next_run_fetches_it_anew_and_starts_the_engines(machine: Lab, hub: Hub) -> None:
    changes = run(machine).changes
    assert "models | Start to fetch the models" in changes
    assert {"engines | Run llama-70b in a container", "engines | Run llama-8b as a service"} <= changes
    assert machine.sudo(f"ls {MARKER}", check=False).stdout == ""
    assert host_tests(machine, "tests/host/test_models.py", "tests/host/test_engines.py").code == 0
    assert run(machine).changes == set()


def test_a_fetch_cut_by_the_power_goes_on_where_it_was(machine: Lab, hub: Hub) -> None:
    deploy = _start_without_the_model(machine, hub)
    eventually(lambda: _smaller(machine, f"{_file(machine)}.part", 100_000), seconds=120)
    machine.sudo("sync")
    machine.power_cut()
    os.killpg(deploy.pid, signal.SIGKILL)
    deploy.communicate()
    machine.start()
    there = int(machine.sudo(f"stat -c %s {_file(machine)}.part").stdout)
    assert there >= 100_000
    hub.reset()
    assert run(machine).changes
    assert hub.sent == _status(machine)["fetch"]["files"][0]["total"] - there


def _smaller(lab: Lab, path: str, size: int) -> list[str]:
    found = lab.sudo(f"stat -c %s {path} 2>/dev/null || echo 0", check=False).stdout.strip()
    return [] if found.isdecimal() and int(found) >= size else [f"{path} has {found or 'no'} bytes"]
