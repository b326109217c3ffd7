"""A change that stops an engine from serving is undone: the previous version serves again, and the run gives the
cause."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.machine import NAME, Lab
from lab.recipes.engine import SILENT
from tests.lab.conftest import Machines
from tests.lab.fingerprint import Fingerprint, differences, lives, restarted
from tests.lab.runs import host_tests, run
from tests.lab.traces import eventually

CONTAINER, NATIVE = "llama-70b", "llama-8b"
PORTS = {CONTAINER: 8002, NATIVE: 8003}
# The port too: the restored engine is reachable where it was.
BROKEN = {"arguments": ["--no-such-argument"], "port": 8020}
MOVED: dict[str, dict[str, dict[str, Any]]] = {
    # The engine that is tried first gets the other's port.
    CONTAINER: {CONTAINER: {**BROKEN, "port": PORTS[NATIVE]}, NATIVE: {"port": 8021}},
    NATIVE: {NATIVE: BROKEN},
}
SWAPPED = {CONTAINER: {"port": PORTS[NATIVE]}, NATIVE: {"port": PORTS[CONTAINER]}}
SMALL = {"context": 256, "threads": 1, "memory": "1G", "overhead": "256M", "prompt_cache": 0, "cpus": 1}
UNITS = {
    CONTAINER: (f"rig-container@{CONTAINER}.service", "/etc/rig/compose.yaml"),
    NATIVE: (f"rig-native@{NATIVE}.service", f"/etc/systemd/system/rig-native@{NATIVE}.service.d/engine.conf"),
}
"""The unit of each, and the file that holds its arguments."""
COMMAND_LINE = {
    CONTAINER: f"docker inspect --format '{{{{json .Args}}}}' rig-{CONTAINER}",
    NATIVE: f"systemctl show --property=ExecStart rig-native@{NATIVE}.service",
}


@pytest.fixture(scope="module")
def machine(machines: Machines) -> Lab:
    """A deployed machine for the tests of this module."""
    return machines.boot(name="upgrades", converged=True)


@contextmanager
def settings(lab: Lab, engines: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Engines of the lab with other settings, inside the context."""
    path: Path = lab.directory / "hosts.yml"
    before = path.read_text()
    hosts: dict[str, Any] = yaml.safe_load(before)
    for engine, changes in engines.items():
        hosts["hosts"][NAME]["settings"]["engines"].setdefault(engine, {}).update(changes)
    path.write_text(yaml.safe_dump(hosts))
    try:
        yield
    finally:
        path.write_text(before)


def serves(lab: Lab, engine: str) -> str:
    """HTTP status of a request with the engine's own key, which is in no argument."""
    variable = f"RIG_KEY_{engine.upper().replace('-', '_')}"
    header = f"sed -n 's/^{variable}=\\(.*\\)/header = \"Authorization: Bearer \\1\"/p' /etc/rig/keys.env"
    ask = f"curl -s --config - -o /dev/null -w '%{{http_code}}' http://127.0.0.1:{PORTS[engine]}/v1/models"
    return lab.sudo(f"{header} | {ask}", check=False).stdout


def silent(lab: Lab) -> list[str]:
    """Engines that do not serve."""
    return [engine for engine in PORTS if serves(lab, engine) != "200"]


@pytest.mark.parametrize("engine", [CONTAINER, NATIVE])
def test_an_argument_that_the_engine_does_not_know_is_taken_back(machine: Lab, engine: str) -> None:
    """The engine whose port it should have taken serves again, too, on its own port."""
    before = Fingerprint.of(machine)
    with settings(machine, MOVED[engine]):
        failed = run(machine)
    assert failed.code == 1
    assert f"engine {engine} did not become healthy: it ended by itself" in failed.errors
    # The engine's own last words.
    assert "no-such-argument" in failed.errors.partition("its last lines:")[2]
    assert f"engine {engine} serves again as before" in failed.errors
    eventually(lambda: silent(machine))
    assert "no-such-argument" not in machine.sudo(COMMAND_LINE[engine]).stdout
    assert "\n".join(differences(before, Fingerprint.of(machine))) == ""


@pytest.mark.parametrize("engine", [CONTAINER, NATIVE])
def test_a_start_that_is_refused_is_taken_back(machine: Lab, engine: str) -> None:
    """As if Docker could not give a container a resource: no process answers a health check."""
    unit, definition = UNITS[engine]
    # Where packages have theirs: Rig refuses one in /etc before it begins.
    own = f"/usr/lib/systemd/system/{unit}.d/own.conf"
    refusal = f"[Service]\nExecStartPre=+/bin/sh -c '! grep -q no-such-argument {definition}'\n"
    machine.sudo(f"mkdir -p $(dirname {own}) && cat >{own} && systemctl daemon-reload", input=refusal)
    before = Fingerprint.of(machine)
    with settings(machine, {engine: BROKEN}):
        failed = run(machine)
    assert failed.code == 1
    assert f"engine {engine} did not become healthy: its start failed; its last lines:" in failed.errors
    assert f"engine {engine} serves again as before" in failed.errors
    assert serves(machine, engine) == "200"
    # rig-metrics may have looked just when the engine did not run, and looks again within a minute.
    eventually(lambda: differences(before, Fingerprint.of(machine)), seconds=90)
    machine.sudo(f"rm -r $(dirname {own}) && systemctl daemon-reload")


@pytest.mark.parametrize("engine", [CONTAINER, NATIVE])
def test_a_good_change_after_it_goes_through_and_ports_are_swapped_in_one_run(machine: Lab, engine: str) -> None:
    with settings(machine, {**SWAPPED, engine: {**SWAPPED[engine], "context": 1024}}):
        assert run(machine).changes
        assert "1024" in machine.sudo(COMMAND_LINE[engine]).stdout
        assert run(machine).changes == set()
        assert host_tests(machine, "tests/host/test_engines.py").code == 0
    assert run(machine).changes
    assert run(machine).changes == set()


@pytest.mark.parametrize("engine", [CONTAINER, NATIVE])
def test_a_run_that_was_killed_while_it_tried_is_mended_by_the_next_one(machine: Lab, engine: str) -> None:
    with settings(machine, {engine: BROKEN}):
        killed = machine.deploying()
        eventually(lambda: _not_yet(machine, engine), seconds=120)
        os.killpg(killed.pid, signal.SIGKILL)
        killed.communicate()
        again = run(machine)
    assert again.code == 1
    assert f"engine {engine} serves again as before" in again.errors
    assert serves(machine, engine) == "200"
    assert run(machine).changes == set()


def _not_yet(lab: Lab, engine: str) -> list[str]:
    """Why the state is not yet exactly that of the broken engine."""
    shown = lab.sudo(COMMAND_LINE[engine], check=False).stdout
    return [] if "no-such-argument" in shown else ["the old one runs"]


def test_an_image_that_never_answers_is_taken_back_and_the_engine_after_it_is_not_in_the_compose_file(
    machine: Lab,
) -> None:
    """With its previous digest; the other change was not tried, although a boot would start it."""
    path = "/etc/rig/compose.yaml"
    inspect = f"docker inspect --format '{{{{.Image}}}} {{{{.Config.Image}}}}' rig-{CONTAINER}"
    before, image = machine.sudo(f"cat {path}").stdout, machine.sudo(inspect).stdout
    reference = image.split()[1]
    silent = f"{reference.partition('/')[0]}/{_stored(machine, 'silent-reference')}"
    assert silent.partition("@")[2] != reference.partition("@")[2]
    after_it = {"runtime": "container", "image": reference, "model": "tiny", "port": 8022, **SMALL}
    with settings(machine, {CONTAINER: {"image": silent, "health_timeout": 15}, "spare": after_it}):
        failed = run(machine)
    assert failed.code == 1
    assert f"Starting operation: engines | Pull the image of {CONTAINER}" in failed.errors
    assert f"engine {CONTAINER} did not become healthy: asked for its health it answers nothing, after" in failed.errors
    said = failed.errors.partition("of the 15 s it may take; its last lines:")[2]
    assert SILENT in said, failed.errors
    assert f"engine {CONTAINER} serves again as before" in said
    assert machine.sudo(inspect).stdout == image
    assert machine.sudo(f"cat {path}").stdout == before
    assert serves(machine, CONTAINER) == "200"
    # The files made for the other change are removed with the settings.
    assert run(machine).code == 0


def _stored(lab: Lab, name: str) -> str:
    """A file beside the images of the lab's registry."""
    configuration = json.loads((lab.directory / "registry.json").read_text())
    return (Path(configuration["storage"]["filesystem"]["rootdirectory"]) / name).read_text()


def test_an_image_that_cannot_be_pulled_changes_nothing(machine: Lab) -> None:
    before, lived = Fingerprint.of(machine), lives(machine)
    shown = machine.sudo(f"docker inspect --format '{{{{.Config.Image}}}}' rig-{CONTAINER}").stdout.strip()
    with settings(machine, {CONTAINER: {"image": f"{shown.partition('@')[0]}@sha256:{'0' * 64}"}}):
        failed = run(machine)
    assert failed.code == 1
    assert f"Starting operation: engines | Pull the image of {CONTAINER}" in failed.errors
    assert f"Starting operation: engines | Define {CONTAINER} in /etc/rig/compose.yaml" not in failed.errors
    assert "\n".join(differences(before, Fingerprint.of(machine))) == ""
    assert restarted(lived, lives(machine)) == set()
    assert run(machine).changes == set()
