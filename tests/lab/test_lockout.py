"""Nobody is locked out: changes of the packet filter and the SSH server that do so come back.

Rules that cannot be loaded leave the machine closed.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.machine import CHECKOUT, NAME, Lab, program
from lab.spec import HUB_PORT
from rig.confirmation import FOLDER, SECONDS
from tests.lab.overrides import altered
from tests.lab.traces import eventually

RULES = "/etc/rig/firewall.nft"
SSHD = "/etc/ssh/sshd_config.d/00-rig.conf"
ELSEWHERE = "203.0.113.9"
"""An address that the machine takes the operator's connections to come from, and that they do not come from."""
LOCKED_OUT = "you would be locked out"


@pytest.fixture(scope="module")
def lab(deployed_release: Lab) -> Lab:
    return deployed_release


@pytest.fixture
def lockout(lab: Lab, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a deploy whose rules let another network in than the operator's.

    Preflight compares the settings with the address that the login sees; here it sees a wrong one, as with a
    translation of addresses in front of the machine.
    """
    shown = f"export SSH_CONNECTION='{ELSEWHERE} 1 {lab.address} 22'"
    # Kept through a power cut.
    lab.ssh(
        f"touch ~/.bashrc && mv ~/.bashrc ~/bashrc && {{ echo {shlex.quote(shown)}; cat ~/bashrc; }} >~/.bashrc; sync"
    )
    yield altered(lab, tmp_path / "lab", {"firewall": {"ssh": {"networks": [f"{ELSEWHERE}/32"]}}})
    lab.console("mv ~rig/bashrc ~rig/.bashrc && sync")


def logs_in(lab: Lab) -> bool:
    """With a connection of its own: the one that all tests share was admitted before."""
    login = ["ssh", "-F", str(lab.ssh_config), "-S", "none", "-o", "ConnectTimeout=5", NAME, "true"]
    return subprocess.run(login, capture_output=True, check=False, timeout=30).returncode == 0


def rules(lab: Lab) -> str:
    return lab.console("nft list table inet rig", check=False).stdout


def state(lab: Lab) -> tuple[str, str, str]:
    """What counts: rules in force, rules of the next boot, configuration of the SSH server."""
    return rules(lab), lab.console(f"cat {RULES}").stdout, lab.console(f"cat {SSHD}", check=False).stdout


def trials(lab: Lab) -> list[str]:
    """What is left of changes on trial."""
    units = lab.console("systemctl list-units --all --no-legend 'rig-return-*'").stdout
    mounts = lab.console(f"findmnt {SSHD}", check=False).stdout
    pending = lab.console(f"ls {FOLDER}/*/pending", check=False).stdout
    return [left for left in (units, mounts, pending) if left]


@contextmanager
def on_trial(lab: Lab, environment: dict[str, str]) -> Iterator[None]:
    """A deploy that dies, with its whole machine, while rules that lock it out are in force."""
    before = rules(lab)
    deploy = subprocess.Popen(
        [str(program("pyinfra")), "inventory.py", "deploy.py", "-y"],
        cwd=CHECKOUT,
        env=lab.environment(**environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(lambda: ELSEWHERE not in rules(lab), seconds=120)
    finally:
        os.killpg(deploy.pid, signal.SIGKILL)
        deploy.wait()
    assert rules(lab) != before
    yield


def test_rules_that_lock_the_operator_out_are_taken_back_in_the_same_run(lab: Lab, lockout: dict[str, str]) -> None:
    before = state(lab)
    done = lab.deploy("-y", environment=lockout)
    assert done.returncode == 1
    assert LOCKED_OUT in done.stderr and "it was taken back" in done.stderr, done.stderr[-3000:]
    assert state(lab) == before
    assert trials(lab) == []
    assert logs_in(lab)


def test_rules_come_back_by_themselves_when_the_operators_machine_dies(lab: Lab, lockout: dict[str, str]) -> None:
    before = state(lab)
    with on_trial(lab, lockout):
        begin = time.monotonic()
        assert not logs_in(lab), "the rules do not lock out"
        eventually(lambda: rules(lab) != before[0], seconds=SECONDS + 60)
        assert time.monotonic() - begin > 5, "something else took them back"
    assert state(lab) == before
    eventually(lambda: trials(lab), seconds=30)
    assert logs_in(lab)


def test_a_power_cut_in_between_boots_with_the_old_rules(lab: Lab, lockout: dict[str, str]) -> None:
    before = state(lab)
    with on_trial(lab, lockout):
        lab.power_cut()
        lab.start()
    assert state(lab) == before
    assert trials(lab) == []
    assert logs_in(lab)


def test_a_new_run_takes_back_what_a_dead_one_left_on_trial(lab: Lab, lockout: dict[str, str]) -> None:
    """What the dead run had kept is the state before, not the rules that were never confirmed."""
    before = state(lab)
    with on_trial(lab, lockout):
        lab.console("nft insert rule inet rig input tcp dport 22 accept; systemctl stop rig-return-firewall.timer")
        done = lab.deploy("-y", environment=lockout)
    assert LOCKED_OUT in done.stderr, done.stderr[-3000:]
    assert state(lab) == before
    assert trials(lab) == []


def test_a_run_without_changes_tries_nothing(lab: Lab) -> None:
    shown = lab.console("journalctl --no-pager --lines=0 --show-cursor").stdout
    cursor = shown.partition("-- cursor: ")[2].strip()
    done = lab.deploy("-y")
    assert done.returncode == 0, done.stderr[-3000:]
    after = f"journalctl --no-pager --after-cursor='{cursor}' --identifier=systemd"
    assert "rig-return" not in lab.console(after).stdout


# Rules that cannot be loaded


def test_a_machine_whose_rules_cannot_be_loaded_comes_up_closed(lab: Lab) -> None:
    """Nobody gets in, and at its console it can be repaired; a deploy makes it whole."""
    good = lab.console(f"cat {RULES}").stdout
    lab.console(f"echo broken >{RULES} && sync {RULES}")
    lab.stop()
    lab.start()
    try:
        assert lab.console("systemctl is-failed rig-firewall.service").stdout == "failed\n"
        assert not logs_in(lab)
        closed = lab.neighbour(f"timeout 2 bash -c '</dev/tcp/{lab.address}/22'")
        assert closed.returncode != 0
        hub = f"http://{lab.network.services}:{HUB_PORT}/admin/counters"
        lab.console(f"curl --silent --fail --max-time 10 {hub}")
    finally:
        lab.console("nft delete table inet rig")
    done = lab.deploy("-y")
    assert done.returncode == 0, done.stderr[-3000:]
    assert lab.console(f"cat {RULES}").stdout == good
    assert lab.console("systemctl is-active rig-firewall.service").stdout == "active\n"
    assert logs_in(lab)


def test_rules_that_cannot_be_loaded_again_leave_those_in_force(lab: Lab) -> None:
    before = state(lab)
    lab.console(f"cp {RULES} /root/rules && echo broken >{RULES}")
    try:
        assert lab.console("systemctl restart rig-firewall.service", check=False).returncode != 0
        assert rules(lab) == before[0]
    finally:
        lab.console(f"cp /root/rules {RULES} && systemctl restart rig-firewall.service")
    assert state(lab) == before


# SSH


def _offer(lab: Lab, *options: str) -> str:
    """What the SSH server answers to a login that it refuses."""
    words = ["ssh", "-F", str(lab.ssh_config), "-S", "none", *options, NAME, "true"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode != 0, "it was let in"
    return done.stderr


def test_only_keys_log_in(lab: Lab) -> None:
    """The distribution's default would offer passwords."""
    for user in ("root", "rig"):
        assert "(publickey)" in _offer(lab, "-o", "PreferredAuthentications=none", "-l", user)


def test_old_algorithms_are_refused(lab: Lab) -> None:
    for option in (
        "KexAlgorithms=ecdh-sha2-nistp256",
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "HostKeyAlgorithms=ecdsa-sha2-nistp256",
        "MACs=hmac-sha1",
        "Ciphers=aes128-cbc",
    ):
        extra = ("-o", "Ciphers=aes128-ctr") if option.startswith("MACs") else ()
        assert "no matching" in _offer(lab, "-o", option, *extra), option


def test_keys_in_the_second_file_do_not_log_in(lab: Lab) -> None:
    lab.ssh("cp ~/.ssh/authorized_keys /tmp/keys && mv ~/.ssh/authorized_keys ~/.ssh/authorized_keys2")
    try:
        assert not logs_in(lab)
    finally:
        lab.ssh("mv ~/.ssh/authorized_keys2 ~/.ssh/authorized_keys")
    assert logs_in(lab)


@contextmanager
def _key_elsewhere(lab: Lab) -> Iterator[None]:
    """A machine as before Rig's first run, whose operator's key is in the file that Rig closes, beside another key."""
    stranger = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMGR3kYqpb+t/sxtB5Eq/9zf9q1vdjzdQT3ABGfrln2Z stranger"
    lab.ssh(
        f"sudo rm {SSHD} && sudo systemctl restart ssh.service && mv ~/.ssh/authorized_keys ~/.ssh/authorized_keys2 && "
        f"echo {shlex.quote(stranger)} >~/.ssh/authorized_keys"
    )
    try:
        yield
    finally:
        lab.ssh("mv ~/.ssh/authorized_keys2 ~/.ssh/authorized_keys")


def test_a_change_of_the_ssh_server_that_locks_the_operator_out_is_taken_back(lab: Lab) -> None:
    with _key_elsewhere(lab):
        assert logs_in(lab)
        done = lab.deploy("-y")
        assert done.returncode == 1
        assert LOCKED_OUT in done.stderr and "it was taken back" in done.stderr, done.stderr[-3000:]
        assert lab.console(f"ls {SSHD}", check=False).stdout == ""
        assert trials(lab) == []
        assert logs_in(lab)
    done = lab.deploy("-y")
    assert done.returncode == 0, done.stderr[-3000:]
    test_only_keys_log_in(lab)
    assert trials(lab) == []


def test_passwords_come_back_where_the_settings_want_them(lab: Lab, tmp_path: Path) -> None:
    off = altered(lab, tmp_path / "lab", {"machine": {"ssh": {"keys_only": False}}})
    done = lab.deploy("-y", environment=off)
    assert done.returncode == 0, done.stderr[-3000:]
    assert lab.console(f"ls {SSHD}", check=False).stdout == ""
    done = lab.deploy("-y")
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search("^passwordauthentication no$", lab.console("/usr/sbin/sshd -T").stdout, re.MULTILINE)
