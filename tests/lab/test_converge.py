"""The tool against a machine: its changes last, survive a power cut, and are no more than necessary."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from lab.machine import NAME, Lab
from tests.lab.conftest import Machines
from tests.lab.fingerprint import Fingerprint, differences, lives, restarted
from tests.lab.runs import Verdict, host_tests, plan, run
from tests.lab.traces import eventually

CONTAINER, NATIVE = "llama-70b", "llama-8b"

# Restarted together with an engine.
SERVICES = {
    CONTAINER: {f"rig-container@{CONTAINER}.service", f"container rig-{CONTAINER}"},
    NATIVE: {f"rig-native@{NATIVE}.service"},
}
RUN = {CONTAINER: f"engines | Run {CONTAINER} in a container", NATIVE: f"engines | Run {NATIVE} as a service"}
WRITE = {
    CONTAINER: f"engines | Define {CONTAINER} in /etc/rig/compose.yaml",
    NATIVE: f"engines | Write /etc/systemd/system/rig-native@{NATIVE}.service.d/engine.conf",
}
COMMAND_LINE = {
    CONTAINER: f"docker inspect --format '{{{{json .Args}}}}' rig-{CONTAINER}",
    NATIVE: f"tr '\\0' ' ' </proc/$(systemctl show --property=MainPID --value rig-native@{NATIVE}.service)/cmdline",
}


def all_host_tests(lab: Lab) -> Verdict:
    """Every host test passes, and there are many."""
    verdict = host_tests(lab)
    assert verdict.code == 0, verdict.output
    assert verdict.passed > 100, verdict.output
    return verdict


def test_a_first_run_makes_what_the_host_tests_look_for(deployed_release: Lab) -> None:
    all_host_tests(deployed_release)


def test_a_second_run_changes_nothing_and_says_so(deployed_release: Lab) -> None:
    before, lived = Fingerprint.of(deployed_release), lives(deployed_release)
    done = deployed_release.deploy("--json", "-y")
    totals = json.loads(done.stdout)["results"]["totals"]
    assert done.returncode == 0
    assert totals["no_change"] == totals["hosts"] > 20
    assert totals["success"] == totals["error"] == 0
    assert "\n".join(differences(before, Fingerprint.of(deployed_release))) == ""
    assert restarted(lived, lives(deployed_release)) == set()


def test_a_dry_run_after_it_would_change_nothing_and_asks_for_no_space_again(deployed_release: Lab) -> None:
    assert plan(deployed_release, "--data", "storage.system_free=90T").changes == set()


def test_on_another_network_it_is_the_same_machine(machines: Machines) -> None:
    lab = machines.boot(name="moved", converged=True)
    before = Fingerprint.of(lab)
    lab.down()
    moved = Lab.boot(lab.directory, index=lab.network.index + 1)
    try:
        assert moved.network.index != lab.network.index
        assert run(moved).changes == set()
        assert "\n".join(differences(before, Fingerprint.of(moved))) == ""
    finally:
        moved.kill()


def test_after_a_power_cut_everything_comes_back_by_itself(deployed: Lab) -> None:
    before = Fingerprint.of(deployed)
    deployed.power_cut()
    deployed.start()
    eventually(lambda: _not_back(deployed, before), seconds=120)
    assert run(deployed).changes == set()
    all_host_tests(deployed)


def _not_back(lab: Lab, before: Fingerprint) -> list[str]:
    state = lab.ssh("systemctl is-system-running", check=False).stdout.strip()
    found = differences(before, Fingerprint.of(lab))
    return found + ([f"the system is {state}"] if state != "running" else [])


@pytest.mark.parametrize("engine", [CONTAINER, NATIVE])
def test_a_changed_setting_of_an_engine_restarts_that_engine_and_nothing_else(deployed: Lab, engine: str) -> None:
    before, lived = Fingerprint.of(deployed), lives(deployed)
    changed = ("--data", f"engines.{engine}.context=1024")
    assert run(deployed, *changed).changes == {WRITE[engine], RUN[engine]}
    lived_on = lives(deployed)
    assert restarted(lived, lived_on) == SERVICES[engine]
    assert "1024" in deployed.sudo(COMMAND_LINE[engine]).stdout
    assert run(deployed, *changed).changes == set()

    assert run(deployed).changes == {WRITE[engine], RUN[engine]}
    assert restarted(lived_on, lives(deployed)) == SERVICES[engine]
    assert "\n".join(differences(before, Fingerprint.of(deployed))) == ""


GATEWAY = ("gateway | Give the gateway an account and the keys of the engines", "gateway | Run the gateway")
"""The gateway is reloaded when the engines' keys change: what it answers goes on."""


@pytest.mark.parametrize("engine", [CONTAINER, NATIVE])
def test_a_disabled_engine_is_retired_and_nothing_else_is_touched(deployed: Lab, engine: str) -> None:
    before, lived = Fingerprint.of(deployed), lives(deployed)
    disabled = ("--data", f"engines.{engine}.enabled=false")
    retired = run(deployed, *disabled)
    # The manifest lists the engines of a model; a removed one is no longer scraped.
    assert retired.changes == {
        "models | Write /etc/rig/models.json",
        "engines | Retire engines that are no longer enabled",
        *GATEWAY,
        "gateway | Write the gateway's unit and the settings of rig-keys",
        "gateway | Write /etc/rig/gateway",
        "gateway | Run rig-gateway-reader",
        "monitoring | Write rig-metrics' settings",
        "monitoring | Give Prometheus the keys of the engines",
        "monitoring | Write /etc/rig/prometheus",
        "monitoring | Run Prometheus",
    }
    assert restarted(lived, lives(deployed)) == SERVICES[engine] | {"rig-gateway-reader.service"}
    assert SERVICES[engine].isdisjoint(lives(deployed))
    assert deployed.sudo(f"systemctl list-units --all --plain --no-legend 'rig-*@{engine}.service'").stdout == ""
    assert deployed.sudo("docker ps --all --format '{{.Names}}'").stdout.split() == (
        [] if engine == CONTAINER else [f"rig-{CONTAINER}"]
    )
    assert plan(deployed, *disabled).changes == set()

    assert RUN[engine] in run(deployed).changes
    assert "\n".join(differences(before, Fingerprint.of(deployed))) == ""


@pytest.mark.parametrize("engine", [CONTAINER, NATIVE])
def test_a_deleted_key_is_made_anew_for_its_engine_alone(deployed: Lab, engine: str) -> None:
    variable = f"RIG_KEY_{engine.upper().replace('-', '_')}"
    before, lived = Fingerprint.of(deployed), lives(deployed)
    deployed.sudo(f"sed -i '/^{variable}=/d' /etc/rig/keys.env")
    copied = "monitoring | Give Prometheus the keys of the engines"
    assert run(deployed).changes == {"secrets | Write /etc/rig/keys.env", RUN[engine], copied, *GATEWAY}
    after = Fingerprint.of(deployed)
    assert {name for name in before.secrets if after.secrets.get(name) != before.secrets[name]} == {variable}
    assert after.secrets.keys() == before.secrets.keys()
    assert restarted(lived, lives(deployed)) == SERVICES[engine]
    assert run(deployed).changes == set()
    verdict = host_tests(deployed, "tests/host/test_secrets.py", "tests/host/test_engines.py")
    assert verdict.code == 0, verdict.output


OWN = {"max-concurrent-downloads": 2, "labels": ["whose=mine"]}
"""The owner's daemon.json from before the tool."""


@pytest.fixture(scope="module")
def from_distribution(machines: Machines) -> Lab:
    """A machine with the distribution's engine at a pinned version, which its owner had configured beforehand."""
    lab = machines.boot(name="distribution")
    path = lab.directory / "hosts.yml"
    hosts: dict[str, Any] = yaml.safe_load(path.read_text())
    hosts["hosts"][NAME]["settings"]["containers"].update({"source": "distribution", "version": "26"})
    path.write_text(yaml.safe_dump(hosts))
    lab.sudo("install -d /etc/docker && cat >/etc/docker/daemon.json", input=json.dumps(OWN))
    first = run(lab)
    assert "containers | Install the container engine" in first.changes
    return lab


def test_containers_of_the_distribution_are_converged_upon(from_distribution: Lab) -> None:
    assert run(from_distribution).changes == set()
    all_host_tests(from_distribution)


def test_what_the_owner_wrote_into_the_daemons_configuration_survives(from_distribution: Lab) -> None:
    found = json.loads(from_distribution.sudo("cat /etc/docker/daemon.json").stdout)
    assert {key: found.get(key) for key in OWN} == OWN
    assert found["live-restore"] is True
