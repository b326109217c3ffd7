"""A machine with earlier use: harmless traces are accepted, and harmful ones are refused."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import requests
import yaml

from lab.machine import Lab
from tests.lab.conftest import Machines
from tests.lab.traces import eventually

RING = "/usr/share/keyrings/owners-docker.asc"
LOCK = "/run/rig-deploy.lock"


@pytest.fixture(scope="module")
def used(machines: Machines) -> Iterator[Lab]:
    """An owner's docker.list with a ring of its own, the most common daemon.json, and a root user with a strict
    umask."""
    lab = machines.boot(name="used")
    source = f"deb [arch=amd64 signed-by={RING}] {_vendor(lab)['repository']}/debian/ {lab.release} stable"
    lab.sudo(
        f"mkdir -p /etc/apt/sources.list.d /etc/docker; echo '{source}' >/etc/apt/sources.list.d/docker.list; "
        "echo 'Defaults umask=077, umask_override' >/etc/sudoers.d/owner; "
        "sed -i 's/^UMASK.*/UMASK 077/' /etc/login.defs"
    )
    daemon = {"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}, "userland-proxy": False}
    lab.sudo(f"echo '{json.dumps(daemon)}' >/etc/docker/daemon.json")
    yield lab
    machines.end(lab)


def _vendor(lab: Lab) -> dict[str, str]:
    """The container engine's repository in the lab."""
    (host,) = yaml.safe_load((lab.directory / "hosts.yml").read_text())["hosts"].values()
    vendor: dict[str, str] = host["settings"]["containers"]["vendor"]
    return vendor


def test_an_owners_entry_with_a_ring_that_is_not_there_is_refused_before_anything_is_written(used: Lab) -> None:
    done = used.deploy("-y")
    assert done.returncode == 1
    assert "/etc/apt/sources.list.d/docker.list:1 names http" in done.stderr
    assert f"signed by {RING}, which is not there" in done.stderr
    assert "docker.sources" not in used.sudo("ls /etc/apt/sources.list.d").stdout


def test_with_the_pinned_key_in_the_owners_ring_the_machine_is_deployed_to(used: Lab) -> None:
    vendor = _vendor(used)
    key = requests.get(f"{vendor['key_source']}/debian/gpg", timeout=30).text
    used.sudo(f"echo '{key}' >{RING}; chmod 644 {RING}")
    done = used.deploy("-y")
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Signed-By: {RING}" in used.sudo("cat /etc/apt/sources.list.d/docker.sources").stdout
    assert used.sudo("apt-get update 2>&1 | grep -c '^E:'", check=False).stdout.strip() == "0"
    daemon = json.loads(used.sudo("cat /etc/docker/daemon.json").stdout)
    assert daemon["log-driver"] == "journald"
    assert "log-opts" not in daemon
    assert daemon["userland-proxy"] is False


def test_a_root_who_shares_no_files_leaves_ours_as_readable_as_on_any_machine(used: Lab, deployed: Lab) -> None:
    look = (
        "find /opt/rig /etc/rig /var/lib/rig /etc/systemd/system/rig-* /etc/apt/sources.list.d /etc/docker /mnt/models "
        "-printf '%p %y %m\\n' | grep -v __pycache__ | sed 's|/rigd/[0-9a-f]*|/rigd/X|' | sort"
    )
    mine, normal = (set(lab.sudo(look).stdout.splitlines()) for lab in (used, deployed))
    narrower = {line.split()[0]: line for line in mine - normal}
    assert {line for line in normal if line.split()[0] in narrower} == set()


def test_a_second_run_without_dockers_proxy_changes_nothing(used: Lab) -> None:
    """dockerd holds the published port itself."""
    done = used.deploy("-y")
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"Grand total +\d+ +- +- ", done.stderr), done.stderr[-3000:]


def test_a_second_run_beside_the_first_is_refused_with_who_has_the_machine(used: Lab) -> None:
    first = used.deploying("-y")
    try:
        eventually(lambda: _is_free(used), seconds=60)
        # Stopped, it has the lock until it is killed: a run without changes may end before the second one asks.
        first.send_signal(signal.SIGSTOP)
        second = used.deploy("-y")
        assert second.returncode == 1
        assert "is being deployed to, and nothing was changed" in second.stderr
        assert re.search(r"the lock is held by \S+@\S+ since 20", second.stderr)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(timeout=60)
    # The kernel released it with the connection.
    eventually(lambda: not _is_free(used), seconds=30)


def _is_free(lab: Lab) -> bool:
    return lab.sudo(f"flock -n {LOCK} true", check=False).returncode == 0


def test_one_machine_that_is_refused_ends_the_run_for_no_other(used: Lab, tmp_path: Path) -> None:
    """One machine under two names, each with an address: one of the two has the lock, and the other is refused."""
    address = f"{used.address.rpartition('.')[0]}.9"
    known = tmp_path / "known_hosts"
    known.write_text((used.directory / "known_hosts").read_text().replace(used.address, address))
    document = yaml.safe_load((used.directory / "hosts.yml").read_text())
    ((name, entry),) = document["hosts"].items()
    # Each written out: the settings have no references.
    other = deepcopy(entry) | {"address": address, "known_hosts_file": str(known)}
    (used.directory / "hosts.yml").write_text(yaml.safe_dump({"hosts": {name: entry, "other": other}}))
    used.sudo(f"ip address add {address}/24 dev host0")
    try:
        done = used.deploy("-y")
    finally:
        used.sudo(f"ip address delete {address}/24 dev host0")
        (used.directory / "hosts.yml").write_text(yaml.safe_dump(document))
    assert done.returncode == 1
    assert done.stderr.count("is being deployed to, and nothing was changed") == 1, done.stderr[-3000:]
    assert re.search(r"Grand total +\d+ ", done.stderr), done.stderr[-3000:]


def test_a_login_shell_that_prints_is_refused(used: Lab) -> None:
    used.ssh("sed -i '1i echo hello' ~/.bashrc 2>/dev/null || echo 'echo hello' >~/.bashrc")
    try:
        done = used.deploy("--dry")
        assert done.returncode == 1
        assert "prints 'hello' with every command" in done.stderr
    finally:
        used.ssh("sed -i '/^echo hello$/d' ~/.bashrc")
