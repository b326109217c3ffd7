"""Engines on the GPU: real Docker and CDI, a simulated card, and a stand-in for vLLM."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from lab.machine import NAME, Lab
from lab.recipes.driver import DRIVERS
from rig.monitoring import dashboards
from tests.lab.conftest import Machines
from tests.lab.overrides import altered, merged
from tests.lab.prometheus import lines, undrawn, value
from tests.lab.runs import host_tests, run
from tests.lab.traces import eventually

VLLM, LLAMA = "vllm-8b", "llama-70b"
UNIT = f"rig-container@{VLLM}.service"
STATE = "/var/lib/rig-lab/gpu.json"
SPECIFICATION = "/var/run/cdi/nvidia.yaml"
START = f"engines | Run {VLLM} in a container"
OLDER = ("--data", f"gpu.driver.version={DRIVERS[0].partition('.')[0]}")
SETTINGS = {
    # The plan counts vLLM's RAM; the stand-in does not use it.
    "machine": {"hardware": {"ram": "16G"}},
    "models": {
        "catalogue": {
            "tiny-checkpoint": {
                "shape": {
                    "layers": 2,
                    "kv_heads": 4,
                    "head_dim": 32,
                    "hidden": 128,
                    "vocabulary": 259,
                    "tied": False,
                    "parameters": 394624,
                }
            }
        }
    },
    "engines": {
        VLLM: {
            "enabled": True,
            "model": "tiny-checkpoint",
            "context": 512,
            "memory": "5G",
            "overhead": "256M",
            "cpus": 2,
            "health_timeout": 60,
        },
        LLAMA: {"alternatives": "card"},
    },
}


@pytest.fixture(scope="module")
def machine(machines: Machines) -> Lab:
    """A machine with a card, on which vLLM is an alternative; for this module's tests, in their order."""
    lab = machines.boot(name="card", gpu=True, converged=True)
    path = lab.directory / "hosts.yml"
    hosts = yaml.safe_load(path.read_text())
    hosts["hosts"][NAME]["settings"] = merged(hosts["hosts"][NAME]["settings"], SETTINGS)
    path.write_text(yaml.safe_dump(hosts))
    _apps(lab, "vllm")
    assert run(lab).changes
    return lab


def _apps(lab: Lab, *names: str) -> None:
    """Set the processes that the card shows."""
    state = json.dumps({"apps": [{"comm": name} for name in names]})
    lab.sudo(f"cat >{STATE}.new && mv {STATE}.new {STATE}", input=state)


def test_vllm_is_switched_to_and_serves_with_everything_it_needs(machine: Lab) -> None:
    """The stand-in refuses the conditions that the real one refuses: user, home, temporary files, shared memory,
    arguments, card."""
    done = machine.ssh(f"sudo -n rig-mode {VLLM}", check=False)
    assert done.returncode == 0, done.stderr
    assert run(machine).changes == set()
    verdict = host_tests(machine)
    assert verdict.code == 0, verdict.output


def test_every_line_of_vllm_is_drawn_with_its_legend_and_it_is_known_to_be_on_the_card(machine: Lab) -> None:
    drawn = lines(dashboards.ENGINES, of_vllm=True)
    assert len(drawn) > 5
    eventually(lambda: undrawn(machine, drawn), seconds=60)
    assert value(machine, f'rig_engine_on_gpu{{engine="{VLLM}"}}') == 1


def test_no_key_is_in_vllms_command_line(machine: Lab) -> None:
    shown = machine.sudo(f"docker top rig-{VLLM} -eo pid,args").stdout
    assert "serve /models/tiny" in shown
    keys = machine.sudo("sed -n 's/^RIG_KEY_[A-Z0-9_]*=//p' /etc/rig/keys.env").stdout.split()
    assert keys
    assert not [key for key in keys if key in shown]


def test_an_argument_that_vllm_does_not_know_is_taken_back(machine: Lab, tmp_path: Path) -> None:
    command_line = f"docker inspect --format '{{{{json .Args}}}}' rig-{VLLM}"
    before = machine.sudo(command_line).stdout
    broken = {"engines": {VLLM: {"arguments": ["--no-such-argument"]}}}
    failed = machine.deploy("-y", environment=altered(machine, tmp_path / "broken", settings=broken))
    assert failed.returncode == 1
    assert "unrecognized arguments: --no-such-argument" in failed.stderr.partition("its last lines:")[2]
    assert f"engine {VLLM} serves again as before" in failed.stderr
    assert machine.sudo(command_line).stdout == before
    assert machine.ssh("sudo -n rig-mode", check=False).returncode == 0


def test_an_engine_without_a_process_on_the_card_is_not_healthy(machine: Lab) -> None:
    _apps(machine)
    failed = run(machine)
    assert failed.code == 1
    assert "its model is listed, it is not on the graphics card" in failed.errors
    assert machine.ssh("sudo -n rig-mode", check=False).returncode == 1
    seen = host_tests(machine, "tests/host/test_engines.py", "-k", "process_there or says_to_everyone")
    assert seen.failed == {"test_engine_that_computes_on_the_card_has_a_process_there"}, seen.output
    eventually(lambda: value(machine, f'rig_engine_on_gpu{{engine="{VLLM}"}}') != 0, seconds=30)
    _apps(machine, "vllm")
    assert run(machine).code == 0
    assert run(machine).changes == set()


def test_an_engine_does_not_start_without_the_card(machine: Lab) -> None:
    """It retries by itself; the next deploy after the driver is back generates the CDI specification again, and starts
    it."""
    machine.sudo(f"mv /sys/module/nvidia /run/kept; rm {SPECIFICATION}")
    machine.sudo(f"sed -i 's/seq 60/seq 2/' /etc/systemd/system/{UNIT}.d/models.conf; systemctl daemon-reload")
    assert machine.sudo(f"systemctl restart {UNIT}", check=False).returncode != 0
    eventually(lambda: not_tried_again(machine), seconds=60)
    # Otherwise it would be back before the deploy.
    machine.sudo(f"systemctl stop {UNIT}")
    machine.sudo("mv /run/kept /sys/module/nvidia")
    assert {"gpu | Generate the CDI specification", START} <= run(machine).changes
    assert run(machine).changes == set()


def test_a_card_that_is_described_after_docker_has_started_is_the_engines(machine: Lab) -> None:
    """As on a machine whose driver starts slowly: Docker has looked for devices before there were any."""
    refresh = "nvidia-cdi-refresh.service nvidia-cdi-refresh.path"
    machine.sudo(f"systemctl stop {UNIT}; systemctl mask --runtime --now {refresh}")
    machine.sudo(f"mv {SPECIFICATION} /run/kept.yaml; systemctl restart docker.service")
    try:
        machine.sudo(f"systemctl start --no-block {UNIT}")
        waits = f"systemctl is-active {UNIT}"
        eventually(lambda: machine.sudo(waits, check=False).stdout != "activating\n", seconds=30)
    finally:
        machine.sudo(f"mv /run/kept.yaml {SPECIFICATION}; systemctl unmask --runtime {refresh}")
    eventually(lambda: machine.sudo(f"systemctl is-active {UNIT}", check=False).stdout != "active\n", seconds=120)
    assert machine.sudo(f"docker exec rig-{VLLM} nvidia-smi -L").stdout.startswith("GPU 0: ")
    machine.sudo("systemctl start nvidia-cdi-refresh.path")
    assert run(machine).code == 0
    assert run(machine).changes == set()


def not_tried_again(lab: Lab) -> bool:
    return lab.sudo(f"journalctl --output=cat --unit={UNIT}").stdout.count("there is no graphics card") < 2


def test_a_card_that_is_gone_is_no_reason_to_leave_its_tests_out(machine: Lab) -> None:
    machine.sudo("mkdir /run/empty && mount --bind /run/empty /sys/bus/pci/devices")
    seen = host_tests(machine, "tests/host/test_gpu.py", "-k", "on_the_bus")
    machine.sudo("umount /sys/bus/pci/devices && rmdir /run/empty")
    assert seen.failed == {"test_card_is_on_the_bus"}, seen.output


def test_the_card_stays_with_the_engine_when_systemd_reads_its_units_again(machine: Lab) -> None:
    machine.sudo("systemctl daemon-reload")
    assert machine.sudo(f"docker exec rig-{VLLM} nvidia-smi -L").stdout.startswith("GPU 0: ")


def test_another_driver_is_another_card_for_the_engine(machine: Lab) -> None:
    """The reboot for it stops the engine; afterwards it runs again, with the other driver's library."""
    assert "gpu | Load NVIDIA's driver" in run(machine, *OLDER).changes
    # A restarted container keeps the empty files that others were mounted upon; ldconfig skips them.
    found = f"docker exec rig-{VLLM} find /usr/lib/x86_64-linux-gnu -name 'libnvidia-ml*' -size +0 -printf %f"
    assert machine.sudo(found).stdout == f"libnvidia-ml.so.{DRIVERS[0]}"
    assert run(machine, *OLDER).changes == set()


def test_after_a_power_cut_the_engine_is_on_the_card_again(machine: Lab) -> None:
    machine.power_cut()
    machine.start()
    assert run(machine, *OLDER).changes == set()
