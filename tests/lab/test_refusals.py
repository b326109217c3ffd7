"""Impossible requests are refused with a helpful message, and the machine is left unchanged."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from lab.machine import CHECKOUT, Lab, program
from lab.spec import HUB_PORT
from rig.settings import load
from tests.lab.conftest import Machines
from tests.lab.overrides import altered

Run = subprocess.CompletedProcess[str]
Refused = Callable[..., str]

ZEROS = "0" * 64

# Everything that a deploy could change; without the effects of every login and of passing time.
LOOK = r"""
dpkg-query -W
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/log -o -path /var/lib/systemd \
  -o -path /usr/share -o -path /usr/lib \) -prune -o -printf '%p %y %m %u %g %s %T@ %l\n'
systemctl list-unit-files --no-legend --no-pager
ls -A /mnt
command -v nft >/dev/null && nft list ruleset
true
"""


def look(lab: Lab) -> list[str]:
    """The state of the machine, a line for each item."""
    return lab.sudo(LOOK).stdout.splitlines()


def said(done: Run) -> str:
    """The message of a refused run: no noise of ours, exit code 1."""
    assert done.returncode == 1, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def machine(machines: Machines) -> Iterator[Lab]:
    """A machine right after the installer; tests that change it come last."""
    lab = machines.boot(name="refusing")
    yield lab
    machines.end(lab)


@pytest.fixture
def refused(machine: Lab, tmp_path: Path) -> Refused:
    """Deploys with other settings, another login or --data; checks that it is refused and that nothing changed."""

    def deploy(*data: str, settings: dict[str, Any] | None = None, **connection: Any) -> str:
        before = look(machine)
        environment = altered(machine, tmp_path / "lab", settings, **connection)
        done = machine.deploy("-y", *(word for value in data for word in ("--data", value)), environment=environment)
        assert look(machine) == before
        return said(done)

    return deploy


# Before any connection


@pytest.mark.parametrize("command", ["deploy.py", "debug-inventory"])
def test_a_mistake_in_the_settings_is_told_although_the_machine_is_off(
    switched_off: Lab, tmp_path: Path, command: str
) -> None:
    environment = altered(switched_off, tmp_path / "lab", {"machine": {"timezon": "Etc/UTC"}})
    done = subprocess.run(
        [str(program("pyinfra")), "inventory.py", command],
        cwd=CHECKOUT,
        env=switched_off.environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "hosts.rig-lab.settings.machine.timezon: unknown key; write 'timezone'" in done.stderr
    assert "Connecting" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_machine_that_is_off_does_not_answer(switched_off: Lab) -> None:
    assert (
        f"[rig-lab] {switched_off.address} does not answer on port 22; "
        "is the machine switched on, and are its address and port in hosts.yml right?\n"
    ) in said(switched_off.deploy("-y"))


@pytest.fixture
def switched_off(machine: Lab) -> Iterator[Lab]:
    machine.stop()
    yield machine
    machine.start()


# The login


def test_a_closed_port_does_not_answer(refused: Refused) -> None:
    told = refused(address="127.0.0.1", port=1)
    assert "127.0.0.1 does not answer on port 1; is the machine switched on, " in told


def test_an_address_that_no_name_server_knows_is_told(refused: Refused) -> None:
    assert "no address is known for 'rig.invalid'; correct it in hosts.yml" in refused(address="rig.invalid")


def test_a_wrong_host_key_is_refused_with_the_command_that_forgets_it(
    machine: Lab, refused: Refused, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    other = _new_key(tmp_path / "other")
    known.write_text(f"{machine.address} {other}\n")
    told = refused(known_hosts_file=str(known))
    assert f"Host key for {machine.address} does not match.); if you know why" in told
    assert f"(ssh-keygen -f {known} -R {machine.address})" in told
    assert told.count("ssh-keygen") == 1

    forget = told.partition("forget the old one (")[2].partition(")")[0]
    subprocess.run(forget.split(), check=True, capture_output=True)
    assert "has no host key of it; log in once and compare it" in refused(known_hosts_file=str(known))
    assert known.read_text() == ""


def test_a_key_that_the_machine_does_not_know_is_named(machine: Lab, refused: Refused, tmp_path: Path) -> None:
    _new_key(tmp_path / "other")
    told = refused(identity_file=str(tmp_path / "other"))
    assert f"rig@{machine.address} does not accept the key {tmp_path}/other; correct user or identity_file" in told


def test_a_key_that_is_not_there_is_named_before_any_connection(switched_off: Lab, tmp_path: Path) -> None:
    done = switched_off.deploy(
        "-y", environment=altered(switched_off, tmp_path / "lab", identity_file=str(tmp_path / "none"))
    )
    assert done.returncode == 2
    assert f"rig-lab: the key to log in with, {tmp_path}/none, is not there; correct identity_file" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Connecting" not in done.stderr


def test_a_login_without_sudo_is_refused_with_the_line_that_grants_it(machine: Lab, refused: Refused) -> None:
    key = (machine.directory / "id_ed25519.pub").read_text().strip()
    machine.sudo(
        "useradd --create-home --shell /bin/bash plain && install -d -m 700 -o plain /home/plain/.ssh && "
        f"echo '{key}' > /home/plain/.ssh/authorized_keys && chown plain /home/plain/.ssh/authorized_keys"
    )
    try:
        told = refused(user="plain")
    finally:
        machine.sudo("userdel --remove plain")
    assert "the login 'plain' is not root and may not use sudo without a password; " in told
    assert "add 'plain ALL=(ALL) NOPASSWD:ALL' to /etc/sudoers.d/rig with visudo" in told
    assert "nothing was changed" in told


# Refused by preflight


def test_a_firewall_that_would_lock_the_operator_out_is_refused(machine: Lab, refused: Refused) -> None:
    told = refused(settings={"firewall": {"ssh": {"networks": ["192.0.2.0/24"]}}})
    operator = machine.network.operator
    assert f"you are connected from {operator}, which firewall.ssh.networks does not hold" in told
    assert f"add '{operator}' to firewall.ssh.networks" in told


def test_a_port_that_another_program_holds_is_refused_with_its_name(machine: Lab, refused: Refused) -> None:
    with _listening(machine, "squatter", "127.0.0.1", 8003):
        told = refused()
    assert "port 8003 of engine llama-8b is held by python3 (squatter.service) on 127.0.0.1; " in told
    assert "stop it, or give engines.llama-8b.port another number" in told
    assert "port 8002" not in told


def test_too_little_space_for_the_system_is_refused_with_both_sizes(refused: Refused) -> None:
    told = refused("storage.system_free=90T")
    needed = "90.0 TiB are needed (2.0 GiB for packages (of storage.system_free), 90.0 TiB for images"
    assert f"GiB free and {needed}" in told
    assert "free the space, or put storage.models on a larger disk" in told


def test_every_reason_is_told_at_once(machine: Lab, refused: Refused) -> None:
    with _listening(machine, "squatter", "127.0.0.1", 8003):
        told = refused("storage.system_free=90T", "storage.backup.must_be_mount=true")
    reasons = [line for line in told.splitlines() if line.strip().startswith("- ")]
    assert len(reasons) == 3


def test_a_folder_that_must_be_a_mount_is_refused_until_it_is_one(machine: Lab, refused: Refused) -> None:
    told = refused("storage.models.must_be_mount=true")
    assert "/mnt/models is not a mount, and storage.models.must_be_mount asks for one; mount the disk, " in told
    machine.sudo("mkdir /mnt/models && mount -t tmpfs -o size=64M tmpfs /mnt/models")
    try:
        done = machine.deploy("--dry", "--data", "storage.models.must_be_mount=true")
    finally:
        machine.sudo("umount /mnt/models && rmdir /mnt/models")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Fetch the models" in done.stderr


def test_a_mount_that_is_too_small_for_the_model_is_refused(machine: Lab, refused: Refused) -> None:
    """The required space is on the file system of the models, and on no other."""
    machine.sudo("mkdir /mnt/models && mount -t tmpfs -o size=256K tmpfs /mnt/models")
    try:
        told = refused()
    finally:
        machine.sudo("umount /mnt/models && rmdir /mnt/models")
    assert "the file system of /mnt/models has 256.0 KiB free and 507.6 KiB are needed" in told
    assert "(507.6 KiB for the model tiny)" in told


def test_an_owners_daemon_json_that_is_not_json_is_refused(machine: Lab, refused: Refused) -> None:
    machine.sudo("mkdir /etc/docker && cat > /etc/docker/daemon.json", input='{"debug": true,\n')
    try:
        told = refused()
    finally:
        machine.sudo("rm -r /etc/docker")
    assert "/etc/docker/daemon.json is not JSON (" in told
    assert "; correct it, or move it away" in told


def test_a_line_that_should_hold_a_key_and_does_not_is_refused(machine: Lab, refused: Refused) -> None:
    machine.sudo("install -d /etc/rig && umask 077 && echo RIG_KEY_LLAMA_8B=short > /etc/rig/keys.env")
    try:
        told = refused()
    finally:
        machine.sudo("rm -r /etc/rig")
    assert "RIG_KEY_LLAMA_8B in /etc/rig/keys.env is not one line of at least 43 letters" in told
    assert "delete the line to have a new key made" in told


def test_a_vendor_key_with_another_fingerprint_stops_everything(refused: Refused) -> None:
    told = refused(settings={"containers": {"vendor": {"key_fingerprints": ["0" * 40]}}})
    assert "has the fingerprint " in told
    assert f"containers.vendor.key_fingerprints pins {'0' * 40}; do not go on before the vendor's own pages" in told
    assert "Beginning operation run" not in told


def test_a_vendor_key_that_cannot_be_had_stops_everything(refused: Refused) -> None:
    told = refused("containers.vendor.key_source=http://127.0.0.1:1/linux")
    assert "the signing key at http://127.0.0.1:1/linux/debian/gpg cannot be had" in told
    assert "check its address" in told
    assert "Beginning operation run" not in told


def test_compose_of_debian_12_is_refused(machines: Machines) -> None:
    lab = machines.boot(release="bookworm", name="refusing-12")
    try:
        before = look(lab)
        told = said(lab.deploy("-y", "--data", "containers.source=distribution"))
        assert look(lab) == before
    finally:
        machines.end(lab)
    assert "Debian 12 has docker-compose 1.29 only" in told
    assert "write 'containers.source: vendor'" in told


# During the changes: on a machine with everything that comes before the models


@pytest.fixture(scope="module")
def without_model(machine: Lab) -> tuple[Lab, Run]:
    """A machine whose deploy stopped at a model with a wrong hash, and the deploy's output."""
    return machine, machine.deploy("-y", "--data", f"models.catalogue.tiny.sha256={ZEROS}")


def test_a_model_with_another_hash_is_told_with_both_hashes(without_model: tuple[Lab, Run]) -> None:
    lab, done = without_model
    told = said(done)
    assert f"has other bytes under this name, with SHA-256 {_hash_of_model(lab)}, and {ZEROS} is pinned" in told


def test_a_model_with_another_hash_is_not_left_lying_and_stops_what_needs_it(without_model: tuple[Lab, Run]) -> None:
    _no_model_and_no_engine(without_model[0])


def test_a_deploy_that_stops_at_a_model_has_closed_the_machine_before(without_model: tuple[Lab, Run]) -> None:
    lab, _ = without_model
    assert "policy drop" in lab.sudo("nft list chain inet rig input").stdout
    assert lab.neighbour(f"timeout 2 bash -c '</dev/tcp/{lab.address}/22'").returncode != 0


def test_a_hub_that_sends_wrong_bytes_is_told_and_nothing_is_left(without_model: tuple[Lab, Run]) -> None:
    lab, _ = without_model
    hub = f"http://{lab.network.services}:{HUB_PORT}"
    with requests.Session() as session:
        session.post(f"{hub}/admin/faults", json={"wrong": True}, timeout=10).raise_for_status()
        try:
            told = said(lab.deploy("-y"))
        finally:
            session.post(f"{hub}/admin/reset", timeout=10).raise_for_status()
    wanted = _hash_of_model(lab)
    wrong = hashlib.sha256(bytes(255 - byte for byte in _model(lab))).hexdigest()
    assert f"sent 519776 bytes with SHA-256 {wrong}, and {wanted} is pinned; they were deleted" in told
    _no_model_and_no_engine(lab)


@pytest.mark.parametrize(
    ("daemon", "reason"),
    [
        # Docker reports a key that is unlike any known one when it checks the file; a word without meaning, when it
        # starts.
        ({"gpu-sharing": "on"}, "the following directives don't match any configuration option: gpu-sharing"),
        ({"storage-driver": "ovrelay2"}, "failed to start daemon: error initializing graphdriver"),
    ],
)
def test_settings_that_docker_does_not_start_with_leave_docker_as_it_was(
    without_model: tuple[Lab, Run], tmp_path: Path, daemon: dict[str, str], reason: str
) -> None:
    lab, _ = without_model
    before = lab.sudo("cat /etc/docker/*").stdout
    told = said(lab.deploy("-y", environment=altered(lab, tmp_path / "lab", {"containers": {"daemon": daemon}})))
    assert reason in told
    assert "correct it there" in told
    assert lab.sudo("cat /etc/docker/*").stdout == before
    assert lab.sudo("systemctl is-active docker.service && docker info --format {{.LoggingDriver}}").stdout == (
        "active\njournald\n"
    )


def test_an_apt_that_runs_is_waited_for_and_then_the_deploy_goes_on(without_model: tuple[Lab, Run]) -> None:
    lab, _ = without_model
    hold = (
        "import fcntl, sys; lock = open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); "
        "print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        ["ssh", "-F", str(lab.ssh_config), "rig-lab", f'sudo -n python3 -c "{hold}"'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    deploy = lab.deploying("-y", "--data", f"models.catalogue.tiny.sha256={ZEROS}")
    assert deploy.stderr is not None
    lines = []
    for line in deploy.stderr:
        lines.append(line)
        if "waiting for" in line and not holder.stdin.closed:
            holder.stdin.close()
    assert deploy.wait(timeout=60) == 1
    holder.wait(timeout=10)
    told = "".join(lines)
    waiting, _, after = told.partition("waiting for python3 (PID ")
    assert "which holds apt's lock" in after
    assert "Beginning operation run" not in waiting
    assert "Beginning operation run" in after and f"and {ZEROS} is pinned" in after


def test_an_archive_with_another_hash_is_not_unpacked(without_model: tuple[Lab, Run]) -> None:
    """Comes last: the container's engine, which is correct, starts before the archive is requested."""
    lab, _ = without_model
    told = said(lab.deploy("-y", "--data", f"engines.llama-8b.archive.sha256={ZEROS}"))
    assert f"the settings pin {ZEROS}; nothing of it was unpacked; correct the engine's archive.sha256" in told
    assert lab.sudo("find /opt/rig -mindepth 2 ! -path '/opt/rig/rigd/*'").stdout == ""
    assert lab.sudo("systemctl is-active rig-native@llama-8b.service", check=False).stdout == "inactive\n"


def _no_model_and_no_engine(lab: Lab) -> None:
    assert lab.sudo("find /mnt/models ! -type d; find /var/lib/rig/models -name '*.verified'").stdout == ""
    assert lab.sudo("systemctl list-units --all --no-legend 'rig-*@*.service'").stdout == ""
    assert lab.sudo("docker ps --all --quiet").stdout == ""
    assert lab.sudo("ss -Hltn '( sport = 8002 or sport = 8003 )'").stdout == ""


def _hash_of_model(lab: Lab) -> str:
    return hashlib.sha256(_model(lab)).hexdigest()


def _model(lab: Lab) -> bytes:
    """The model as served by the hub without a fault."""
    tiny = load(CHECKOUT, lab=lab.directory).machine("rig-lab").settings.models.catalogue["tiny"]
    url = f"http://{lab.network.services}:{HUB_PORT}/{tiny.repository}/resolve/{tiny.revision}/{tiny.file}"
    answer = requests.get(url, timeout=10)
    answer.raise_for_status()
    return answer.content


def _new_key(path: Path) -> str:
    """Make a key pair at ``path``; return its public half in the form of known_hosts."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


@contextmanager
def _listening(lab: Lab, unit: str, address: str, port: int) -> Iterator[None]:
    """A foreign program that holds a port of the machine; it notifies systemd once it does."""
    listen = (
        "import os, signal, socket; "
        f"held = socket.create_server(('{address}', {port})); "
        "tell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        "tell.sendto(b'READY=1', os.environ['NOTIFY_SOCKET']); signal.pause()"
    )
    lab.sudo(f'systemd-run --quiet --unit={unit} --service-type=notify python3 -c "{listen}"')
    try:
        yield
    finally:
        lab.sudo(f"systemctl stop {unit}.service")
