"""inventory.py as pyinfra runs it: refusals before any connection, and only known host keys are trusted."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
import pytest

from tests.unit.project import ROOT, WORKSTATION, Project

DEPLOY = """\
import os, sys
from pyinfra import host
from rig.settings import SettingsError, active
try:
    settings = active(host.name, os.environ)
except SettingsError as error:
    print(error.report(), file=sys.stderr)
    raise SystemExit(2) from None
print("TIME ZONE", settings.machine.timezone)
"""


@pytest.fixture
def deployable(project: Project) -> Project:
    """The project with a deploy that only prints its settings."""
    (project.root / "deploy.py").write_text(DEPLOY, encoding="utf-8")
    return project


def inventory(project: Project, **environ: str) -> list[dict[str, Any]]:
    """The machines in pyinfra's view."""
    done = project.run("pyinfra", "inventory.py", "debug-inventory", "--json", **environ)
    assert done.returncode == 0, done.stderr
    hosts: list[dict[str, Any]] = json.loads(done.stdout)
    return hosts


def test_mistakes_stop_the_deploy_before_any_connection(deployable: Project) -> None:
    deployable.write("hosts.yml", WORKSTATION)
    line = deployable.change("all.yml", "  timezone: Etc/UTC", "  timezone: Etc/UTX")
    done = deployable.run("pyinfra", "inventory.py", "deploy.py", "-y")
    assert done.returncode == 2
    assert (
        f"group_data/all.yml:{line}: machine.timezone: 'Etc/UTX' is not a known time zone; write Etc/UTC\n"
        in done.stderr
    )
    assert "Connecting" not in done.stderr
    assert "Traceback" not in done.stderr


def test_no_machine_and_no_lab_is_one_sentence_and_exit_2(deployable: Project) -> None:
    done = deployable.run("pyinfra", "inventory.py", "deploy.py", "-y")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "group_data/hosts.yml: no machine is configured and no lab is running; "
        "describe a machine there, or run script/demo"
    )


def test_a_machine_is_reached_as_hosts_yml_says_and_only_if_its_host_key_is_known(
    deployable: Project,
) -> None:
    deployable.write("hosts.yml", WORKSTATION + "    port: 2222\n    known_hosts_file: keys\n")
    (host,) = inventory(deployable)
    assert host["name"] == "workstation"
    assert "workstation" in host["groups"]
    # A copy of the lines that are about this machine.
    assert Path(host["data"].pop("ssh_known_hosts_file")).name != "keys"
    assert host["data"] == {
        "ssh_hostname": "192.168.1.20",
        "ssh_port": 2222,
        "ssh_user": "owner",
        "ssh_strict_host_key_checking": "yes",
        "_sudo": True,
    }


def test_root_needs_no_sudo(deployable: Project) -> None:
    deployable.write("hosts.yml", WORKSTATION.replace("user: owner", "user: root"))
    (host,) = inventory(deployable)
    assert host["data"]["_sudo"] is False


def test_the_lab_and_the_machines_are_never_in_one_inventory(deployable: Project, running_lab: Path) -> None:
    deployable.write("hosts.yml", WORKSTATION)
    assert [host["name"] for host in inventory(deployable)] == ["workstation"]
    assert [host["name"] for host in inventory(deployable, RIG_LAB=".lab")] == ["rig-lab"]


def test_that_a_running_lab_is_left_out_is_said(deployable: Project, running_lab: Path) -> None:
    deployable.write("hosts.yml", WORKSTATION)
    told = deployable.run("pyinfra", "inventory.py", "debug-inventory").stderr
    assert "the running lab is left out, as machines are configured; RIG_LAB=.lab selects it\n" in told


@pytest.mark.parametrize("target", ["inventory.py", "@local"])
def test_a_machine_can_deploy_itself(deployable: Project, target: str) -> None:
    deployable.write("hosts.yml", WORKSTATION.replace("192.168.1.20", '"@local"'))
    deployable.write("workstation.yml", "machine: {timezone: Asia/Tokyo}\n")
    done = deployable.run("pyinfra", target, "deploy.py", "-y")
    assert (done.returncode, done.stdout) == (0, "TIME ZONE Asia/Tokyo\n")


def test_a_machine_can_deploy_itself_without_being_in_hosts_yml(deployable: Project) -> None:
    done = deployable.run("pyinfra", "@local", "deploy.py", "-y", "--data", "machine.timezone=Europe/Oslo")
    assert (done.returncode, done.stdout) == (0, "TIME ZONE Europe/Oslo\n")


def test_a_mistake_stops_a_machine_that_deploys_itself(deployable: Project) -> None:
    done = deployable.run("pyinfra", "@local", "deploy.py", "-y", "--data", "machine.timezon=Europe/Oslo")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--data: machine.timezon: unknown key; write machine.timezone\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_inventory_works_from_another_folder(deployable: Project, tmp_path: Path) -> None:
    deployable.write("hosts.yml", WORKSTATION)
    done = deployable.run("pyinfra", "--chdir", "/", f"{deployable.root}/inventory.py", "debug-inventory")
    assert done.returncode == 0
    assert "workstation" in done.stderr + done.stdout


def test_a_wrong_host_key_is_refused(deployable: Project, ssh_server: Server) -> None:
    deployable.write("hosts.yml", ssh_server.hosts_yml)
    ssh_server.say_known(deployable.path("keys"), paramiko.ECDSAKey.generate())
    done = deployable.run("pyinfra", "inventory.py", "deploy.py", "-y")
    assert done.returncode == 1
    assert "Host key for 127.0.0.1 does not match" in done.stderr
    assert not ssh_server.asked_for_login


def test_an_unknown_host_key_is_refused_and_not_remembered(deployable: Project, ssh_server: Server) -> None:
    deployable.write("hosts.yml", ssh_server.hosts_yml)
    deployable.write("keys", "")
    done = deployable.run("pyinfra", "inventory.py", "deploy.py", "-y")
    assert done.returncode == 1
    assert (
        f"workstation: {deployable.path('keys')} has no host key of it; log in once and compare it: "
        f"ssh -p {ssh_server.port} -o UserKnownHostsFile={deployable.path('keys')} owner@127.0.0.1\n"
    ) in done.stderr
    assert "No host key for" in done.stderr
    assert not ssh_server.asked_for_login
    assert deployable.path("keys").read_text(encoding="utf-8") == ""


@pytest.mark.parametrize(
    "line",
    [
        b"\x00\x01\n",
        b"# M\xfcller\n",
        b"old.example.org ssh-dss AAAAB3NzaC1kc3MAAACBAP1\n",
        b"y.example.org ssh-rsa AAAAB3NzaC1yc2E\n",
        (ROOT / "tests/unit/data/ssh/known_hosts-cert-authority-first").read_bytes().partition(b"192.")[0],
    ],
)
def test_a_line_that_cannot_be_used_hides_no_host_key_behind_it(
    deployable: Project, ssh_server: Server, line: bytes
) -> None:
    deployable.write("hosts.yml", ssh_server.hosts_yml)
    ssh_server.say_known(deployable.path("keys"), ssh_server.key)
    deployable.path("keys").write_bytes(line + deployable.path("keys").read_bytes())
    done = deployable.run("pyinfra", "inventory.py", "deploy.py", "-y", "--data", "ssh_password=x")
    assert "has no host key" not in done.stderr
    assert "Failed to load host keys" not in done.stderr
    assert ssh_server.asked_for_login


def test_a_revoked_host_key_is_refused_with_its_lines(deployable: Project, ssh_server: Server) -> None:
    deployable.write("hosts.yml", ssh_server.hosts_yml)
    ssh_server.say_known(deployable.path("keys"), ssh_server.key)
    own = deployable.path("keys").read_text()
    deployable.path("keys").write_text(f"{own}@revoked * {own.partition(' ')[2]}")
    done = deployable.run("pyinfra", "inventory.py", "deploy.py", "-y", "--data", "ssh_password=x")
    assert "has no host key of it (line 1 has a key that line 2 revokes); log in once" in done.stderr
    assert not ssh_server.asked_for_login


def test_a_known_host_key_leads_to_the_login(deployable: Project, ssh_server: Server) -> None:
    """Shows that the two tests above fail for the host key and not for something else."""
    deployable.write("hosts.yml", ssh_server.hosts_yml)
    ssh_server.say_known(deployable.path("keys"), ssh_server.key)
    done = deployable.run("pyinfra", "inventory.py", "deploy.py", "-y", "--data", "ssh_password=x")
    assert done.returncode == 1
    assert "has no host key" not in done.stderr
    assert ssh_server.asked_for_login


@dataclass
class Server(paramiko.ServerInterface):
    """An SSH server that shows its host key and refuses every login."""

    port: int
    key: paramiko.ECDSAKey
    asked_for_login: bool = False

    @property
    def hosts_yml(self) -> str:
        machine = f"address: 127.0.0.1, port: {self.port}, user: owner, known_hosts_file: keys"
        return f"hosts:\n  workstation: {{{machine}}}\n"

    def say_known(self, file: Path, key: paramiko.ECDSAKey) -> None:
        file.write_text(f"[127.0.0.1]:{self.port} {key.get_name()} {key.get_base64()}\n", encoding="utf-8")

    def get_allowed_auths(self, username: str) -> str:
        self.asked_for_login = True
        return "publickey,password"


@pytest.fixture
def ssh_server() -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(port=listener.getsockname()[1], key=paramiko.ECDSAKey.generate())

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                transport = paramiko.Transport(connection)
                transport.add_server_key(server.key)
                try:
                    transport.start_server(server=server)
                except (paramiko.SSHException, EOFError):
                    continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(timeout=5)
