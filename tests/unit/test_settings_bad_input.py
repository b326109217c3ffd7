"""What a person can write wrong: each mistake is told with file, line, key and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from rig.settings.tree import plain, read
from tests.unit.project import ROOT, WORKSTATION, Project
from tests.unit.sample import examples

HASH = "32df3baccb556f9840059b2528b2dee4d3d516b24afdfb9d0c56ff5f63e3a664"
SHORT_IMAGE = "ghcr.io/ggml-org/llama.cpp:server-cuda-b11206"
IMAGE = f"{SHORT_IMAGE}@sha256:3e7673cce183a55f97a1bc3c80817f3c61452483c13bc088a6766388af4775fe"
SIZE = "a whole number below 1000000T with K, M, G or T, such as 64G"
SECOND = "a second YAML document begins here, which nothing reads; remove the line '---' or '...' before it"
LINES = "write lines of the form 'key: value' below it, or {} for none"

# What stands in all.yml; what a person writes there; the key; what is wrong, and what to write.
MISTAKES = {
    "unknown key": ("  packages: [", "  pakages: [", "machine.pakages", "unknown key; write 'packages'"),
    "unknown concern": ("firewall:\n", "fierwall:\n", "fierwall", "unknown key; write 'firewall'"),
    "key nothing like a known one": (
        "  system_free: 10G",
        "  zzz: 1\n  system_free: 10G",
        "storage.zzz",
        "unknown key; remove it, or write 'system_free', 'models' or 'backup'",
    ),
    "key of another kind of engine": (
        "    model: llama-3.1-8b-q4",
        "    image: null\n    model: llama-3.1-8b-q4",
        "engines.llama-8b.image",
        "unknown key; remove it, or write 'enabled', 'alternatives', 'model', 'address', 'port', 'context', "
        "'sequences', 'memory', 'overhead', 'cpus', 'health_timeout', 'projector', 'threads', 'kv_cache', "
        "'prompt_cache', 'arguments', 'runtime' or 'archive'",
    ),
    "number for text": (
        "  timezone: Etc/UTC",
        "  timezone: 3",
        "machine.timezone",
        "'3' is not a known time zone; write one such as Europe/Berlin",
    ),
    "yes for text": (
        '    group: root\n    mode: "0755"',
        '    group: yes\n    mode: "0755"',
        "storage.models.group",
        'is true, because yes stands without quotes; write "yes"',
    ),
    "text for number": (
        "    port: 8002",
        '    port: "8002"',
        "engines.llama-70b.port",
        'must be a number, and "8002" in quotes is text; write 8002',
    ),
    "text for true or false": (
        "    enabled: true\n    # Name of your",
        "    enabled: ja\n    # Name of your",
        "engines.llama-70b.enabled",
        "must be true or false, not 'ja'; write one of the two without quotes",
    ),
    "a fraction of a thread": (
        "    threads: 12",
        "    threads: 1.5",
        "engines.llama-70b.threads",
        "must be a whole number, not 1.5; write digits only",
    ),
    "no processors": (
        "    cpus: 12",
        "    cpus: 0",
        "engines.llama-70b.cpus",
        "must be at least 0.1, not 0; write such a number",
    ),
    "text for processors": (
        "    cpus: 12",
        "    cpus: all",
        "engines.llama-70b.cpus",
        "must be a number, not 'all'; write one such as 1.5",
    ),
    "text for a list": (
        "    arguments: []",
        "    arguments: --no-mmap",
        "engines.llama-70b.arguments",
        "must be a list, not '--no-mmap'; write it as [a, b], or [] for none",
    ),
    "list for a mapping": (
        "  users: {}",
        "  users: []",
        "machine.users",
        f"must be a mapping, not a list; {LINES}",
    ),
    "nothing for a mapping": (
        "  allow: {}",
        "  allow:",
        "firewall.allow",
        f"must be a mapping, and nothing (null) is written; {LINES}",
    ),
    "mapping for text": (
        "  hub: https://huggingface.co",
        "  hub: {url: https://huggingface.co}",
        "models.hub",
        "must be text, not a mapping; write it in one line",
    ),
    "mode without quotes": (
        '    mode: "0755"',
        "    mode: 0755",
        "storage.models.mode",
        'is the number 493, because 0755 stands without quotes; write "0755"',
    ),
    "mode in letters": (
        '    mode: "0755"',
        "    mode: rwxr-xr-x",
        "storage.models.mode",
        "'rwxr-xr-x' is not a file mode; write three or four octal digits in quotes, such as \"0755\"",
    ),
    "address that is none": (
        "    address: 127.0.0.1",
        "    address: 127.0.0.256",
        "engines.llama-70b.address",
        "'127.0.0.256' is not an IPv4 address; write 127.0.0.1",
    ),
    "engine on every address": (
        "    address: 127.0.0.1",
        "    address: 0.0.0.0",
        "engines.llama-70b.address",
        "'0.0.0.0' is not on loopback, where engines must stay; write 127.0.0.1",
    ),
    "network that is none": (
        "    networks: [10.0.0.0/8,",
        "    networks: [10.0.0.0/64,",
        "firewall.ssh.networks.0",
        "'10.0.0.0/64' is not a network; write one such as 192.168.1.0/24 or fd00::/8",
    ),
    "address for a network": (
        "    networks: [10.0.0.0/8,",
        "    networks: [10.0.0.7/8,",
        "firewall.ssh.networks.0",
        "'10.0.0.7/8' is an address inside a network; write 10.0.0.0/8",
    ),
    "nobody may log in": (
        "    networks: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fe80::/10, fd00::/8]",
        "    networks: []",
        "firewall.ssh.networks",
        "is empty; write at least 1 entry",
    ),
    "port too high": (
        "    port: 22",
        "    port: 65536",
        "firewall.ssh.port",
        "must be at most 65535, not 65536; write such a number",
    ),
    "time zone": (
        "  timezone: Etc/UTC",
        "  timezone: Europe/Belin",
        "machine.timezone",
        "'Europe/Belin' is not a known time zone; write Europe/Berlin",
    ),
    "size without unit": (
        "  system_free: 10G",
        '  system_free: "10"',
        "storage.system_free",
        f"'10' is not a size; write {SIZE}",
    ),
    "size beyond what computers count": (
        "  system_free: 10G",
        "  system_free: 1000000T",
        "storage.system_free",
        f"'1000000T' is not a size; write {SIZE}",
    ),
    "context of too many digits": (
        "    context: 8192\n    # Requests served",
        f"    context: {'9' * 400}\n    # Requests served",
        "engines.llama-70b.context",
        "is too large for a number; write a smaller one, or text in quotes",
    ),
    "longer context than any model has": (
        "    context: 8192\n    # Requests served",
        "    context: 100000001\n    # Requests served",
        "engines.llama-70b.context",
        "must be at most 100000000, not 100000001; write such a number",
    ),
    "memory faster than any": (
        "    ram_bandwidth: 102.4",
        "    ram_bandwidth: 1.0e+300",
        "machine.hardware.ram_bandwidth",
        "must be at most 1000000, not 1e+300; write such a number",
    ),
    "endless patience": (
        "    health_timeout: 900\n    # Further",
        "    health_timeout: 86401\n    # Further",
        "engines.llama-70b.health_timeout",
        "must be at most 86400, not 86401; write such a number",
    ),
    "empty hash": (
        f"      sha256: {HASH}",
        '      sha256: ""',
        "models.catalogue.llama-3.3-70b-q4.sha256",
        "is empty; write its 64 lower-case hexadecimal digits",
    ),
    "hash left out": (
        f"      sha256: {HASH}",
        "      sha256:",
        "models.catalogue.llama-3.3-70b-q4.sha256",
        "is missing, and engine llama-70b needs it; write it, or run rig lock llama-3.3-70b-q4",
    ),
    "hash too short": (
        f"      sha256: {HASH}",
        f"      sha256: {HASH[:-1]}",
        "models.catalogue.llama-3.3-70b-q4.sha256",
        f"'{HASH[:56]}... is not a SHA-256; write its 64 lower-case hexadecimal digits",
    ),
    "revision too short": (
        "b6c5c9f176f3279204034e1d16d393105e95cb88",
        "b6c5c9f",
        "models.catalogue.llama-3.3-70b-q4.revision",
        "'b6c5c9f' is not a revision; write the 40 hexadecimal digits of the commit, "
        "or main where only the hash decides",
    ),
    "file outside its folder": (
        "      file: Llama-3.3-70B-Instruct-Q4_K_M.gguf",
        "      file: ../x.gguf",
        "models.catalogue.llama-3.3-70b-q4.file",
        "'../x.gguf' is not a path inside the repository; write one such as tokenizer.json, without '..'",
    ),
    "image without digest": (
        f"    image: {IMAGE}",
        f"    image: {SHORT_IMAGE}",
        "engines.llama-70b.image",
        f"'{SHORT_IMAGE}' is not an image with its digest; write repository:tag@sha256:<64 hexadecimal digits>",
    ),
    "no image": (
        f"    image: {IMAGE}",
        "    image: null",
        "engines.llama-70b.image",
        "is missing although the engine is enabled; write repository:tag@sha256:..., or enabled: false",
    ),
    "unknown kind of engine": (
        "    runtime: container\n",
        "    runtime: contianer\n",
        "engines.llama-70b.runtime",
        "must be 'container', 'native' or 'vllm', not 'contianer'; write 'container'",
    ),
    "unknown word": (
        "  source: vendor\n\n  # The v",
        "  source: vender\n\n  # The v",
        "containers.source",
        "must be 'vendor' or 'distribution', not 'vender'; write 'vendor'",
    ),
    "name of an engine": (
        "  llama-8b:\n",
        "  Llama_8b:\n",
        "engines.Llama_8b",
        "'Llama_8b' is not a usable name; write lower-case letters, digits and - only, 40 at most",
    ),
    "name of a user": (
        "  users: {}",
        "  users: {Owner: {}}",
        "machine.users.Owner",
        "'Owner' is not a user or group name; write lower-case letters, digits, - and _ only",
    ),
    "private key for a public one": (
        "  users: {}",
        "  users: {owner: {authorized_keys: [-----BEGIN OPENSSH PRIVATE KEY-----]}}",
        "machine.users.owner.authorized_keys.0",
        "'-----BEGIN OPENSSH PRIVATE KEY-----' is not an SSH public key; "
        "write the line of a .pub file, such as 'ssh-ed25519 AAAA... name'",
    ),
    "kernel parameter true": (
        "    vm.swappiness: 10",
        "    vm.swappiness: true",
        "machine.sysctl.vm.swappiness",
        "must be a number, not true; write 1",
    ),
    "relative path": (
        "    path: /mnt/backup",
        "    path: backup",
        "storage.backup.path",
        "'backup' is not an absolute path; write one such as /mnt/models, "
        "with neither spaces nor '..' nor a slash at the end",
    ),
    "one folder for two things": (
        "    path: /mnt/backup",
        "    path: /mnt/models",
        "storage.backup.path",
        "is the folder of the models too; write another one",
    ),
    "backup among the models": (
        "    path: /mnt/backup",
        "    path: /mnt/models/backup",
        "storage.backup.path",
        "/mnt/models/backup and the folder of the models, /mnt/models, hold each other; write one apart from it",
    ),
    "device name of a disk": (
        "    path: /mnt/backup\n    mount: null",
        "    path: /mnt/backup\n    mount: {source: /dev/sdb1}",
        "storage.backup.mount.source",
        "'/dev/sdb1' is not a file system named by UUID or label; "
        "write UUID=... or LABEL=..., as `lsblk -f` shows them",
    ),
    "model that is not there": (
        "    model: llama-3.3-70b-q4",
        "    model: llama-3.3-70b-q5",
        "engines.llama-70b.model",
        "'llama-3.3-70b-q5' is not in models.catalogue; write 'llama-3.3-70b-q4'",
    ),
    "projector that is not there": (
        "    projector: qwen3-vl-4b-mmproj",
        "    projector: zzz",
        "engines.qwen3-vl-4b.projector",
        "'zzz' is not in models.catalogue; add it there or write one of its names",
    ),
    "engine opened to the network": (
        "  allow: {}",
        "  allow: {llm: {port: 8002, networks: [10.0.0.0/8]}}",
        "firewall.allow.llm.port",
        "8002 is the port of engine 'llama-70b', which must not be opened; remove it",
    ),
    "engine opened to the network as a container of the owner's": (
        "  containers: {}",
        "  containers: {llm: {port: 8002, networks: [10.0.0.0/8]}}",
        "firewall.containers.llm.port",
        "8002 is the port of engine 'llama-70b', which must not be opened; remove it",
    ),
    "monitoring opened to the network as a container of the owner's": (
        "  containers: {}",
        "  containers: {graphs: {port: 9090, networks: [10.0.0.0/8]}}",
        "firewall.containers.graphs.port",
        "9090 is the port of monitoring.prometheus, which answers this machine only; remove it, "
        "and reach it through SSH",
    ),
    "argument that is decided elsewhere": (
        "    arguments: []",
        "    arguments: [--port=1]",
        "engines.llama-70b.arguments.0",
        "'--port' is already passed, from port; remove it here",
    ),
    "key among the arguments": (
        "    arguments: []",
        "    arguments: [--api-key=hunter2]",
        "engines.llama-70b.arguments.0",
        "'--api-key' is already passed, from the key that secrets generates; remove it here",
    ),
    "archive that tar does not unpack": (
        "is not proven.\n    archive:\n      url: https://github.com/ggml-org/llama.cpp/releases/download/b11146/"
        "llama-b11146-bin-ubuntu-x64.tar.gz",
        "is not proven.\n    archive:\n      url: https://example.org/b11146/ubuntu-x64.zip",
        "engines.llama-8b.archive.url",
        "'https://example.org/b11146/ubuntu-x64.zip' is a zip archive, which is not unpacked; "
        "write the address of a .tar.gz",
    ),
    "fingerprint with spaces": (
        "[9DC858229FC7DD38854AE2D88D81803C0EBFCD88]",
        '["9DC8 5822"]',
        "containers.vendor.key_fingerprints.0",
        "'9DC8 5822' is not a key fingerprint; write its 40 upper-case hexadecimal digits without spaces",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_line_its_key_and_its_remedy(project: Project, mistake: str) -> None:
    old, new, path, sentence = MISTAKES[mistake]
    begin = project.change("all.yml", old, new)
    key = next((step for step in reversed(path.split(".")) if f"{step}:" in new), "")
    offset = next((n for n, text in enumerate(new.splitlines()) if f"{key}:" in text), 0)
    assert f"group_data/all.yml:{begin + offset}: {path}: {sentence}" in project.problems()


def test_an_engine_of_no_kind_is_told_at_its_name(project: Project) -> None:
    project.change("all.yml", "    runtime: container\n", "")
    line = project.line("all.yml", "llama-70b:")
    sentence = "is missing; write 'container', 'native' or 'vllm'"
    assert f"group_data/all.yml:{line}: engines.llama-70b.runtime: {sentence}" in project.problems()


def test_a_key_that_all_yml_must_have_is_missed_where_it_belongs(project: Project) -> None:
    project.change("all.yml", "    max_use: 2G\n", "")
    line = project.line("all.yml", "journald:")
    meaning = "Disk space the journal may take, as a size such as 2G."
    assert project.problems() == [f"group_data/all.yml:{line}: machine.journald.max_use: is missing; add it: {meaning}"]


def test_a_missing_key_is_told_in_the_file_that_has_the_others(project: Project) -> None:
    project.change("all.yml", "    max_use: 2G\n", "")
    project.write("hosts.yml", WORKSTATION)
    project.write("workstation.yml", "machine:\n  journald: {max_retention: 7day}\n")
    (problem,) = project.problems()
    assert problem.startswith(f"group_data/all.yml:{project.line('all.yml', 'journald:')}: machine.journald.max_use")


@pytest.mark.parametrize("engine", ["vllm-8b", "llama-70b"])
def test_what_fits_is_not_judged_while_the_hardware_is_not_known(project: Project, engine: str) -> None:
    line = project.change("all.yml", "    cores: 12", "    cores: twelve")
    project.change("all.yml", "  timezone: Etc/UTC", "  timezone: Etc/UTX")
    files = f"      files: [{{file: model.safetensors, size: 9080000000, sha256: {HASH}}}]\n"
    project.change("all.yml", "      files: []\n", files)
    cores, zone = project.problems(**{f"engines.{engine}.enabled": "true", f"engines.{engine}.memory": "1G"})
    assert cores.startswith(f"group_data/all.yml:{line}: machine.hardware.cores: must be a whole number")
    assert "machine.timezone" in zone


def test_a_port_used_twice_is_told_for_engines_and_for_ssh(project: Project) -> None:
    project.write(
        "workstation.yml",
        "engines:\n"
        f"  other: {{runtime: container, image: '{IMAGE}', model: llama-3.1-8b-q4, port: 8002}}\n"
        "firewall: {ssh: {port: 8002}}\n",
    )
    project.write("hosts.yml", WORKSTATION)
    line = project.line("all.yml", "port: 8002")
    assert project.problems() == [
        f"group_data/all.yml:{line}: engines.llama-70b.port: 8002 is already the port of firewall.ssh; "
        "write another, such as 8000",
        "group_data/workstation.yml:2: engines.other.port: 8002 is already the port of firewall.ssh; "
        "write another, such as 8000",
    ]


def test_a_native_engine_without_its_archive_is_told_where_the_archive_belongs(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    project.write("workstation.yml", "engines: {llama-8b: {archive: null}}\n")
    assert project.problems() == [
        "group_data/workstation.yml:1: engines.llama-8b.archive: is missing "
        "although the engine is enabled; write url and sha256 of it, or enabled: false"
    ]


def test_engines_that_are_off_may_share_a_port(project: Project) -> None:
    project.change("all.yml", "    port: 8004", "    port: 8002")
    assert project.problems() == []


def test_an_alternative_to_nothing_is_told(project: Project) -> None:
    (problem,) = project.problems(**{"engines.llama-8b.alternatives": "slow"})
    assert problem.endswith("'slow' is the group of this engine alone; write it at another engine too, or null")
    (problem,) = project.problems(**{"engines.llama-8b.alternatives": "cart"})
    assert problem.endswith("'cart' is the group of this engine alone; write 'card'")
    assert project.problems(**{"engines.qwen3-vl-4b.alternatives": "slow"}) == []


def test_two_engines_of_one_name_are_refused(project: Project) -> None:
    line = project.change("all.yml", "  qwen3-vl-4b:\n", "  llama-8b:\n")
    first = min(project.lines("all.yml", "llama-8b:"))
    assert project.problems() == [
        f"group_data/all.yml:{line}: engines.llama-8b: stands here a second time (first on line {first}); "
        "remove one of the two"
    ]


def test_a_missing_file_is_told(project: Project) -> None:
    project.path("all.yml").unlink()
    project.path("hosts.yml").unlink()
    assert project.problems() == [
        "group_data/all.yml: the file is missing; create it or restore it",
        "group_data/hosts.yml: the file is missing; create it or restore it",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "machine:\n\ttimezone: Etc/UTC\n",
            ":2: a tab stands where YAML wants spaces; replace it by spaces",
        ),
        (
            "machine: [\n",
            ":2: is not YAML here (expected the node content, but found '<stream end>'); "
            "check indentation, colons and quotes on this line and the one before",
        ),
        (
            "machine:\n  timezone: a: b\n",
            ":2: is not YAML here (mapping values are not allowed here); "
            "check indentation, colons and quotes on this line and the one before",
        ),
        ("- a\n- b\n", ":1: must be a mapping, not ['a', 'b']; write lines of the form 'key: value'"),
        ("just words\n", ":1: must be a mapping, not 'just words'; write lines of the form 'key: value'"),
        ("a: &x 1\nb: *x\n", ":2: aliases (*name) are not supported; write the value out"),
        ("a: !!python/none\n", ":1: a: the tag !!python/none is not supported; remove it"),
        ("a: !!set {b}\n", ":1: a: the tag !!set is not supported; remove it"),
        ("a: !secret x\n", ":1: a: the tag !secret is not supported; remove it"),
        ("a: 0b_\n", ":1: a: the value '0b_' cannot be read; write it in quotes"),
        ("a: !!bool x\n", ":1: a: the value 'x' cannot be read; write it in quotes"),
        ("a: !!int ''\n", ":1: a: the value '' cannot be read; write it in quotes"),
        ("a: !!float ''\n", ":1: a: the value '' cannot be read; write it in quotes"),
        ("a: !!map x\n", ":1: a: the tag !!map is not supported; remove it"),
        (f"a: 0x{'f' * 5000}\n", ":1: a: is too large for a number; write a smaller one, or text in quotes"),
        (f"a: {'[' * 2000}{']' * 2000}\n", ":1: more than 50 levels lie in each other; write it with fewer"),
        ('a: "\\ud800"\n', r":1: a: the value '\ud800' holds half of a character (a surrogate); write whole ones"),
        ('"\\ud800": 1\n', r":1: the key '\ud800' holds half of a character (a surrogate); write whole ones"),
        ("a: .nan\n", ":1: a: must be a finite number; write one"),
        ("yes: 1\n", ':1: yes: YAML does not read this key as text; write "yes"'),
        ("? [a]\n: 1\n", ":1: a key must be a single word; write 'key: value'"),
        ("a: 1\n\x00", ":2: has the character U+0000, which YAML does not allow; remove it"),
        ("a: 1\n\nb: \x7f\n", ":3: has the character U+007F, which YAML does not allow; remove it"),
        ("a: 1\n---\nb: 1\n", f":2: {SECOND}"),
        ("a: 1\n...\nb: 1\n", f":3: {SECOND}"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_told(project: Project, text: str, sentence: str) -> None:
    project.write("all.yml", text)
    assert project.problems() == [f"group_data/all.yml{sentence}"]


def test_a_file_that_is_no_text_is_told_with_its_line(project: Project) -> None:
    sentence = "which is not UTF-8 text; save the file as UTF-8"
    project.path("all.yml").write_bytes(b"\xff\xfe\x00m")
    assert project.problems() == [f"group_data/all.yml:1: has the byte 0xff, {sentence}"]
    project.path("all.yml").write_bytes("a: 1\n# Größe\n".encode() + "b: ü\n".encode("latin-1"))
    assert project.problems() == [f"group_data/all.yml:3: has the byte 0xfc, {sentence}"]


def test_a_file_that_is_a_folder_is_told(project: Project) -> None:
    project.path("all.yml").unlink()
    project.path("all.yml").mkdir()
    assert project.problems() == ["group_data/all.yml: cannot be read (Is a directory); make it readable"]


def test_all_mistakes_of_all_files_and_machines_are_told_at_once_and_each_once(project: Project) -> None:
    one = project.change("all.yml", "  timezone: Etc/UTC", "  timezone: Etc/UTX")
    two = project.change("all.yml", "    model: llama-3.3-70b-q4", "    model: llama-3.3-70b")
    project.write("workstation.yml", "storage:\n  backup:\n    mode: 0700\n")
    project.write(
        "hosts.yml",
        WORKSTATION + "  second:\n    address: 192.168.1.21\n    groups: [workstation, desk]\n"
        "    settings:\n      firewall:\n        enabled: maybe\n",
    )
    assert project.problems() == [
        f"group_data/all.yml:{one}: machine.timezone: 'Etc/UTX' is not a known time zone; write Etc/UTC",
        f"group_data/all.yml:{two}: engines.llama-70b.model: 'llama-3.3-70b' is not in models.catalogue; "
        "write 'llama-3.3-70b-q4'",
        "group_data/hosts.yml:8: hosts.second.groups.1: there is no group_data/desk.yml; create it",
        "group_data/hosts.yml:11: hosts.second.settings.firewall.enabled: "
        "must be true or false, not 'maybe'; write one of the two without quotes",
        "group_data/workstation.yml:3: storage.backup.mode: is the number 448, "
        'because 0700 stands without quotes; write "0700"',
    ]


MACHINES = {
    "unknown key": ("    user: owner", "    usr: owner", "usr", "unknown key; write 'user'"),
    "address that is none": (
        "192.168.1.20",
        "192.168.1.300",
        "address",
        "'192.168.1.300' is not an address; write an IP address, a host name, or \"@local\"",
    ),
    "address left out": (
        "    address: 192.168.1.20",
        "    port: 22",
        "address",
        'is missing; add it: IP address or host name, or "@local" for the machine that runs the deploy itself.',
    ),
    "group of the lab": (
        "[workstation]",
        "[lab]",
        "groups.0",
        "'lab' is a group of the lab alone; write another one",
    ),
    "group without file": (
        "[workstation]",
        "[workstatoin]",
        "groups.0",
        "there is no group_data/workstatoin.yml; create it, or write 'workstation'",
    ),
    "group of all": (
        "[workstation]",
        "[all]",
        "groups.0",
        "'all' is not a group; remove it, group_data/all.yml holds for every machine",
    ),
    "key in nobody's home": (
        "    user: owner",
        "    identity_file: ~nobody-here/key",
        "identity_file",
        "'~nobody-here/key' is in the home of a user whom this computer does not have; write another path",
    ),
    "host keys in nobody's home": (
        "    user: owner",
        "    known_hosts_file: ~nobody-here/key",
        "known_hosts_file",
        "'~nobody-here/key' is in the home of a user whom this computer does not have; write another path",
    ),
    "port as text": (
        "    user: owner",
        '    port: "22"',
        "port",
        'must be a number, and "22" in quotes is text; write 22',
    ),
    "settings left empty": (
        "    user: owner",
        "    settings:",
        "settings",
        f"must be a mapping, and nothing (null) is written; {LINES}",
    ),
}


@pytest.mark.parametrize("mistake", MACHINES)
def test_a_mistake_about_a_machine_is_told_in_hosts_yml(project: Project, mistake: str) -> None:
    old, new, key, sentence = MACHINES[mistake]
    project.write("hosts.yml", WORKSTATION)
    written = project.change("hosts.yml", old, new)
    line = project.line("hosts.yml", "workstation:") if "is missing" in sentence else written
    assert f"group_data/hosts.yml:{line}: hosts.workstation.{key}: {sentence}" in project.problems()


def test_only_one_machine_can_be_this_one(project: Project) -> None:
    project.write("hosts.yml", 'hosts:\n  a: {address: "@local"}\n  b: {address: "@local"}\n')
    assert project.problems() == [
        'group_data/hosts.yml:3: hosts.b.address: "@local" is already the address of a; write an address to reach it by'
    ]


def test_the_backup_is_told_to_hold_the_models(project: Project) -> None:
    assert project.problems(**{"storage.models.path": "/mnt/backups"}) == []
    (problem,) = project.problems(**{"storage.models.path": "/mnt/backup/models"})
    assert problem.endswith(
        "storage.backup.path: /mnt/backup and the folder of the models, /mnt/backup/models, hold each other; "
        "write one apart from it"
    )


def test_only_one_machine_can_have_an_address_and_port(project: Project) -> None:
    project.write(
        "hosts.yml",
        "hosts:\n  a: {address: Rig.example.org}\n  b: {address: rig.example.org, port: 22}\n"
        "  c: {address: rig.example.org, port: 2222}\n",
    )
    sentence = "rig.example.org, port 22, is already the address of a; write another one"
    assert project.problems() == [f"group_data/hosts.yml:3: hosts.b.address: {sentence}"]


def test_only_one_container_can_be_named_like_that_of_grafana(project: Project) -> None:
    grafana = {"monitoring.grafana.enabled": "true"}
    line = project.change("all.yml", "  llama-70b:\n", "  grafana:\n")
    sentence = "is the name of the container of monitoring.grafana; give the engine another name"
    assert project.problems(**grafana) == [f"group_data/all.yml:{line}: engines.grafana: {sentence}"]
    assert project.problems() == []
    assert project.problems(**grafana, **{"engines.grafana.enabled": "false"}) == []


def test_a_machine_that_is_named_like_a_group_of_all_is_refused(project: Project) -> None:
    project.write("hosts.yml", "hosts:\n  all: {address: 10.0.0.1}\n")
    assert project.problems() == [
        "group_data/hosts.yml:2: hosts.all: 'all' is not a usable name of a machine; "
        "write lower-case letters, digits, - and . only, other than all and lab"
    ]


WORTHLESS: list[Any] = [
    None,
    True,
    0,
    -1,
    10**30,
    1.5,
    "",
    "x",
    "0755",
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    {"a": {"b": []}},
]
SHIPPED = plain(read(ROOT / "group_data" / "all.yml", "all.yml"))


def paths(value: Any, above: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every path in the settings."""
    yield above
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, member in members:
        yield from paths(member, (*above, step))


def replaced(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The settings with `junk` in one place."""
    if not path:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], junk)
    return copy


@settings(examples, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.sampled_from(list(paths(SHIPPED))[1:]), some.sampled_from(WORTHLESS))
def test_whatever_stands_anywhere_is_accepted_or_told_in_a_sentence_of_ours(
    project: Project, path: tuple[str | int, ...], junk: Any
) -> None:
    project.write("all.yml", yaml.safe_dump(replaced(SHIPPED, path, junk)))
    for problem in project.problems():
        assert problem.startswith("group_data/all.yml:")
        assert "; " in problem
        for noise in ("Input should", "correct it", "tagged-union", "function-", "[key]", "Value error"):
            assert noise not in problem


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("!!bool x", "'!!bool x' is not a known time zone; write one such as Europe/Berlin"),
        (f"0x{'f' * 5000}", f"'0x{'f' * 54}... is not a known time zone; write one such as Europe/Berlin"),
        ("\udcff", "is not UTF-8 text; write it as such"),
    ],
)
def test_whatever_is_typed_on_the_command_line_is_told(project: Project, typed: str, sentence: str) -> None:
    assert project.problems(**{"machine.timezone": typed}) == [f"--data: machine.timezone: {sentence}"]


def test_a_long_value_is_not_shown_whole(project: Project) -> None:
    project.change("all.yml", "  timezone: Etc/UTC", f"  timezone: {'x' * 500}")
    (problem,) = project.problems()
    assert "x" * 56 + "..." in problem
    assert "x" * 57 not in problem
