"""A fetch belongs to the machine: it outlives its run, the next run joins it, and it never replaces a served model."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from lab.machine import CHECKOUT, NAME, Lab
from lab.recipes import checkpoint, model, smollm2
from lab.spec import HUB_PORT
from rig.settings import load
from rigd.models.manifest import File, Limits, Manifest, Model, dump
from tests.lab.overrides import merged
from tests.lab.runs import host_tests, run
from tests.lab.traces import eventually

PROGRAM = "/usr/local/bin/rig-models"
MARKER = "/var/lib/rig/models/tiny.failed"
UNITS = ("rig-container@llama-70b.service", "rig-native@llama-8b.service")
RUNS = {"engines | Run llama-70b in a container", "engines | Run llama-8b as a service"}
WHOLE = "/root/whole"
# A machine in a container has no udev: its device nodes are made by hand. The loop device is detached while it is
# mounted, so that the kernel frees it with the mount, also if this test is killed.
PLUG = f"""set -e
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
for number in $(seq 0 63); do [ -e /dev/loop$number ] || mknod /dev/loop$number b 7 $number; done
device=$(losetup --find --show {WHOLE}/image)
mount $device {WHOLE}/disk
losetup --detach $device
"""
BLOCK = 4096
"""Bytes in a block of the machine's disk."""
SLOW = 20_000
"""Bytes a second: the lab's model of half a megabyte takes longer than the rest of a run on a finished machine."""


class Hub:
    """The lab's hub, as seen from the machine."""

    def __init__(self, lab: Lab) -> None:
        self.address = f"http://{lab.network.services}:{HUB_PORT}"

    def fault(self, **fault: Any) -> None:
        requests.post(f"{self.address}/admin/faults", json=fault, timeout=10).raise_for_status()

    def reset(self) -> None:
        requests.post(f"{self.address}/admin/reset", timeout=10).raise_for_status()

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes sent of each file of a model."""
        counters = requests.get(f"{self.address}/admin/counters", timeout=10).json()
        ours = (".gguf", ".json", ".safetensors", ".md", ".pth")
        return {path: entry["bytes"] for path, entry in counters.items() if path.endswith(ours) and path[0] != "/"}

    @property
    def sent(self) -> int:
        """Bytes of all of them."""
        return sum(self.bytes.values())

    def pin(self, revision: str) -> dict[str, Any]:
        """The pins of the model's file at a revision, in the form of the settings."""
        answer = requests.head(f"{self.address}/{model.REPOSITORY}/resolve/{revision}/{model.FILE}", timeout=10)
        said = answer.headers
        size, sha256 = int(said["X-Linked-Size"]), said["X-Linked-Etag"].strip('"')
        return {"revision": revision, "file": model.FILE, "size": size, "sha256": sha256}


@pytest.fixture(scope="module")
def machine(machines: Any) -> Lab:
    """A deployed machine for the tests of this module, in their order."""
    lab: Lab = machines.boot(name="models", converged=True)
    return lab


def _file(lab: Lab) -> str:
    """Path of the model."""
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
    """Delete the model, and begin a run that fetches it slowly."""
    lab.sudo(f"rm -r {_file(lab)} /var/lib/rig/models/tiny.verified")
    hub.reset()
    hub.fault(bytes_per_second=SLOW, times=1)
    return lab.deploying()


def test_a_fetch_outlives_the_run_that_started_it_and_the_next_run_joins_it(machine: Lab, hub: Hub) -> None:
    deploy = _start_without_the_model(machine, hub)
    assert deploy.stderr is not None
    for line in deploy.stderr:
        # Progress during the wait for the fetch: files, bytes, rate, time left.
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
    """As a failing disk does it: only the bytes change, so the record still fits."""
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
    assert "models | Start fetching the models" in changes
    assert changes >= RUNS
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
    # The newest bytes of the last block may be lost though the size includes them.
    missing = _status(machine)["fetch"]["files"][0]["total"] - there
    assert missing <= hub.sent < missing + BLOCK


# A whole repository


class Whole:
    """rig-models on the machine, with the checkpoint as its only model, in folders of its own."""

    def __init__(self, lab: Lab, hub: Hub) -> None:
        self._lab = lab
        folders = (f"{WHOLE}/models", f"{WHOLE}/records")
        self.manifest = Manifest(hub.address, *folders, (_checkpoint(lab),), limits=Limits(parallel=1))
        self.change()

    def change(self, **values: Any) -> None:
        self.manifest = replace(self.manifest, **values)
        self._lab.sudo(f"mkdir -p {WHOLE} && printf %s {shlex.quote(dump(self.manifest))} >{WHOLE}/models.json")

    def __call__(self, command: str) -> subprocess.CompletedProcess[str]:
        return self._lab.sudo(f"{PROGRAM} {command} --manifest {WHOLE}/models.json", check=False)


@pytest.fixture
def whole(machine: Lab, hub: Hub) -> Iterator[Whole]:
    yield Whole(machine, hub)
    machine.sudo(f"umount {WHOLE}/models {WHOLE}/disk 2>/dev/null; rm -r {WHOLE}")


def _checkpoint(lab: Lab) -> Model:
    entry = load(CHECKOUT, lab=lab.directory).machine(NAME).settings.models.catalogue["tiny-checkpoint"]
    files = tuple(File(file.file, file.size, file.sha256) for file in entry.pinned)
    return Model("checkpoint", entry.repository, entry.revision, files, ("an-engine",))


def _wrong(lab: Lab) -> set[str]:
    """Files of the checkpoint that are missing on the machine, or do not match their pins."""
    wanted = _checkpoint(lab)
    folder = f"{WHOLE}/models/checkpoint/{wanted.version}"
    said = lab.sudo(f"cd {folder} && sha256sum -- *", check=False).stdout
    right = {f"{file.sha256}  {file.path}": file.path for file in wanted.files}
    return set(right.values()) - {right.get(line) for line in said.splitlines()}


def test_a_whole_repository_is_fetched_and_a_wrong_or_cut_file_costs_no_other(
    machine: Lab, hub: Hub, whole: Whole
) -> None:
    sizes = {file.path: file.size for file in _checkpoint(machine).files}
    assert set(sizes) == set(checkpoint.SERVED)
    hub.fault(wrong=True, times=1)
    done = whole("fetch")
    assert done.returncode == 1
    (refused,) = _wrong(machine)
    assert f"checkpoint/{refused}: {hub.address} sent {sizes[refused]} bytes with SHA-256" in done.stderr
    assert hub.bytes == sizes

    shard = checkpoint.SERVED[3]
    machine.sudo(f"rm {WHOLE}/models/checkpoint/*/{shard}")
    hub.reset()
    hub.fault(cut=100_000, times=3)
    assert whole("fetch").returncode == 0
    assert _wrong(machine) == set()
    # The interrupted file continued from its part; no good file was requested again.
    assert hub.bytes == {name: sizes[name] for name in (refused, shard)}

    place = f"{WHOLE}/models/checkpoint/*/{shard}"
    machine.sudo(f"printf X | dd of=$(echo {place}) bs=1 seek=9999 conv=notrunc status=none")
    assert f"{shard} has SHA-256" in whole("verify").stderr
    hub.reset()
    assert whole("fetch").returncode == 0
    assert (_wrong(machine), hub.bytes) == (set(), {shard: sizes[shard]})
    assert '"verified": true' in whole("status --json").stdout


def test_a_disk_that_others_fill_meanwhile_leaves_right_files_and_the_rest_goes_on_later(
    machine: Lab, hub: Hub, whole: Whole
) -> None:
    machine.sudo(f"mkdir {WHOLE}/models && mount -t tmpfs -o size=3m tmpfs {WHOLE}/models")
    hub.fault(bytes_per_second=400_000)
    fetching = f"{PROGRAM} fetch --manifest {WHOLE}/models.json 2>{WHOLE}/said"
    first = f"{WHOLE}/models/checkpoint/*/{checkpoint.SERVED[2]}"
    # The second shard begins when the first one is complete.
    filled = machine.sudo(
        f"{fetching} & until ls {first}; do kill -0 $! || exit 9; sleep 0.1; done >/dev/null 2>&1; "
        f"dd if=/dev/zero of={WHOLE}/models/others bs=16k 2>/dev/null; wait $!",
        check=False,
    )
    said = machine.sudo(f"cat {WHOLE}/said").stdout
    assert filled.returncode == 1, said
    assert f"checkpoint/{checkpoint.SERVED[3]}: the disk is full; free " in said
    assert checkpoint.SERVED[2] not in _wrong(machine)
    machine.sudo(f"rm {WHOLE}/models/others")
    hub.reset()
    assert whole("fetch").returncode == 0
    assert _wrong(machine) == set()
    assert checkpoint.SERVED[2] not in hub.bytes


def test_the_backup_shares_its_blocks_where_the_file_system_can(machine: Lab, hub: Hub, whole: Whole) -> None:
    machine.sudo(
        "DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends btrfs-progs >/dev/null && "
        f"truncate -s 200M {WHOLE}/image && mkfs.btrfs -q {WHOLE}/image && mkdir {WHOLE}/disk"
    )
    machine.sudo(PLUG)
    whole.change(directory=f"{WHOLE}/disk/models")
    assert whole("fetch").returncode == 0
    machine.sudo(f"mv {WHOLE}/disk/models {WHOLE}/disk/backup && rm -r {WHOLE}/records")
    whole.change(backup=f"{WHOLE}/disk/backup")
    hub.reset()
    assert whole("fetch").returncode == 0
    assert hub.bytes == {}
    shard = f"checkpoint/{_checkpoint(machine).version}/{checkpoint.SERVED[3]}"
    assert "shared" in machine.sudo(f"sync && filefrag -v {WHOLE}/disk/models/{shard}").stdout
    assert machine.sudo(f"cmp {WHOLE}/disk/models/{shard} {WHOLE}/disk/backup/{shard}").returncode == 0


# Another version


def _pinned(lab: Lab, **changes: Any) -> AbstractContextManager[None]:
    """The lab with other pins of its model, inside the context."""
    return _set(lab, {"models": {"catalogue": {"tiny": changes}}})


@contextmanager
def _set(lab: Lab, settings: dict[str, Any]) -> Iterator[None]:
    """The lab with other settings, inside the context."""
    path = lab.directory / "hosts.yml"
    before = path.read_text()
    hosts: dict[str, Any] = yaml.safe_load(before)
    hosts["hosts"][NAME]["settings"] = merged(hosts["hosts"][NAME]["settings"], settings)
    path.write_text(yaml.safe_dump(hosts))
    try:
        yield
    finally:
        path.write_text(before)


def _current(lab: Lab) -> dict[str, Any]:
    entry = load(CHECKOUT, lab=lab.directory).machine(NAME).settings.models.catalogue["tiny"]
    return entry.model_dump(include={"revision", "file", "size", "sha256"})


def _sha256(lab: Lab, path: str) -> str:
    return lab.sudo(f"sha256sum {path}").stdout.split()[0]


def test_an_update_is_served_and_one_key_goes_back_without_a_download(machine: Lab, hub: Hub) -> None:
    old, first, update = _current(machine), _file(machine), hub.pin(model.UPDATE)
    with _pinned(machine, **update, previous=old):
        assert run(machine).changes >= RUNS
        second = _file(machine)
        assert hub.bytes == {model.FILE: update["size"]}
        assert (_sha256(machine, second), _sha256(machine, first)) == (update["sha256"], old["sha256"])
        assert host_tests(machine, "tests/host/test_models.py", "tests/host/test_engines.py").code == 0
        assert run(machine).changes == set()
        (row,) = json.loads(machine.sudo(f"{PROGRAM} list --json").stdout)
        assert row["others"] == [Path(first).parent.name]
        machine.sudo(f"{PROGRAM} prune --yes")
        hub.reset()
        with _pinned(machine, use="previous"):
            assert run(machine).changes >= RUNS
            assert _file(machine) == first
            assert host_tests(machine, "tests/host/test_models.py", "tests/host/test_engines.py").code == 0
            assert run(machine).changes == set()
            machine.sudo(f"{PROGRAM} prune --yes")
        assert run(machine).changes >= RUNS
        assert _file(machine) == second
        assert hub.bytes == {}
    assert run(machine).changes >= RUNS
    assert hub.bytes == {}


def test_a_version_that_serves_nobody_leaves_the_one_before_it_to_go_back_to(machine: Lab, hub: Hub) -> None:
    """The hub has exactly the pinned bytes, and they are no model."""
    old, first, spoilt = _current(machine), _file(machine), hub.pin(model.SPOILT)
    with _pinned(machine, **spoilt, previous=old):
        failed = run(machine)
        assert failed.code == 1
        assert "did not become healthy" in failed.errors
        assert "serves again as before" in failed.errors
        # prune keeps the served version, even with --previous.
        machine.sudo(f"{PROGRAM} prune --yes --previous")
        assert _sha256(machine, first) == old["sha256"]
        hub.reset()
        with _pinned(machine, use="previous"):
            assert run(machine).changes
            assert host_tests(machine, "tests/host/test_models.py", "tests/host/test_engines.py").code == 0
            assert hub.bytes == {}
    assert run(machine).code == 0


# Another model


def test_an_engine_that_names_another_model_answers_with_that_one_and_the_other_engine_runs_on(
    machine: Lab, hub: Hub
) -> None:
    """Comes last: it leaves the machine with that model."""
    if smollm2.NAME not in load(CHECKOUT, lab=machine.directory).machine(NAME).settings.models.catalogue:
        pytest.skip("pip gets no real model here, and the hand-made one answers nonsense")
    source = smollm2.SOURCE
    with _set(machine, {"engines": {smollm2.ENGINE: smollm2.SERVED}}):
        changes = run(machine).changes
        assert changes & RUNS == {"engines | Run llama-8b as a service"}
        assert hub.bytes == {source.file: source.size}
        assert _sha256(machine, f"/mnt/models/{smollm2.NAME}/*/{source.file}") == source.sha256
        verdict = host_tests(machine, "tests/host/test_models.py", "tests/host/test_engines.py")
        assert verdict.code == 0, verdict.output


def _smaller(lab: Lab, path: str, size: int) -> list[str]:
    found = lab.sudo(f"stat -c %s {path} 2>/dev/null || echo 0", check=False).stdout.strip()
    return [] if found.isdecimal() and int(found) >= size else [f"{path} has {found or 'no'} bytes"]
