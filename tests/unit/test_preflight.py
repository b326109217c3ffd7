"""Preflight stops a deploy that could not succeed, and says what to do, in one sentence each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rig.facts.preflight import MARKER, LoginFact, MachineFact
from rig.gpu.cards import Card
from rig.preflight.machine import Listener, Login, Machine, Mounted, key_bodies
from rig.preflight.problems import (
    asked_disks,
    asked_files,
    asked_images,
    asked_paths,
    human,
    login_problems,
    problems,
)
from rig.settings.firewall import Ssh
from tests.unit.sample import ED25519, IMAGE, RSA, Here, folder, settings

GIB = 1 << 30
OWNER = Login(uid=1000, user="owner", sudo=True, source="192.168.1.5", port=22)
DISK = {"source": "LABEL=models", "filesystem": "ext4", "options": ["noatime"]}
ZONE = {"/usr/share/zoneinfo/Etc/UTC": 114}
FINE = Machine(
    os_id="debian",
    os_version="13",
    os_codename="trixie",
    architecture="amd64",
    free={"/": 100 * GIB, "/mnt/models": 100 * GIB, "/mnt/backup": 100 * GIB},
    device={"/": "1", "/mnt/models": "1", "/mnt/backup": "1"},
    mounts={},
    sizes=ZONE,
)
BIG = f"{folder('llama-3.3-70b-q4')}/Llama-3.3-70B-Instruct-Q4_K_M.gguf"


def _said(machine: Machine, changes: dict[str, Any] | None = None) -> list[str]:
    return problems(settings(changes), machine)


def _only(machine: Machine, changes: dict[str, Any] | None = None) -> str:
    (sentence,) = _said(machine, changes)
    return sentence


def test_a_machine_that_is_fine_is_let_through() -> None:
    assert _said(FINE) == []


@pytest.mark.parametrize(
    ("system", "codename"),
    [(("debian", "12"), "bookworm"), (("debian", "13"), "trixie"), (("ubuntu", "24.04"), "noble")],
)
def test_supported_systems_are_let_through(system: tuple[str, str], codename: str) -> None:
    assert _said(replace(FINE, os_id=system[0], os_version=system[1], os_codename=codename)) == []


@pytest.mark.parametrize("system", [("debian", "11"), ("ubuntu", "22.04"), ("fedora", "42"), ("debian", "")])
def test_another_system_is_refused_with_those_that_work(system: tuple[str, str]) -> None:
    sentence = _only(replace(FINE, os_id=system[0], os_version=system[1]))
    assert sentence.startswith(f"{system[0]} {system[1]} is not supported")
    assert sentence.endswith("install one of: Debian 12, Debian 13, Ubuntu 24.04")


def test_a_switch_between_alternatives_is_not_disturbed() -> None:
    said = "rig-mode (PID 13) is switching between alternatives; run again when it is done"
    assert _only(replace(FINE, switch="13")) == said


def test_another_architecture_is_refused() -> None:
    assert "arm64 is not supported" in _only(replace(FINE, architecture="arm64"))


def test_the_distributions_compose_is_refused_where_it_is_too_old() -> None:
    changes = {"containers/source": "distribution"}
    assert "write 'containers.source: vendor'" in _only(replace(FINE, os_version="12"), changes)
    assert _said(FINE, changes) == []


def test_a_time_zone_that_the_machine_does_not_know_is_refused() -> None:
    """Debian 13 has the old names in a package of their own."""
    changes = {"machine/timezone": "US/Eastern"}
    assert _only(FINE, changes) == (
        "the machine knows no time zone US/Eastern (machine.timezone); write its present name, "
        "or install tzdata, and tzdata-legacy for old names"
    )
    zone = "/usr/share/zoneinfo/US/Eastern"
    assert zone in map(str, asked_files(settings(changes)))
    assert _said(replace(FINE, sizes={zone: 3552}), changes) == []


@pytest.mark.parametrize("folder", ["models", "backup"])
def test_a_folder_that_must_be_a_mount_and_is_none_is_refused(folder: str) -> None:
    changes = {f"storage/{folder}/must_be_mount": True}
    sentence = _only(FINE, changes)
    assert sentence.startswith(f"/mnt/{folder} is not a mount")
    assert "mount the disk" in sentence
    assert _said(replace(FINE, mounts={f"/mnt/{folder}": Mounted("/dev/sdb1")}), changes) == []


def test_a_folder_whose_disk_the_deploy_mounts_itself_needs_no_mount_yet() -> None:
    assert _said(FINE, {"storage/models/must_be_mount": True, "storage/models/mount": DISK}) == []


@pytest.mark.parametrize(
    ("there", "disks"),
    [
        (Mounted("/dev/sdb1"), {"/dev/disk/by-label/models": "/dev/sdb1"}),
        # A file system on two devices, to the other of which the label leads.
        (Mounted("/dev/sdb1", "0a1b", "models"), {"/dev/disk/by-label/models": "/dev/sdc1"}),
    ],
)
def test_a_folder_that_has_the_disk_of_the_settings_is_let_through(there: Mounted, disks: dict[str, str]) -> None:
    changes = {"storage/models/mount": DISK}
    assert asked_disks(settings(changes)) == ("/dev/disk/by-label/models",)
    assert _said(replace(FINE, mounts={"/mnt/models": there}, disks=disks), changes) == []


def test_a_folder_that_has_another_disk_is_refused_with_what_takes_that_away() -> None:
    disks = {"/dev/disk/by-label/models": "/dev/sdc1", "/dev/disk/by-uuid/0a1b": "/dev/disk/by-uuid/0a1b"}
    there = {"/mnt/models": Mounted("/dev/sdb1", "", "old"), "/mnt/backup": Mounted("/dev/sdb1")}
    machine = replace(FINE, mounts=there, disks=disks)
    assert _only(machine, {"storage/models/mount": DISK}) == (
        "/mnt/models has /dev/sdb1 mounted, and storage.models.mount.source asks for LABEL=models; stop what uses it "
        "and unmount it (sudo systemctl stop 'rig-*@*' mnt-models.mount), copy what you want to keep, and deploy "
        "again"
    )
    sentence = _only(machine, {"storage/backup/mount": {**DISK, "source": "UUID=0a1b"}})
    assert "asks for UUID=0a1b" in sentence
    assert "(sudo systemctl stop mnt-backup.mount)" in sentence


def test_a_disk_that_is_too_small_is_named_with_what_is_missing() -> None:
    small = replace(FINE, free=dict.fromkeys(FINE.free, 20 * GIB))
    sentence = _only(small)
    assert "/mnt/models" in sentence
    assert "has 20.0 GiB free and 54.2 GiB are needed" in sentence
    assert "39.6 GiB for the model llama-3.3-70b-q4" in sentence
    assert "2.0 GiB for packages (of storage.system_free), 8.0 GiB for images (" in sentence
    assert sentence.endswith("free the space, or put storage.models on a larger disk")


def test_what_is_there_already_needs_no_space_again() -> None:
    assert _said(replace(FINE, free=dict.fromkeys(FINE.free, 20 * GIB), sizes={**ZONE, BIG: 42520398816})) == []


@pytest.mark.parametrize("place", [f"{BIG}.part", "/mnt/models/llama-3.3-70b-q4/Llama-3.3-70B-Instruct-Q4_K_M.gguf"])
def test_what_was_begun_or_put_there_by_hand_needs_no_space_again(place: str) -> None:
    small = dict.fromkeys(FINE.free, 20 * GIB)
    assert place in map(str, asked_files(settings()))
    assert _said(replace(FINE, free=small, sizes={**ZONE, place: 42520398816})) == []
    assert "4.6 GiB for the model llama-3.3-70b-q4" in _only(
        replace(FINE, free=dict.fromkeys(FINE.free, 18 * GIB), sizes={**ZONE, place: 42520398816 - 46 * GIB // 10})
    )


@pytest.mark.parametrize(
    ("there", "needed"),
    [
        ({}, "10.0 GiB are needed (2.0 GiB for packages (of storage.system_free), 8.0 GiB for images ("),
        ({"docker": True, "missing_images": frozenset({IMAGE})}, "8.0 GiB are needed (8.0 GiB for images ("),
        ({"docker": True}, "1.0 GiB are needed (1.0 GiB for what grows by itself)"),
    ],
)
def test_what_a_deploy_took_of_the_systems_disk_is_not_asked_for_again(there: dict[str, Any], needed: str) -> None:
    full = {**FINE.free, "/": GIB - 1}
    own = {**FINE.device, "/": "2"}
    machine = replace(FINE, free=full, device=own, **there)
    assert needed in _only(machine)
    fitting = int(float(needed.partition(" GiB")[0]) * GIB)
    assert _said(replace(machine, free={**full, "/": fitting})) == []


def test_an_image_is_asked_for_once_and_none_of_an_engine_that_is_off() -> None:
    three = {"runtime": "container", "image": IMAGE, "model": "llama-3.3-70b-q4", "port": 8009}
    assert asked_images(settings({"engines/three": three})) == (IMAGE,)
    assert asked_images(settings({"engines/one/enabled": False})) == ()


def test_a_disk_of_their_own_is_measured_for_the_models_alone() -> None:
    machine = replace(
        FINE,
        free={"/": 11 * GIB, "/mnt/models": 45 * GIB, "/mnt/backup": 11 * GIB},
        device={"/": "1", "/mnt/models": "2", "/mnt/backup": "1"},
    )
    assert _said(machine) == []
    sentence = _only(replace(machine, free={**machine.free, "/mnt/models": 30 * GIB}))
    assert sentence.startswith("the file system of /mnt/models has 30.0 GiB free")


def test_a_disk_that_is_not_mounted_yet_is_not_measured() -> None:
    changes = {"storage/models/mount": DISK}
    machine = replace(FINE, free=dict.fromkeys(FINE.free, 11 * GIB))
    assert _said(machine, changes) == []
    there = {"/mnt/models": Mounted("/dev/sdb1", "", "models")}
    mounted = replace(machine, mounts=there, device={**FINE.device, "/mnt/models": "2"})
    assert "/mnt/models" in _only(mounted, changes)


def test_a_model_of_two_engines_is_counted_once() -> None:
    machine = replace(FINE, free=dict.fromkeys(FINE.free, 51 * GIB))
    assert _said(machine, {"engines/two/model": "llama-3.3-70b-q4"}) == []


def _listens(process: str, unit: str = "", port: int = 8002) -> Machine:
    return replace(FINE, listeners=(Listener("127.0.0.1", port, process, unit),))


def test_a_port_held_by_a_stranger_is_named_with_its_holder() -> None:
    sentence = _only(_listens("nginx", "nginx.service"))
    assert sentence.startswith("port 8002 of engine one is held by nginx (nginx.service) on 127.0.0.1")
    assert "engines.one.port" in sentence
    assert "held by another program on" in _only(_listens(""))


def test_a_port_of_both_families_is_told_once_for_each_address() -> None:
    both = tuple(Listener(address, 8002, "nginx", "") for address in ("0.0.0.0", "0.0.0.0", "[::]"))
    assert len(_said(replace(FINE, listeners=both))) == 2


def test_our_own_engines_hold_their_ports_rightly() -> None:
    container = replace(_listens("docker-proxy"), published={"rig-one": frozenset({8002})})
    assert _said(container) == []
    assert _said(_listens("llama-server", "rig-native@two.service", port=8003)) == []


@pytest.mark.parametrize("published", [{"rig-one": frozenset({8002})}, {}])
def test_a_port_that_docker_holds_itself_is_ours_when_a_container_of_ours_has_it(published: dict[str, Any]) -> None:
    """Without its proxy, as owners have it: userland-proxy false."""
    said = _said(replace(_listens("dockerd", "docker.service"), published=published))
    assert len(said) == (0 if published else 1)


def test_a_port_of_the_gateway_is_free_or_its_own() -> None:
    """An owner's own HAProxy has other ports, or is in the way; its unit is never touched."""
    assert _said(_listens("haproxy", "rig-gateway.service", port=8080)) == []
    assert _said(_listens("haproxy", "haproxy.service", port=80)) == []
    sentence = _only(_listens("haproxy", "haproxy.service", port=8080))
    assert sentence.startswith("port 8080 of gateway is held by haproxy (haproxy.service) on 127.0.0.1; stop it, or ")
    assert "gateway.metrics.port" in _only(_listens("haproxy", "haproxy.service", port=8405))


def test_engines_that_swap_ports_are_let_through_as_the_old_ones_make_way_first() -> None:
    assert _said(_listens("llama-server", "rig-native@old.service")) == []
    swapped = replace(_listens("docker-proxy", port=8003), published={"rig-old": frozenset({8003})})
    assert _said(swapped) == []


def test_a_strangers_container_is_not_taken_for_ours() -> None:
    assert "docker-proxy" in _only(_listens("docker-proxy", "docker.service"))


def test_who_took_the_port_of_our_stopped_container_is_told() -> None:
    taken = replace(_listens("nginx", "nginx.service"), published={"rig-one": frozenset({8002})})
    assert "held by nginx" in _only(taken)


def test_a_port_of_an_engine_that_is_off_does_not_matter() -> None:
    assert _said(_listens("nginx"), {"engines/one/enabled": False}) == []


def test_every_reason_is_given_at_once() -> None:
    bad = replace(_listens("nginx"), os_id="fedora", architecture="arm64", free=dict.fromkeys(FINE.free, GIB))
    assert len(_said(bad, {"storage/models/must_be_mount": True})) == 5


@pytest.mark.parametrize(
    ("login", "password", "fine"),
    [
        (OWNER, False, True),
        (replace(OWNER, uid=0, user="root", sudo=False), False, True),
        (replace(OWNER, sudo=False), True, True),
        (replace(OWNER, sudo=False), False, False),
    ],
)
def test_a_login_must_be_root_or_become_root(login: Login, password: bool, fine: bool) -> None:
    said = login_problems(login, sudo_password=password, ssh=None)
    assert said == [] if fine else "/etc/sudoers.d/rig" in said[0] and "--same-sudo-password" in said[0]


@pytest.mark.parametrize(
    ("source", "networks", "fine"),
    [
        ("192.168.1.5", ["192.168.0.0/16"], True),
        ("192.168.1.5", ["10.0.0.0/8", "fd00::/8"], False),
        ("192.168.1.5", None, True),
        (None, ["10.0.0.0/8"], True),
        ("::ffff:10.0.0.5", ["10.0.0.0/8"], True),
        ("fe80::1%eth0", ["fe80::/10"], True),
        ("2001:db8::1", ["fe80::/10", "0.0.0.0/0"], False),
    ],
)
def test_nobody_locks_themselves_out(source: str | None, networks: list[str] | None, fine: bool) -> None:
    ssh = Ssh(port=22, networks=tuple(networks)) if networks else None
    said = login_problems(replace(OWNER, source=source), sudo_password=False, ssh=ssh)
    assert bool(said) is not fine
    assert fine or ("lock you out" in said[0] and "add '" in said[0])


@pytest.mark.parametrize(
    ("keys_only", "login", "fine"),
    [
        (True, OWNER, False),
        (True, replace(OWNER, keys=frozenset({"AAAA"})), True),
        (True, replace(OWNER, source=None, port=None), True),
        (None, OWNER, True),
        (False, OWNER, True),
    ],
    ids=["a password", "a key", "on the machine itself", "the machine decides", "passwords are wanted"],
)
def test_nobody_who_logs_in_with_a_password_is_locked_out(keys_only: bool | None, login: Login, fine: bool) -> None:
    said = login_problems(login, sudo_password=False, ssh=None, keys_only=keys_only)
    assert said == [] if fine else "ssh-copy-id" in said[0] and "keys_only: null" in said[0]


def test_nobody_is_locked_out_by_another_port() -> None:
    ssh = Ssh(port=2222, networks=("192.168.0.0/16",))
    (said,) = login_problems(OWNER, sudo_password=False, ssh=ssh)
    assert said == (
        "you are connected to the machine's port 22, and the firewall would open 2222 only and lock you out; "
        "write 'port: 22' in firewall.ssh"
    )
    assert login_problems(OWNER, sudo_password=False, ssh=None) == []
    assert login_problems(replace(OWNER, source=None, port=None), sudo_password=False, ssh=ssh) == []


MINE, OTHER = f"{ED25519} me@laptop", f"{RSA} other"


@pytest.mark.parametrize(
    ("listed", "fine"),
    [(None, True), ([MINE], True), ([OTHER, ED25519], True), ([OTHER], False), ([], False)],
)
def test_nobody_is_locked_out_by_a_list_without_a_key_that_logs_in(listed: list[str] | None, fine: bool) -> None:
    users = settings({"machine/users": {"owner": {"authorized_keys": listed}}}).machine.users
    login = replace(OWNER, keys=key_bodies(f'# {OTHER}\nfrom="10.0.0.0/8",no-pty {MINE}\n'))
    said = login_problems(login, sudo_password=False, ssh=None, users=users)
    assert bool(said) is not fine
    assert fine or said[0].startswith("machine.users.owner.authorized_keys has none of the keys that log in as 'owner'")
    without_ssh = replace(login, source=None, port=None)
    assert login_problems(without_ssh, sudo_password=False, ssh=None, users=users) == []
    assert login_problems(replace(login, keys=frozenset()), sudo_password=False, ssh=None, users=users) == []
    assert login_problems(login, sudo_password=False, ssh=None, users={}) == []


def test_the_login_is_asked_for_the_keys_of_its_own_home(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/authorized_keys").write_text(f"{MINE}\n")
    here = Here(lambda command: command.replace("home=$(", f"home={tmp_path}; : $("))
    assert here.get_fact(LoginFact).keys == key_bodies(MINE) != frozenset()
    nowhere = Here(lambda command: command.replace("home=$(", "home=/nowhere; : $("))
    assert nowhere.get_fact(LoginFact).keys == frozenset()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (GIB, "1.0 GiB"), (1536 * GIB, "1.5 TiB")],
)
def test_sizes_are_told_as_people_read_them(size: int, text: str) -> None:
    assert human(size) == text


def test_what_is_measured_is_what_the_settings_name() -> None:
    made = settings({"storage/backup/path": "/srv/backup"})
    assert asked_paths(made) == ("/", "/var", "/opt", "/boot", "/mnt/models", "/srv/backup")
    rooted = settings({"containers/daemon/data-root": "/srv/docker"})
    assert asked_paths(rooted)[-1] == "/srv/docker"
    assert str(asked_files(made)[0]) == BIG


@pytest.mark.parametrize(
    ("noise", "said"),
    [
        ("echo hello", "hello"),
        ("printf hello", "hello"),
        ("echo a; echo; echo b", "a b"),
        ("trap 'echo bye' EXIT", "bye"),
    ],
)
def test_a_login_shell_that_prints_is_refused_with_what_it_prints(noise: str, said: str) -> None:
    login = Here(lambda command: f"{noise}\n{command}").get_fact(LoginFact)
    quiet = Here().get_fact(LoginFact)
    assert (login.chatter, quiet.chatter) == (said, "")
    assert replace(login, chatter="") == quiet
    (sentence,) = login_problems(replace(OWNER, chatter=login.chatter), sudo_password=False, ssh=None)
    assert sentence.startswith(f"the login shell of 'owner' prints '{said}' with every command")
    assert login_problems(OWNER, sudo_password=False, ssh=None) == []


@pytest.mark.parametrize("output", [[], ["This account is currently not available."], ["", MARKER, "0", "root"]])
def test_a_login_that_runs_no_commands_is_refused(output: list[str]) -> None:
    (sentence,) = login_problems(LoginFact().process(output), sudo_password=False, ssh=None)
    assert sentence.startswith("the login runs no commands, and answers '")


def test_what_the_machine_prints_is_read_as_it_is_meant() -> None:
    machine = MachineFact().process(
        [
            "os\tdebian\t13\ttrixie",
            "arch\tamd64",
            "path\t/\t1000\t5",
            "path\t/mnt/models\t2000\t6",
            "mount\t/mnt/models\t/dev/sdb1\t0a1b\t",
            "disk\t/dev/disk/by-label/models\t/dev/sdb1",
            f"file\t{BIG}\t77",
            'listener\t[::1]:8002\tusers:(("nginx",pid=7,fd=3))\tnginx.service\t',
            'listener\t127.0.0.1:3000\tusers:(("grafana",pid=8,fd=3))\t\t/rig-grafana',
            "listener\t0.0.0.0:22\t\t\t",
            "docker",
            "container\t/rig-one\t8002",
            "container\t/rig-two",
            f"missing\t{IMAGE}",
            "apt\tapt-get\t(PID 12)",
            "switch\t13",
            "held\tdocker-ce\t5:29.1.2-1",
            "card\t0000:01:00.0\t0x2c05\t0x0000004000000000 0x00000043ffffffff 0x000000000014220c",
            "card\t0000:02:00.0\t0x2684\t",
            "kernel\t6.12.107+deb13-amd64",
            "secure\tyes",
        ]
    )
    assert machine == Machine(
        os_id="debian",
        os_version="13",
        os_codename="trixie",
        architecture="amd64",
        free={"/": 1000, "/mnt/models": 2000},
        device={"/": "5", "/mnt/models": "6"},
        mounts={"/mnt/models": Mounted("/dev/sdb1", "0a1b", "")},
        disks={"/dev/disk/by-label/models": "/dev/sdb1"},
        sizes={BIG: 77},
        listeners=(
            Listener("[::1]", 8002, "nginx", "nginx.service"),
            Listener("127.0.0.1", 3000, "grafana", "", "rig-grafana"),
            Listener("0.0.0.0", 22, "", ""),
        ),
        published={"rig-one": frozenset({8002}), "rig-two": frozenset()},
        docker=True,
        missing_images=frozenset({IMAGE}),
        apt_holder="apt-get (PID 12)",
        switch="13",
        held={"docker-ce": "5:29.1.2-1"},
        cards=(Card("0000:01:00.0", 0x2C05, 16 * GIB), Card("0000:02:00.0", 0x2684, 0)),
        kernel="6.12.107+deb13-amd64",
        secure_boot=True,
    )


CARD = Card("0000:01:00.0", 0x2C05)
WITH_CARD = replace(FINE, cards=(CARD,), kernel="6.12.107+deb13-amd64")


def test_an_engine_on_the_card_needs_one_on_the_bus() -> None:
    changes = {"engines/one/gpu_layers": 25}
    sentence = _only(FINE, changes)
    assert sentence.startswith("engine one computes on a graphics card, and no NVIDIA card is on the PCI bus; seat it")
    assert _said(WITH_CARD, changes) == []
    assert _said(FINE, {**changes, "gpu/enabled": False}) == []


def test_a_card_that_the_settings_cannot_drive_is_refused() -> None:
    assert "do not drive" in _only(WITH_CARD, {"gpu/driver/modules": "proprietary"})
    assert "does not know it" in _only(WITH_CARD, {"gpu/driver/version": "565"})
    assert "none of the distribution's" in _only(replace(WITH_CARD, kernel="6.18.1-custom"))
    assert _said(replace(WITH_CARD, kernel="6.18.1-custom"), {"gpu/enabled": False}) == []


@pytest.mark.parametrize(
    ("name", "version", "asked"),
    [
        ("nvidia-open", "590.48.01-1", "gpu.driver.version asks for 595"),
        ("libcuda1", "590.48.01-1", "gpu.driver.version asks for 595"),
        ("libnvidia-container1", "1.19.1-1", "gpu.toolkit.version asks for 1.20.0-1"),
    ],
)
def test_a_hold_that_keeps_another_version_is_told_with_the_remedy(name: str, version: str, asked: str) -> None:
    held = replace(WITH_CARD, held={name: version})
    assert _only(held) == (
        f"{name} is on hold at {version}, and {asked}; let it go (sudo apt-mark unhold {name}), or write the version "
        "that is there"
    )
    assert _said(held, {"gpu/enabled": False}) == []


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("nvidia-open", "595.91.07-1"),
        ("libnvidia-container1", "1.20.0-1"),
        ("nvidia-cuda-toolkit", "12.4.131~12.4.1-2"),
        ("nvidia-kernel-common", "20240109+1"),
        ("linux-image-amd64", "6.12.107-1"),
        ("docker-ce", "5:29.1.2-1~debian.13~trixie"),
    ],
)
def test_a_hold_that_is_in_nobodys_way_is_let_be(name: str, version: str) -> None:
    assert _said(replace(WITH_CARD, held={name: version})) == []


def test_a_hold_that_keeps_the_engine_away_from_its_version_is_told_with_the_remedy() -> None:
    held = replace(FINE, held={"docker-ce": "5:28.5.2-1", "containerd.io": "1.7.27-1"})
    assert _said(held) == []
    assert _said(held, {"containers/version": "28.5"}) == []
    assert _only(held, {"containers/version": "29"}) == (
        "docker-ce is on hold at 5:28.5.2-1, and containers.version asks for 29; let it go (sudo apt-mark unhold "
        "docker-ce), or write the version that is there"
    )


@pytest.mark.parametrize(("name", "source"), [("runc", "vendor"), ("docker-ce", "distribution")])
def test_a_hold_on_what_the_other_engine_replaces_is_told_with_the_remedy(name: str, source: str) -> None:
    assert _only(replace(FINE, held={name: "1"}), {"containers/source": source}) == (
        f"{name} is on hold, and containers.source: {source} replaces it; let it go (sudo apt-mark unhold {name}), or "
        "write another containers.source"
    )


@pytest.mark.parametrize("text", ["{no", "[]", '"text"', "\x00"])
def test_a_daemon_json_that_cannot_be_added_to_is_refused(text: str) -> None:
    sentence = _only(replace(FINE, daemon=text))
    assert sentence.startswith("/etc/docker/daemon.json is not ")
    assert sentence.endswith("; correct it, or move it away")


@pytest.mark.parametrize("text", ["", "\n", "{}", '{"debug": true}'])
def test_a_daemon_json_that_can_be_added_to_is_let_through(text: str) -> None:
    assert _said(replace(FINE, daemon=text)) == []


def test_a_line_that_should_hold_a_key_and_does_not_is_named() -> None:
    sentence = _only(replace(FINE, malformed_keys=("RIG_KEY_A", "RIG_KEY_B")))
    assert sentence.startswith("RIG_KEY_A, RIG_KEY_B in /etc/rig/keys.env is not one line of at least 43 letters")
    assert "delete the line to have a new key made" in sentence


def test_a_port_of_the_monitoring_that_a_stranger_holds_is_told_with_the_setting_for_another() -> None:
    stranger = Listener("*", 9090, "grafana-agent", "agent.service")
    assert _only(replace(FINE, listeners=(stranger,))) == (
        "port 9090 of monitoring.prometheus is held by grafana-agent (agent.service) on *; "
        "stop it, or give monitoring.prometheus.port another number"
    )


def test_a_port_of_the_monitoring_that_its_own_program_holds_is_as_it_should_be() -> None:
    own = Listener("127.0.0.1", 9100, "prometheus-node", "prometheus-node-exporter.service")
    assert _said(replace(FINE, listeners=(own,))) == []
    assert _said(replace(FINE, listeners=(replace(own, unit="x.service"),)), {"monitoring/enabled": False}) == []


GRAFANA = {"monitoring/grafana/enabled": True, "monitoring/grafana/image": IMAGE}
OURS = Listener("127.0.0.1", 3000, "grafana", "", "rig-grafana")


def test_our_grafana_holds_its_port_rightly_and_another_does_not() -> None:
    assert _said(replace(FINE, listeners=(OURS,)), GRAFANA) == []
    anothers = replace(OURS, container="grafana")
    assert "3000 of monitoring.grafana is held by grafana (container grafana) on" in _only(
        replace(FINE, listeners=(anothers,)), GRAFANA
    )
    packaged = replace(OURS, container="", unit="grafana-server.service")
    assert "(grafana-server.service)" in _only(replace(FINE, listeners=(packaged,)), GRAFANA)


def test_a_program_named_grafana_may_not_hold_another_programs_port() -> None:
    assert "monitoring.prometheus" in _only(replace(FINE, listeners=(replace(OURS, port=9090),)), GRAFANA)
