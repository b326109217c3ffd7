"""The lab itself: it leaves nothing behind however it ends, and its machine survives the usual faults."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machine import CHECKOUT, Lab, LabFailed, down, purge, running
from lab.spec import RELEASES
from tests.lab.conftest import Boot, Machines
from tests.lab.traces import Family, Traces, eventually

CAP_SYS_MODULE, CAP_SYS_TIME = 16, 25

# A process of its own that boots a lab and waits, so that it can be killed.
STARTER = """
import sys
import time
from pathlib import Path
from lab.machine import Lab
lab = Lab.boot(Path(sys.argv[1]))
lab.ssh("true")
if "keep" in sys.argv:
    lab.keep()
print("ready", flush=True)
sys.stdin.read()
"""


class Started:
    """A lab with a starter of its own, and the state of the operator's machine before it."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.before = Traces.take()
        self.process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(directory), *arguments],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise AssertionError(f"the lab did not boot: {self.process.communicate()[1]}")
        self.lab = Lab.attach(directory)
        self.family = Family.of(self.lab, self.process.pid)

    def left_behind(self) -> list[str]:
        return self.family.alive() + Traces.take().left_behind(
            self.before, self.lab.network.interface, self.lab.directory
        )

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()
        down(self.lab.directory)


@pytest.fixture
def directory(cache: Path) -> Iterator[Path]:
    directory = Machines().directory("ending")
    yield directory
    down(directory)
    purge(directory)


@pytest.fixture
def started(directory: Path) -> Iterator[Started]:
    started = Started(directory)
    yield started
    started.end()


def test_a_running_lab_shows_on_the_operators_machine_as_one_interface_only(started: Started) -> None:
    now = Traces.take()
    assert started.lab.network.interface in now.interfaces
    interface = started.lab.network.interface
    assert now.left_behind(started.before, interface, Path("/nowhere")) == [f"interface {interface}"]


@pytest.mark.parametrize("victim", ["supervisor", "guard", "starter"])
def test_nothing_is_left_when_a_process_of_the_lab_is_killed(started: Started, victim: str) -> None:
    if victim == "starter":
        started.process.kill()
        started.process.wait()
    else:
        number = started.family.supervisor if victim == "supervisor" else started.family.guard
        subprocess.run(_as_root("kill", "-9", str(number)), check=True)
    eventually(started.left_behind)
    assert not running(started.lab.directory)


def test_nothing_is_left_after_down(started: Started) -> None:
    started.lab.down()
    assert not Path("/sys/class/net", started.lab.network.interface).exists()
    eventually(started.left_behind, seconds=3)


def test_a_lab_that_was_killed_boots_again_from_its_disk(started: Started) -> None:
    started.lab.sudo("echo kept > /root/mark && sync")
    subprocess.run(_as_root("kill", "-9", str(started.family.supervisor)), check=True)
    eventually(lambda: running(started.lab.directory))
    again = Lab.boot(started.lab.directory)
    assert again.sudo("cat /root/mark").stdout == "kept\n"
    again.kill()


def test_a_kept_lab_outlives_its_starter_and_goes_down_when_told(directory: Path) -> None:
    started = Started(directory, "keep")
    started.process.kill()
    started.process.wait()
    assert started.lab.ssh("true").returncode == 0
    assert down(directory)
    eventually(started.left_behind)


def test_a_lab_that_is_being_started_goes_down_when_told(directory: Path) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(directory), "keep"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: not (directory / ".lock").exists())
        assert not running(directory)
        words = [sys.executable, "-m", "lab", "down", "--dir", str(directory)]
        done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout) == (0, "The lab is down.\n")
        assert not running(directory)
    finally:
        starter.kill()
        starter.communicate()


def test_two_machines_at_once_have_networks_of_their_own(boot: Boot) -> None:
    first, second = boot(name="first"), boot(name="second")
    assert first.network.subnet != second.network.subnet
    first.sudo("echo first > /root/mark")
    assert second.sudo("cat /root/mark", check=False).returncode != 0
    assert first.neighbour(f"timeout 2 bash -c '</dev/tcp/{second.address}/22'").returncode != 0


def test_a_second_start_in_the_same_directory_is_refused_with_a_sentence(bare: Lab) -> None:
    with pytest.raises(LabFailed, match=r"is running in .* already"):
        Lab.boot(bare.directory)


def test_the_machine_is_a_debian_with_an_ordinary_user_and_nothing_of_ours(bare: Lab) -> None:
    assert bare.ssh("id -un").stdout == "rig\n"
    assert bare.sudo("id -un").stdout == "root\n"
    assert bare.ssh("systemctl is-system-running").stdout == "running\n"
    missing = bare.ssh("for p in docker curl gpg nft; do command -v $p; done", check=False)
    assert missing.stdout == ""


def test_only_the_pinned_host_key_and_the_labs_own_user_key_are_accepted(bare: Lab, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").write_text(f"{bare.address} ssh-ed25519 {'A' * 68}\n")
    options = ["-F", str(bare.ssh_config), "-o", "ControlPath=none", "-o", "BatchMode=yes"]
    wrong_host = _ssh(*options, "-o", f"UserKnownHostsFile={tmp_path / 'known_hosts'}", "rig-lab", "true")
    assert wrong_host.returncode == 255
    password = _ssh(*options, "-o", "PubkeyAuthentication=no", "rig-lab", "true")
    assert password.returncode == 255
    assert "(publickey)" in password.stderr
    assert (bare.directory / "id_ed25519").stat().st_mode & 0o777 == 0o600


def test_the_neighbour_is_another_host_on_the_machines_network(bare: Lab) -> None:
    seen = bare.neighbour(f"exec 3<>/dev/tcp/{bare.address}/22; head -c 4 <&3; ip -brief address show eth0")
    assert seen.stdout.startswith("SSH-")
    assert bare.network.neighbour in seen.stdout
    assert bare.neighbour(f"ip route add 192.0.2.77 via {bare.address}").returncode == 0


def test_the_machine_changes_no_setting_of_the_operators_kernel(bare: Lab) -> None:
    refused = bare.sudo("sysctl -w vm.swappiness=1", check=False)
    assert refused.returncode != 0
    bare.sudo("sysctl -w net.core.somaxconn=1234")
    assert Path("/proc/sys/net/core/somaxconn").read_text() != "1234\n"


def test_the_machine_cannot_touch_the_operators_clock_or_modules(bare: Lab) -> None:
    before = time.time() - time.monotonic()
    assert bare.sudo("date --set=@0", check=False).returncode != 0
    bare.sudo("timedatectl set-timezone Pacific/Auckland")
    assert bare.ssh("date +%Z").stdout in ("NZST\n", "NZDT\n")
    assert abs(time.time() - time.monotonic() - before) < 60
    held = int(bare.sudo("sed -n 's/^CapBnd:\\s*//p' /proc/1/status").stdout, 16)
    assert held & (1 << CAP_SYS_MODULE | 1 << CAP_SYS_TIME) == 0


def test_a_power_cut_ends_everything_at_once_and_the_disk_boots_again(bare: Lab) -> None:
    bare.sudo("echo mark > /root/mark && sync && systemd-run --unit=running-on sleep 1000")
    bare.power_cut()
    assert bare.neighbour(f"timeout 2 bash -c '</dev/tcp/{bare.address}/22'").returncode != 0
    bare.start()
    assert bare.sudo("cat /root/mark").stdout == "mark\n"
    assert bare.sudo("systemctl is-active running-on", check=False).stdout == "inactive\n"


def test_a_power_cut_keeps_what_was_synced_and_loses_what_was_not(bare: Lab) -> None:
    bare.sudo("echo synced > /root/synced && echo old > /root/replaced && sync")
    # On a rename over another file, ext4 writes it by itself, as on every Debian: a name never leads to half a file.
    bare.sudo("echo unsynced > /root/unsynced; echo new > /root/new && mv /root/new /root/replaced")
    assert bare.sudo("cat /root/unsynced").stdout == "unsynced\n"
    bare.power_cut()
    bare.start()
    assert bare.sudo("cat /root/synced").stdout == "synced\n"
    assert bare.sudo("cat /root/unsynced", check=False).stdout == ""
    assert bare.sudo("cat /root/replaced").stdout in ("old\n", "new\n")


def test_a_stopped_machine_was_shut_down_in_order(bare: Lab) -> None:
    bare.sudo(
        "printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\nExecStart=/bin/true\\n"
        "ExecStop=/bin/touch /root/stopped\\n[Install]\\nWantedBy=multi-user.target\\n'"
        " > /etc/systemd/system/mark.service && systemctl enable --now mark.service"
    )
    bare.stop()
    bare.start()
    assert bare.sudo("ls /root/stopped").returncode == 0


def test_a_machine_goes_back_to_its_snapshot(bare: Lab) -> None:
    bare.sudo("echo before > /root/mark")
    bare.snapshot("kept")
    bare.sudo("echo after > /root/mark")
    bare.restore("kept")
    assert bare.sudo("cat /root/mark").stdout == "before\n"


def test_a_disk_boots_on_whichever_network_is_free_and_finds_everything_by_name(boot: Boot) -> None:
    first = boot(name="first")
    index = first.network.index
    first.kill()
    other = Lab.boot(first.directory.with_name(f"{first.directory.name}-other"), index=index)
    try:
        assert other.network.index == index
        again = Lab.boot(first.directory)
        assert again.network.index != index
        names = again.ssh("getent ahostsv4 hub.rig-lab registry.rig-lab packages.rig-lab | cut -d ' ' -f 1 | sort -u")
        assert names.stdout.split() == [again.network.services]
        again.sudo("apt-get update -o APT::Update::Error-Mode=any")
        held = again.sudo(f"grep -rl '10.77.{index}[.]' /etc /var/lib/rig /opt 2>/dev/null", check=False).stdout
        assert held == "", "the disk remembers the network that it was on before"
    finally:
        down(first.directory)
        other.kill()
        purge(other.directory)


@pytest.mark.parametrize("release", RELEASES)
def test_packages_come_from_the_archive_and_are_fetched_once(boot: Boot, cache: Path, release: str) -> None:
    lab = boot(release)
    lab.sudo("apt-get update && apt-get install --yes hello && apt-get clean")
    assert lab.ssh("hello").stdout == "Hello, world!\n"
    listed = lab.ssh("apt-get install --reinstall --print-uris --quiet=2 hello").stdout
    address = listed.split("'")[1]
    kept = cache / "packages" / hashlib.sha256(address.encode()).hexdigest()
    before = kept.stat().st_mtime_ns
    lab.sudo("apt-get install --reinstall --yes hello")
    assert kept.stat().st_mtime_ns == before


def _as_root(*command: str) -> list[str]:
    return list(command) if os.geteuid() == 0 else ["sudo", "-n", "--", *command]


def _ssh(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ssh", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
