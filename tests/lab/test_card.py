"""Engines on the graphics card, which is simulated at its interfaces: CDI, nvidia-smi, and a stand-in for vLLM."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from lab.machine import CHECKOUT, NAME, Lab
from tests.lab.conftest import Machines
from tests.lab.runs import host_tests, run

VLLM, LLAMA = "vllm-8b", "llama-70b"
UNIT = f"rig-container@{VLLM}.service"
STATE = "/var/lib/rig-lab/gpu.json"
SPECIFICATION = "/etc/cdi/nvidia.yaml"
HARMLESS = {"path": "/dev/nvidia0", "hostPath": "/dev/null", "type": "c", "major": 1, "minor": 3, "permissions": "rw"}
CDI = {
    "cdiVersion": "0.5.0",
    "kind": "nvidia.com/gpu",
    "devices": [{"name": "all", "containerEdits": {"deviceNodes": [HARMLESS]}}],
}
SETTINGS = {
    "machine": {
        "hardware": {
            # What vLLM takes of RAM is calculated with, and not taken by its stand-in.
            "ram": "16G",
            "gpu": {"name": "Simulated", "memory": "16G", "bandwidth": 896, "compute": 87.9, "compute_8bit": 351.5},
        }
    },
    "containers": {"daemon": {"features": {"cdi": True}}},
    "models": {
        "catalogue": {
            "tiny": {
                "shape": {
                    "layers": 2,
                    "kv_heads": 2,
                    "head_dim": 32,
                    "hidden": 64,
                    "vocabulary": 256,
                    "tied": False,
                    "parameters": 200000,
                }
            }
        }
    },
    "engines": {
        VLLM: {
            "enabled": True,
            "model": "tiny",
            "context": 512,
            "memory": "5G",
            "overhead": "256M",
            "cpus": 2,
            "health_timeout": 60,
            "alternatives": "card",
        },
        LLAMA: {"alternatives": "card"},
    },
}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(above[key], dict)}
    return {**below, **above, **both}


@pytest.fixture(scope="module")
def machine(machines: Machines) -> Lab:
    """A machine with a simulated card, on which vLLM is an alternative; for this module's tests, in their order."""
    lab = machines.boot(name="card")
    path = lab.directory / "hosts.yml"
    hosts: dict[str, Any] = yaml.safe_load(path.read_text())
    hosts["hosts"][NAME]["settings"] = _merged(hosts["hosts"][NAME]["settings"], SETTINGS)
    path.write_text(yaml.safe_dump(hosts))
    program = (CHECKOUT / "lab" / "standins" / "nvidia-smi").read_text()
    lab.sudo("cat >/usr/bin/nvidia-smi && chmod 755 /usr/bin/nvidia-smi", input=program)
    lab.sudo(f"install -d /etc/cdi && cat >{SPECIFICATION}", input=json.dumps(CDI))
    _apps(lab, "vllm")
    assert run(lab).changes
    return lab


def _apps(lab: Lab, *names: str) -> None:
    """Which processes the card shows."""
    state = json.dumps({"apps": [{"comm": name} for name in names]})
    lab.sudo(f"install -d $(dirname {STATE}) && cat >{STATE}.new && mv {STATE}.new {STATE}", input=state)


def test_vllm_is_switched_to_and_serves_with_everything_it_needs(machine: Lab) -> None:
    """The stand-in stops at what the real one stops at: user, home, temporary files, shared memory, arguments, card."""
    done = machine.ssh(f"sudo -n rig-mode {VLLM}", check=False)
    assert done.returncode == 0, done.stderr
    assert run(machine).changes == set()
    verdict = host_tests(machine)
    assert verdict.code == 0, verdict.output


def test_no_key_is_in_vllms_command_line(machine: Lab) -> None:
    shown = machine.sudo(f"docker top rig-{VLLM} -eo pid,args").stdout
    assert "serve /models/tiny" in shown
    keys = machine.sudo("sed -n 's/^RIG_KEY_[A-Z0-9_]*=//p' /etc/rig/keys.env").stdout.split()
    assert keys
    assert not [key for key in keys if key in shown]


def test_an_engine_without_a_process_on_the_card_is_not_healthy(machine: Lab) -> None:
    _apps(machine)
    failed = run(machine)
    assert failed.code == 1
    assert "its model is listed, it is not on the graphics card" in failed.errors
    assert machine.ssh("sudo -n rig-mode", check=False).returncode == 1
    _apps(machine, "vllm")
    assert run(machine).code == 0
    assert run(machine).changes == set()


def test_an_engine_does_not_start_without_the_card(machine: Lab) -> None:
    machine.sudo(f"mv {SPECIFICATION} /root/; sed -i 's/seq 60/seq 2/' /etc/systemd/system/{UNIT}.d/models.conf")
    machine.sudo("systemctl daemon-reload")
    assert machine.sudo(f"systemctl restart {UNIT}", check=False).returncode != 0
    assert "there is no graphics card" in machine.sudo(f"journalctl --output=cat --unit={UNIT}").stdout
    machine.sudo(f"mv /root/nvidia.yaml {SPECIFICATION}")
    assert run(machine).changes
    assert run(machine).changes == set()


def test_the_card_stays_with_the_container_when_systemd_reads_its_units_again(machine: Lab) -> None:
    machine.sudo("systemctl daemon-reload")
    wrote = machine.sudo(f"docker exec rig-{VLLM} sh -c 'echo there >/dev/nvidia0 && echo written'")
    assert wrote.stdout == "written\n"
