"""Values that follow from settings: the resources of engines, the owners of keys, and values given as --data."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

import pytest

from rig.settings import Settings, SettingsError, key_variable, load_local, size_bytes
from rig.settings.data import data_arguments
from tests.unit.project import WORKSTATION, Project


def local(project: Project, **data: str) -> Settings:
    return load_local(project.root, data=data).machine("@local").settings


def test_settings_touch_neither_pyinfra_nor_a_network(project: Project) -> None:
    look = "import sys, rig.settings; print({'pyinfra', 'paramiko', 'requests', 'gevent'} & {*sys.modules})"
    (project.root / "look.py").write_text(look, encoding="utf-8")
    assert project.run("look").stdout == "set()\n"


def test_sizes_are_powers_of_1024() -> None:
    assert [size_bytes(size) for size in ("3K", "2M", "64G", "1T")] == [
        3072,
        2097152,
        68719476736,
        1099511627776,
    ]


def test_a_mode_always_has_four_digits(project: Project) -> None:
    project.change("all.yml", '    mode: "0755"', '    mode: "755"')
    assert local(project).storage.models.mode == "0755"


def test_a_single_address_is_a_network_of_one(project: Project) -> None:
    project.change("all.yml", "[10.0.0.0/8,", "[10.0.0.7,")
    assert local(project).firewall.ssh.networks[0] == "10.0.0.7/32"


def test_only_models_of_enabled_engines_are_needed_projectors_too(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION.replace("192.168.1.20", '"@local"'))
    archive = f"archive: {{url: https://example.org/a.tar.gz, sha256: {'a' * 64}}}"
    project.write("workstation.yml", f"engines: {{qwen3-vl-4b: {{enabled: true, {archive}}}}}\n")
    settings = local(project)
    assert list(settings.enabled_engines) == ["llama-70b", "llama-8b", "qwen3-vl-4b"]
    assert list(settings.needed_models) == [
        "llama-3.3-70b-q4",
        "llama-3.1-8b-q4",
        "qwen3-vl-4b-q4",
        "qwen3-vl-4b-mmproj",
    ]


def test_a_model_lies_in_a_folder_of_its_name_and_version(project: Project) -> None:
    listing = b"66358cb18bb6b3b1b6675aa412c7a88ef01d228f481184d13668e5201c730a0a  Qwen3VL-4B-Instruct-Q4_K_M.gguf\n"
    version = hashlib.sha256(listing).hexdigest()[:12]
    assert local(project).model_path("qwen3-vl-4b-q4") == PurePosixPath(
        f"/mnt/models/qwen3-vl-4b-q4/{version}/Qwen3VL-4B-Instruct-Q4_K_M.gguf"
    )


def test_enabled_engines_and_named_consumers_get_a_key_each_once(project: Project) -> None:
    project.change("all.yml", "  consumers: []", "  consumers: [web-ui, llama-70b]")
    assert local(project).consumers == ("llama-70b", "llama-8b", "web-ui")
    assert key_variable("llama-70b") == "RIG_KEY_LLAMA_70B"


def test_settings_cannot_be_changed_once_read(project: Project) -> None:
    with pytest.raises(ValueError, match="frozen"):
        local(project).machine.timezone = "Etc/UTC"


@pytest.mark.parametrize(
    ("path", "text", "read"),
    [
        ("machine.timezone", "Europe/Berlin", "Europe/Berlin"),
        ("machine.sysctl.vm.swappiness", "7", 7),
        ("machine.sysctl.vm.swappiness", "1.10", "1.10"),
        ("machine.sysctl.vm.swappiness", "null", None),
        ("containers.daemon.log-driver", "1.10", "1.10"),
        ("containers.daemon.live-restore", "false", False),
        ("firewall.enabled", "false", False),
        ("engines.llama-70b.cpus", "6", 6.0),
        ("engines.llama-70b.cpus", "1.5", 1.5),
        ("engines.llama-70b.threads", "6", 6),
        ("engines.llama-8b.threads", "6", 6),
        ("engines.llama-70b.projector", "qwen3-vl-4b-mmproj", "qwen3-vl-4b-mmproj"),
        ("models.catalogue.llama-3.3-70b-q4.file", "1.10", "1.10"),
        ("models.catalogue.llama-3.3-70b-q4.sha256", "1" * 64, "1" * 64),
        ("engines.llama-70b.enabled", "false", False),
        ("storage.models.mode", "0751", "0751"),
    ],
)
def test_data_is_taken_as_the_type_that_its_key_wants(project: Project, path: str, text: str, read: object) -> None:
    found: object = local(project, **{path: text})
    keys = path.replace("vm.swappiness", "vm/swappiness").replace("llama-3.3", "llama-3/3").split(".")
    for key in keys:
        name = key.replace("/", ".")
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("path", "text", "sentence"),
    [
        ("machine.timezon", "x", "unknown key; write machine.timezone"),
        ("engines.llama-8b.threds", "4", "unknown key; write engines.llama-8b.threads"),
        ("machine.timezone.name", "x", "unknown key; write machine.timezone alone"),
        ("engines.lama-8b.threads", "4", "unknown key; write engines.llama-8b"),
        ("machine.hardware.gpu.bandwith", "1", "unknown key; write machine.hardware.gpu.bandwidth"),
        ("zzz", "x", "unknown key; write a path such as machine.timezone"),
        ("engines.llama-70b.port", "x", "must be a whole number, not 'x'; write digits only"),
        ("engines.llama-70b.port", "22", "must be at least 1024, not 22; write such a number"),
        (
            "machine.packages",
            "tree",
            "holds several values and --data gives one; write it in group_data",
        ),
        (
            "machine.users",
            "tree",
            "holds several values and --data gives one; write it in group_data",
        ),
    ],
)
def test_a_mistake_in_data_is_told_as_such(project: Project, path: str, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as told:
        local(project, **{path: text})
    assert told.value.report() == f"--data: {path}: {sentence}"


def test_data_is_read_from_the_command_line_as_it_was_typed() -> None:
    typed = ["inventory.py", "deploy.py", "--data", "a.b=1.10", "--data=c=x=y", "--data", "ssh_user=me", "-y"]
    assert data_arguments(typed) == {"a.b": "1.10", "c": "x=y"}


def test_data_of_a_command_that_is_run_on_the_machine_is_not_ours() -> None:
    assert data_arguments(["inventory.py", "exec", "--", "tool", "--data", "a=b"]) == {}
