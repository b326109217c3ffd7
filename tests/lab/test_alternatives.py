"""Two engines of which one runs at a time: the owner's choice is the machine's, and no run of the deploy undoes it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from lab.machine import NAME, Lab
from tests.lab.conftest import Machines
from tests.lab.fingerprint import lives, restarted
from tests.lab.runs import host_tests, plan, run
from tests.lab.traces import eventually

CONTAINER, NATIVE = "llama-70b", "llama-8b"
UNITS = {CONTAINER: f"rig-container@{CONTAINER}.service", NATIVE: f"rig-native@{NATIVE}.service"}
OTHER = {CONTAINER: NATIVE, NATIVE: CONTAINER}
MODE = "sudo -n rig-mode"
PROGRAM = "/opt/rig/llama.cpp/*/build/bin/llama-server"


@pytest.fixture(scope="module")
def machine(machines: Machines) -> Lab:
    """A machine whose two engines are alternatives, for the tests of this module, in their order."""
    lab = machines.boot(name="alternatives", converged=True, chat=True)
    path = lab.directory / "hosts.yml"
    hosts: dict[str, Any] = yaml.safe_load(path.read_text())
    for name in UNITS:
        hosts["hosts"][NAME]["settings"]["engines"].setdefault(name, {})["alternatives"] = "card"
    path.write_text(yaml.safe_dump(hosts))
    assert run(lab).changes
    return lab


def mode(lab: Lab, engine: str) -> subprocess.CompletedProcess[str]:
    return lab.ssh(f"{MODE} {engine}", check=False)


def not_only(lab: Lab, engine: str) -> list[str]:
    """Evidence against this engine alone running, serving and starting at boot; from systemd, Docker and HTTP."""
    wanted = {engine: ("active", "enabled"), OTHER[engine]: ("inactive", "disabled")}
    found = []
    for name, words in wanted.items():
        shown = lab.sudo(f"systemctl is-active {UNITS[name]}; systemctl is-enabled {UNITS[name]}", check=False)
        if tuple(shown.stdout.split()) != words:
            found.append(f"{name} is {' '.join(shown.stdout.split())}")
    container = lab.sudo("docker ps --format '{{.Names}}'").stdout.split()
    if container != ([f"rig-{CONTAINER}"] if engine == CONTAINER else []):
        found.append(f"containers: {container}")
    for name, port in ((CONTAINER, 8002), (NATIVE, 8003)):
        code = lab.ssh(f"curl -so /dev/null -w '%{{http_code}}' http://127.0.0.1:{port}/health", check=False).stdout
        if code != ("200" if name == engine else "000"):
            found.append(f"{name} answers {code}")
    return found


def test_the_first_of_the_group_runs_after_the_first_run(machine: Lab) -> None:
    assert not_only(machine, CONTAINER) == []


@pytest.mark.parametrize("engine", [CONTAINER, NATIVE])
def test_in_either_mode_a_run_changes_nothing_and_the_host_tests_pass(machine: Lab, engine: str) -> None:
    assert mode(machine, engine).returncode == 0
    assert not_only(machine, engine) == []
    lived = lives(machine)
    assert run(machine).changes == set()
    assert plan(machine).changes == set()
    assert restarted(lived, lives(machine)) == set()
    verdict = host_tests(machine)
    assert verdict.code == 0, verdict.output


def test_the_choice_comes_back_after_a_power_cut(machine: Lab) -> None:
    assert mode(machine, NATIVE).returncode == 0
    machine.power_cut()
    machine.start()
    eventually(lambda: not_only(machine, NATIVE), seconds=60)
    assert run(machine).changes == set()


def test_a_container_that_docker_starts_by_itself_gives_way(machine: Lab) -> None:
    machine.sudo(f"docker start rig-{CONTAINER}")
    assert run(machine).changes == {f"engines | Run {CONTAINER} in a container"}
    assert not_only(machine, NATIVE) == []


def test_a_stopped_alternative_is_kept_up_to_date_and_not_started(machine: Lab) -> None:
    changed = ("--data", f"engines.{CONTAINER}.context=1024")
    assert run(machine, *changed).changes == {
        f"engines | Define {CONTAINER} in /etc/rig/compose.yaml",
        "engines | Write /etc/rig/modes.json",
    }
    assert not_only(machine, NATIVE) == []
    assert mode(machine, CONTAINER).returncode == 0
    assert "1024" in machine.sudo(f"docker inspect --format '{{{{json .Args}}}}' rig-{CONTAINER}").stdout
    assert run(machine, *changed).changes == set()
    assert run(machine).changes
    assert not_only(machine, CONTAINER) == []


def test_starting_one_stops_the_other(machine: Lab) -> None:
    machine.sudo(f"systemctl start {UNITS[NATIVE]}")
    assert machine.sudo(f"systemctl is-active {UNITS[CONTAINER]}", check=False).stdout == "inactive\n"
    assert machine.sudo("docker ps --quiet").stdout == ""
    # Not chosen, only started: the next run goes back to the engine that starts at boot.
    assert run(machine).changes
    assert not_only(machine, CONTAINER) == []


def test_a_switch_to_an_engine_that_crashes_goes_back_and_says_why(machine: Lab) -> None:
    machine.sudo(f"program=$(echo {PROGRAM}); mv $program /root/program; install -m 755 /bin/false $program")
    done = mode(machine, NATIVE)
    assert done.returncode == 1
    assert f"{CONTAINER} runs again" in done.stderr
    assert not_only(machine, CONTAINER) == []
    machine.sudo(f"mv /root/program $(echo {PROGRAM})")
    assert run(machine).changes == set()


def test_a_switch_to_an_engine_with_a_model_that_changed_goes_back(machine: Lab) -> None:
    assert mode(machine, NATIVE).returncode == 0
    # The mark of a model that only this engine has, in the scrub's form.
    drop_in = f"/etc/systemd/system/{UNITS[CONTAINER]}.d/models.conf"
    machine.sudo(f"cp {drop_in} /root/; sed -i 's,/tiny.failed,/other.failed,' {drop_in}; systemctl daemon-reload")
    machine.sudo("echo rotten >/var/lib/rig/models/other.failed")
    done = mode(machine, CONTAINER)
    assert done.returncode == 1
    assert f"systemd does not start {UNITS[CONTAINER]}" in done.stderr
    assert f"{NATIVE} runs again" in done.stderr
    assert not_only(machine, NATIVE) == []
    machine.sudo(f"rm /var/lib/rig/models/other.failed; cp /root/models.conf {drop_in}; systemctl daemon-reload")
    assert run(machine).changes == set()


def test_two_switches_at_once_are_refused_and_a_killed_one_is_mended_by_the_next_run(machine: Lab) -> None:
    """With a container whose unit, before the start, waits for a reader at the other end of a pipe."""
    drop_in = f"/run/systemd/system/{UNITS[CONTAINER]}.d"
    machine.sudo(
        f"mkdir -p {drop_in} && mkfifo /run/held && cat >{drop_in}/held.conf && systemctl daemon-reload && "
        f"systemd-run --quiet --unit=switch rig-mode {CONTAINER}",
        input="[Service]\nExecStartPre=/usr/bin/head --lines=1 /run/held\n",
    )
    activating = f"systemctl is-active {UNITS[CONTAINER]}"
    eventually(lambda: [] if machine.sudo(activating, check=False).stdout == "activating\n" else ["it is not started"])
    second = mode(machine, NATIVE)
    assert second.returncode == 1
    assert "another rig-mode is at work (PID " in second.stderr
    # A run would not know the new choice yet, and would stop the engine.
    refused = run(machine)
    assert refused.code == 1
    assert "nothing was changed" in refused.errors
    assert "is switching between alternatives; run again when it is done" in refused.errors
    machine.sudo("systemctl kill --signal=KILL switch")
    machine.sudo(f"echo go >/run/held && rm -r /run/held {drop_in} && systemctl daemon-reload")
    assert not_only(machine, NATIVE) != []
    assert run(machine).changes
    assert not_only(machine, NATIVE) == []


def test_it_says_for_programs_what_runs(machine: Lab) -> None:
    said = json.loads(machine.ssh(f"{MODE} --json").stdout)
    assert said["groups"]["card"]["chosen"] == NATIVE
    machine.sudo(f"systemctl stop {UNITS[NATIVE]}")
    stopped = machine.ssh(f"{MODE} --json", check=False)
    assert stopped.returncode == 1
    assert json.loads(stopped.stdout)["groups"]["card"]["engines"][NATIVE]["trouble"] == "is stopped"
    assert machine.ssh(f"{MODE} nothing", check=False).returncode == 2
    assert run(machine).changes == {f"engines | Run {NATIVE} as a service"}


def test_an_engine_that_is_no_alternative_any_more_runs_beside_the_other(machine: Lab) -> None:
    free = [word for name in UNITS for word in ("--data", f"engines.{name}.alternatives=null")]
    assert run(machine, *free).changes
    for unit in UNITS.values():
        assert machine.sudo(f"systemctl is-active {unit}").stdout == "active\n"
    assert run(machine, *free).changes == set()
    assert "no engine here is an alternative" in machine.ssh(MODE).stdout
    assert run(machine).changes
    assert not_only(machine, NATIVE) == [] or not_only(machine, CONTAINER) == []
