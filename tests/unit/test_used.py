"""A machine with earlier use, or with wrong settings, is refused before anything is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rig.apt.sources import Sources
from rig.facts import used
from rig.gpu.cards import Card
from rig.preflight.used import cuda_of
from rig.settings import size_bytes
from tests.unit.project import ROOT
from tests.unit.sample import Here, needs
from tests.unit.test_preflight import DISK, FINE, GIB, WITH_CARD, _only, _said

CASES = ROOT / "tests/unit/data/docker"
LIST = "/etc/apt/sources.list.d/docker.list"


# apt


def test_an_owners_entry_with_another_key_is_refused() -> None:
    entry = "deb [signed-by=/k/o.gpg] https://download.docker.com/linux/debian trixie stable\n"
    machine = replace(FINE, sources=Sources({LIST: entry}, {}))
    assert _only(machine).startswith(f"{LIST}:1 names https://download.docker.com/linux/debian signed by /k/o.gpg, wh")
    assert _said(machine, {"containers/source": "distribution"}) == []


def test_an_owners_entry_for_the_cards_repository_counts_where_there_is_a_card() -> None:
    entry = "deb https://developer.download.nvidia.com/compute/cuda/repos/debian13/x86_64/ /\n"
    sources = Sources({"/etc/apt/sources.list.d/cuda.list": entry}, {})
    assert _said(replace(FINE, sources=sources)) == []
    assert "cuda.list:1 names https://developer" in _only(replace(WITH_CARD, sources=sources))


# Docker


@pytest.mark.parametrize("case", sorted(path.stem for path in CASES.glob("*.json")))
def test_of_what_owners_have_in_daemon_json_only_user_namespaces_are_refused(case: str) -> None:
    said = _said(replace(FINE, daemon=(CASES / f"{case}.json").read_text()))
    assert [sentence.partition(",")[0] for sentence in said] == (
        ["/etc/docker/daemon.json has userns-remap: default"] if case == "daemon-userns" else []
    )


def test_user_namespaces_are_refused_in_the_settings_too_and_can_be_switched_off_there() -> None:
    owners = replace(FINE, daemon=json.dumps({"userns-remap": "default"}))
    assert _said(owners, {"containers/daemon": {"userns-remap": ""}}) == []
    assert _only(FINE, {"containers/daemon": {"userns-remap": "rig"}}).startswith("containers.daemon has userns-remap")


def test_live_restore_on_a_node_of_a_swarm_is_refused() -> None:
    node = replace(FINE, swarm=True)
    assert "write 'live-restore: false' in containers.daemon" in _only(node)
    assert _said(node, {"containers/daemon/live-restore": False}) == []
    owners = replace(node, daemon='{"live-restore": true}')
    assert "does not start there with live-restore" in _only(owners, {"containers/daemon": {}})


# Variables


def test_variables_that_steer_docker_or_apt_elsewhere_are_refused_by_name() -> None:
    sentence = _only(replace(FINE, environment=("APT_CONFIG=/root/apt.conf", "DOCKER_HOST=tcp://10.0.0.9:2375")))
    assert sentence.startswith("every login has APT_CONFIG=/root/apt.conf, DOCKER_HOST=tcp://10.0.0.9:2375, by which")
    assert "/etc/environment" in sentence


@pytest.mark.parametrize(
    "line",
    ["DOCKER_HOST=unix:///var/run/docker.sock", 'DOCKER_HOST="unix:///run/docker.sock"', "DOCKER_CONTEXT=default"],
)
def test_variables_that_say_what_is_so_anyway_are_let_be(line: str) -> None:
    assert _said(replace(FINE, environment=(line,))) == []


# Disks


LINK = "/dev/disk/by-label/models"


@pytest.mark.parametrize("leads", ["", LINK])
def test_a_disk_that_the_machine_does_not_have_is_refused(leads: str) -> None:
    machine = replace(FINE, disks={LINK: leads})
    sentence = _only(machine, {"storage/models/mount": DISK})
    assert sentence.startswith("no disk of the machine has LABEL=models (storage.models.mount.source); connect it")
    assert _said(replace(machine, disks={LINK: "/dev/sdb1"}), {"storage/models/mount": DISK}) == []


def test_a_disk_that_is_written_with_other_capital_letters_is_refused_with_the_right_ones() -> None:
    changes = {"storage/models/mount": {**DISK, "source": "UUID=0A1B-2C3D"}}
    link = "/dev/disk/by-uuid/0A1B-2C3D"
    machine = replace(FINE, disks={link: link}, alike={link: "/dev/disk/by-uuid/0a1b-2c3d"})
    assert _only(machine, changes).endswith("capital letters count; write 'UUID=0a1b-2c3d'")


def test_an_automount_point_without_its_disk_is_no_mount() -> None:
    machine = replace(FINE, automounts=frozenset({"/mnt/models"}))
    assert _only(machine, {"storage/models/must_be_mount": True}).startswith(
        "/mnt/models is an automount point, and its disk does not come; connect the disk"
    )


# Space


def _own(path: str, free: int) -> Any:
    """A machine on which this folder is a file system of its own."""
    return replace(FINE, free={**FINE.free, path: free}, device={**FINE.device, path: "9"})


@pytest.mark.parametrize(
    ("path", "least"), [("/var", GIB), ("/opt", GIB), ("/boot", 200 << 20), ("/var/lib/docker", 8 * GIB)]
)
def test_a_file_system_of_its_own_is_measured_for_what_a_deploy_puts_there(path: str, least: int) -> None:
    machine = replace(_own(path, least - 1), cards=(Card("0000:01:00.0", 0x2C05),), kernel="6.12.107+deb13-amd64")
    said = [sentence for sentence in _said(machine) if "free" in sentence]
    assert [sentence.partition(" has ")[0] for sentence in said] == [f"the file system of {path}"]
    assert "put storage.models" not in said[0]
    enough = replace(machine, free={**machine.free, path: least})
    assert [sentence for sentence in _said(enough) if "free" in sentence] == []


def test_images_are_counted_where_the_settings_or_docker_have_them() -> None:
    own = replace(_own("/srv/docker", GIB), data_root="/srv/docker")
    assert _only(own).startswith("the file system of /srv/docker has 1.0 GiB free and 8.0 GiB are needed")
    elsewhere = _own("/srv/docker", GIB)
    assert _said(elsewhere) == []
    assert "/srv/docker has 1.0 GiB" in _only(elsewhere, {"containers/daemon/data-root": "/srv/docker"})


# Hardware


def test_a_machine_with_less_than_the_settings_say_is_refused_with_the_key_to_correct() -> None:
    sized = {"machine/hardware/ram": "128G", "machine/hardware/cores": 12}
    machine = replace(FINE, ram=62 * GIB, cores=8)
    ram, cores = _said(machine, sized)
    assert ram.startswith("the machine has 62.0 GiB of RAM, and machine.hardware.ram says 128G; correct it")
    assert cores == "the machine has 8 cores, and machine.hardware.cores says 12; correct it"
    assert _said(replace(FINE, ram=125 * GIB, cores=16), sized) == []


def test_a_card_with_less_memory_than_the_settings_say_is_refused() -> None:
    machine = replace(WITH_CARD, card_memory=(12 * GIB,))
    assert "the graphics card has 12.0 GiB, and machine.hardware.gpu.memory says" in _only(machine)
    assert _said(replace(WITH_CARD, card_memory=(16303 << 20,))) == []


@pytest.mark.parametrize(
    ("image", "cuda"),
    [
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b11206@sha256:aa", 12),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda13-b11206", 13),
        ("ghcr.io/ggml-org/llama.cpp:server-b11206", None),
        ("docker.io/vllm/vllm-openai:v0.33.0@sha256:aa", 13),
        ("docker.io/vllm/vllm-openai:v0.33.0-cu129", 12),
        ("docker.io/vllm/vllm-openai:v0.33.0-x86_64-cu130", 13),
        ("10.0.0.1:5000/own/server:1", None),
        ("nvidia/cuda:12.8.0-base", None),
    ],
)
def test_what_an_image_asks_of_the_driver_is_known_by_its_tag(image: str, cuda: int | None) -> None:
    assert cuda_of(image) == cuda


def test_a_driver_that_is_too_old_for_an_image_is_refused() -> None:
    thirteen = "ghcr.io/ggml-org/llama.cpp:server-cuda13-b1@sha256:" + "0" * 64
    changes = {"engines/one/gpu_layers": 25, "engines/one/image": thirteen, "gpu/driver/version": "570"}
    assert _only(WITH_CARD, changes).startswith(
        "engine one's image asks for CUDA 13, and the driver 570 (gpu.driver.version) has CUDA 12; write a later branch"
    )
    assert _said(WITH_CARD, {**changes, "gpu/driver/version": "580"}) == []
    own = {**changes, "gpu/enabled": False}
    assert "and the machine's driver has CUDA 12" in _only(replace(WITH_CARD, cuda="12.8"), own)
    assert _said(WITH_CARD, own) == []


# The machine's output


@pytest.fixture
def machine(tmp_path: Path) -> Here:
    """This machine, with another apt, environment and disks."""
    for folder in ("apt/sources.list.d", "disk/by-uuid", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    places = {"/etc/apt": "apt", "/etc/environment": "environment", "/dev/disk": "disk", "/etc/docker": "docker"}

    def rewrite(script: str) -> str:
        for real, own in places.items():
            script = script.replace(real, f"{tmp_path}/{own}")
        return f"PATH={tmp_path}/bin:$PATH; t=$(printf '\\t')\n{script}"

    return Here(rewrite)


def _look(machine: Here, disks: tuple[str, ...] = ()) -> dict[str, Any]:
    done = machine.shell(used.script(("vendor.example",), disks))
    assert done.stderr == ""
    rows: used.Fields = {}
    for line in done.stdout.splitlines():
        key, *values = line.split("\t")
        rows.setdefault(key, []).append(values)
    return used.fields(rows)


@needs("lscpu")
def test_the_machine_is_read_with_its_own_tools(machine: Here, tmp_path: Path) -> None:
    (tmp_path / "ring.gpg").write_bytes(b"\x99\x00ring")
    entry = f"deb [arch=amd64 signed-by={tmp_path}/ring.gpg] https://vendor.example/linux trixie stable\n"
    (tmp_path / "apt/sources.list.d/docker.list").write_text(entry)
    (tmp_path / "apt/sources.list").write_text("deb https://other.example trixie main\n")
    (tmp_path / "environment").write_text('export DOCKER_HOST=tcp://a\nCOMPOSE_FILE=/x\nRESTIC_X=1\nAPT_CONFIG=\n')
    (tmp_path / "disk/by-uuid/0a1b-2c3d").touch()
    _program(tmp_path, "nvidia-smi", "echo '| 580.95   Driver Version: 580.95   CUDA Version: 13.0 |'\n"
             "echo '|  0%   41C    P8   12W / 300W |    15MiB /  16303MiB |  0% |'\n"
             "echo 'WARNING: infoROM is corrupted at gpu 0000:01:00.0'\nexit 14")  # fmt: skip
    _program(tmp_path, "docker", "printf '/srv/docker\\tactive\\n'")
    disks = ("/dev/disk/by-uuid/0A1B-2C3D", "/dev/disk/by-uuid/missing")
    found = _look(machine, disks)
    assert found["sources"] == Sources(
        {f"{tmp_path}/apt/sources.list.d/docker.list": entry}, {f"{tmp_path}/ring.gpg": b"\x99\x00ring"}
    )
    assert found["environment"] == ("COMPOSE_FILE=/x", "DOCKER_HOST=tcp://a")
    assert found["alike"] == {f"{tmp_path}/disk/by-uuid/0A1B-2C3D": f"{tmp_path}/disk/by-uuid/0a1b-2c3d"}
    assert (found["data_root"], found["swarm"]) == ("/srv/docker", True)
    assert (found["card_memory"], found["cuda"]) == ((16303 << 20,), "13.0")
    total = next(line.split()[1] for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line)
    assert found["ram"] == size_bytes(f"{total}K")
    assert found["cores"] > 0


def test_a_docker_that_does_not_answer_leaves_the_root_of_its_file(machine: Here, tmp_path: Path) -> None:
    _program(tmp_path, "docker", "exit 1")
    assert (_look(machine)["data_root"], _look(machine)["swarm"]) == ("/var/lib/docker", False)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/daemon.json").write_text('{\n  "debug": true,\n  "data-root": "/srv/images"\n}\n')
    assert _look(machine)["data_root"] == "/srv/images"


def _program(folder: Path, name: str, script: str) -> None:
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
