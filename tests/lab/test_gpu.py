"""The GPU, simulated at its interfaces: installed, rebooted for, upgraded, signed, and diagnosed when broken.

One machine of each release for all, in the order of its life; each test that breaks it repairs it. Tests that take a
further reboot, and do not depend on the release, run on Debian 13 alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.machine import CHECKOUT, NAME, Lab
from lab.recipes.driver import DRIVERS, KERNELS, TOOLKITS
from lab.recipes.vendor import OLDER as OLDER_ENGINE
from lab.spec import RELEASES
from tests.lab.conftest import Machines
from tests.lab.overrides import altered
from tests.lab.runs import host_tests, run
from tests.lab.traces import eventually

OLD, NEW = DRIVERS
OLDER = (
    *("--data", f"gpu.driver.version={OLD.partition('.')[0]}"),
    *("--data", f"gpu.toolkit.version={TOOLKITS[0]}"),
)
FIRST = (*OLDER, "--data", f"containers.version={OLDER_ENGINE}")
HARDWARE, SMI = "/var/lib/rig-lab/hardware.json", "/var/lib/rig-lab/gpu.json"
PASSWORD = "/etc/rig/mok-password"
DRIVER, LOAD = "gpu | Install NVIDIA's driver", "gpu | Load NVIDIA's driver"
ENGINE, PIN = "containers | Install the container engine", "/etc/apt/preferences.d/00rig-docker"


def boot_id(lab: Lab) -> str:
    return lab.ssh("cat /proc/sys/kernel/random/boot_id").stdout.strip()


def write(lab: Lab, path: str, state: dict[str, Any]) -> None:
    """Replace a state file. It stands for hardware, which a power cut does not change: so it is synced."""
    lab.sudo(f"mkdir -p /var/lib/rig-lab && cat >{path}.new && mv {path}.new {path} && sync", input=json.dumps(state))


def _state(path: str, **state: Any) -> str:
    """A command that merges ``state`` into a state file, and syncs it."""
    script = f"import json,os; p='{path}'; s=json.load(open(p)) if os.path.exists(p) else {{}}; s.update({state!r}); "
    return f"python3 -c \"{script}open(p,'w').write(json.dumps(s))\" && sync"


def again(lab: Lab) -> None:
    """Shut the machine down and boot it."""
    lab.stop()
    lab.start()


@pytest.fixture(scope="module", params=RELEASES)
def bare(request: pytest.FixtureRequest, machines: Machines) -> Iterator[Lab]:
    """A machine right after the installer, with the card in it."""
    lab = machines.boot(request.param, name=f"gpu-{request.param}", gpu=True)
    yield lab
    machines.end(lab)


on_debian_13_alone = pytest.mark.parametrize("bare", ["trixie"], indirect=True)


@on_debian_13_alone
def test_a_card_and_a_key_that_do_not_fit_are_refused_before_anything_is_changed(bare: Lab, tmp_path: Path) -> None:
    before = bare.sudo("dpkg-query -W; ls -lR /etc/apt /boot").stdout
    done = bare.deploy("-y", "--data", "gpu.driver.modules=proprietary")
    assert done.returncode == 1
    assert "is Blackwell, which the proprietary kernel modules do not drive; write 'gpu.driver.modules" in done.stderr
    for part in ("driver", "toolkit"):
        wrong = altered(bare, tmp_path / part, {"gpu": {part: {"key_fingerprints": ["0" * 40]}}})
        done = bare.deploy("-y", environment=wrong)
        assert done.returncode == 1
        assert f"gpu.{part}.key_fingerprints pins {'0' * 40}; do not go on before the vendor's own" in done.stderr
        assert "Beginning operation run" not in done.stderr
    assert bare.sudo("dpkg-query -W; ls -lR /etc/apt /boot").stdout == before


@dataclass(frozen=True)
class First:
    """The first deploy of a machine, with older versions than the newest in the repositories."""

    lab: Lab
    before: str
    """The boot in which it began."""
    said: str


@pytest.fixture(scope="module")
def first(bare: Lab) -> First:
    if bare.release == "bookworm":
        _pending_kernel(bare)
    before = boot_id(bare)
    assert bare.sudo("ls /sys/module").stdout.split() == ["nouveau"]
    done = bare.deploy("-y", *FIRST)
    assert done.returncode == 0, done.stderr[-6000:]
    return First(bare, before, done.stderr)


def _pending_kernel(lab: Lab) -> None:
    """Install another kernel, as security updates do; the archive no longer has headers of the running one."""
    running, later = KERNELS["debian12"]
    lab.sudo(f"lab-hardware kernel {later}")
    pin = f"Package: linux-headers-{running}\nPin: version *\nPin-Priority: -1\n"
    lab.sudo("cat >/etc/apt/preferences.d/gone", input=pin)


def test_the_first_deploy_reboots_once_and_goes_on(first: First) -> None:
    running, later = KERNELS["debian12"]
    waits = f" and the kernel {later} is installed, and {running} runs" if first.lab.release == "bookworm" else ""
    assert first.said.count("rebooting, because ") == 1
    assert f"rebooting, because nouveau holds the card{waits}; this deploy goes on afterwards" in first.said
    boots = first.lab.sudo("journalctl --list-boots --quiet --no-pager").stdout.split("\n")
    assert boot_id(first.lab) != first.before
    assert len([line for line in boots if line.strip() and "IDX" not in line]) == 2
    assert first.lab.sudo("ls /sys/module").stdout.split() == ["nvidia"]
    assert "engines | Run llama-70b in a container" in first.said


def test_the_chosen_branch_is_installed_although_there_is_a_newer_one(first: First) -> None:
    versions = first.lab.sudo("dpkg-query -W -f '${Version} ' nvidia-open libnvidia-ml1 libcuda1").stdout.split()
    assert versions == [f"{OLD}-1"] * 3
    assert f"Candidate: {OLD}-1" in first.lab.sudo("apt-cache policy nvidia-open").stdout


def test_a_second_run_changes_nothing_and_a_hold_is_in_its_way_only_where_another_version_is_asked_for(
    first: First,
) -> None:
    lab, held = first.lab, "nvidia-open nvidia-container-toolkit docker-ce containerd.io"
    lab.sudo(f"apt-mark hold {held}")
    assert run(lab, *FIRST).changes == set()
    refused = run(lab)
    assert refused.code == 1
    assert f"nvidia-open is on hold at {OLD}-1, and gpu.driver.version asks for" in refused.errors
    assert "nvidia-container-toolkit is on hold at" in refused.errors
    assert "Beginning operation run" not in refused.errors
    lab.sudo(f"apt-mark unhold {held}")


def test_a_container_keeps_its_card_across_a_reload_of_systemd(first: First) -> None:
    lab = first.lab
    image = lab.sudo("docker inspect --format '{{.Image}}' rig-llama-70b").stdout.strip()
    start = "docker run --detach --rm --network none --user 61000:61000 --cap-drop ALL --entrypoint sleep"
    lab.sudo(f"{start} --name with --device nvidia.com/gpu=all {image} infinity")
    # Without the card in its list, the kernel does not let a container open such a device: the check below could fail.
    lab.sudo(f"{start} --name without --user 0:0 --cap-add MKNOD {image} infinity")
    try:
        assert lab.sudo("docker exec with nvidia-smi -L").stdout.startswith("GPU 0: ")
        for _ in range(3):
            lab.sudo("systemctl daemon-reload")
        assert lab.sudo("docker exec with nvidia-smi -L").stdout.startswith("GPU 0: ")
        refused = lab.sudo(
            "docker exec --user 0 without sh -c 'mknod /tmp/nvidia0 c 10 229 && : </tmp/nvidia0'", check=False
        )
        assert "Operation not permitted" in refused.stderr
    finally:
        lab.sudo("docker rm --force with without")


def engine(lab: Lab) -> list[str]:
    """Versions of the container engine's packages."""
    return lab.sudo("dpkg-query -W -f '${Version} ' docker-ce docker-ce-cli").stdout.split()


def test_a_deliberate_upgrade_is_one_setting(first: First) -> None:
    lab, before = first.lab, boot_id(first.lab)
    newest = lab.sudo("apt-cache madison docker-ce").stdout.split()[2]
    assert [version.partition("-")[0] for version in engine(lab)] == [f"5:{OLDER_ENGINE}"] * 2
    upgraded = run(lab, "--data", f"containers.version={newest.partition('-')[0]}")
    assert {DRIVER, LOAD, "gpu | Install NVIDIA's container toolkit", ENGINE} <= upgraded.changes
    assert engine(lab) == [newest] * 2
    assert f"the kernel runs the driver's module {OLD}, and {NEW} is installed" in upgraded.errors
    assert boot_id(lab) != before
    assert lab.sudo("nvidia-smi --query-gpu=driver_version --format=csv,noheader").stdout.strip() == NEW
    assert f"libnvidia-ml.so.{NEW}" in lab.sudo("cat /var/run/cdi/nvidia.yaml").stdout
    toolkit = "nvidia-container-toolkit{,-base} libnvidia-container-tools libnvidia-container1"
    assert lab.sudo(f"dpkg-query -W -f '${{Version}} ' {toolkit}").stdout.split() == [TOOLKITS[1]] * 4
    # Without a version, the installed one stays.
    assert run(lab).changes == {f"containers | Write {PIN}"}
    assert engine(lab) == [newest] * 2


def test_host_tests_agree(first: First) -> None:
    verdict = host_tests(first.lab, "-k", "test_gpu or test_machine or test_thermal or test_containers")
    assert verdict.code == 0, verdict.output
    assert verdict.passed > 30, verdict.output


@on_debian_13_alone
def test_where_reboots_are_not_wanted_the_deploy_says_what_is_pending_and_stops(first: First) -> None:
    lab, before = first.lab, boot_id(first.lab)
    later = KERNELS["debian13"][1]
    lab.sudo(f"lab-hardware kernel {later}")
    stopped = run(lab, "--data", "gpu.reboot=never")
    assert stopped.code == 1
    assert f"a reboot is due: the kernel {later} is installed, and " in stopped.errors
    assert boot_id(lab) == before

    again(lab)
    assert lab.ssh("cat /proc/sys/kernel/osrelease").stdout.strip() == later
    assert run(lab, "--data", "gpu.reboot=never").changes == set()


@on_debian_13_alone
def test_a_power_cut_while_the_module_is_built_is_mended_by_the_next_run(first: First) -> None:
    lab = first.lab
    lab.sudo(_state(HARDWARE, dkms="slow"))
    process = lab.deploying("-y", *OLDER)
    try:
        eventually(lambda: lab.console(f"pgrep -f 'dkms install.*{OLD}'", check=False).stdout == "", seconds=120)
        lab.power_cut()
    finally:
        process.kill()
        process.communicate()
    lab.start()
    assert lab.console("dpkg --audit").stdout != ""
    lab.sudo(_state(HARDWARE, dkms="works"))
    assert "machine | Finish interrupted package installations" in run(lab, *OLDER).changes
    assert run(lab, *OLDER).changes == set()
    assert lab.sudo("nvidia-smi --query-gpu=driver_version --format=csv,noheader").stdout.strip() == OLD


@on_debian_13_alone
def test_a_module_that_is_gone_is_built_again(first: First) -> None:
    lab = first.lab
    lab.sudo(f"dkms remove -m nvidia -v {OLD}; dkms add -m nvidia -v {OLD}")
    assert run(lab, *OLDER).changes == {DRIVER}
    assert run(lab, *OLDER).changes == set()


@on_debian_13_alone
def test_secure_boot_is_explained_staged_and_gone_on_from(first: First) -> None:
    """With a key that is not trusted yet: the deploy stops, a person confirms at the screen, the next deploy goes
    on."""
    lab = first.lab
    # As before the first deploy: no driver, no key.
    lab.sudo("apt-get -y remove 'nvidia-*' dkms >/dev/null 2>&1; rm -rf /var/lib/dkms", check=False)
    write(lab, HARDWARE, {"secure_boot": True, "person": False})
    again(lab)

    stopped = run(lab)
    assert stopped.code == 1
    told = stopped.errors
    assert told.index("This run makes the key, stages it, and stops") < told.index("Beginning operation run")
    assert "1. Write down the one-time password:  sudo cat /etc/rig/mok-password" in told
    password = lab.sudo(f"cat {PASSWORD}").stdout.strip()
    assert len(password) == 12 and password not in told
    assert lab.sudo(f"stat -c '%a %U' {PASSWORD} /var/lib/dkms/mok.key").stdout.split() == ["600", "root"] * 2
    assert lab.sudo("dpkg-query -W -f '${Status}' nvidia-open", check=False).stdout != "install ok installed"
    # By the file's name: sudo writes its command into the journal, and this search would find itself.
    assert lab.sudo(f"journalctl --boot | grep -cF -f {PASSWORD}", check=False).stdout.strip() == "0"
    # Nobody has rebooted: the same key still waits, under the same password.
    assert run(lab).code == 1
    assert lab.sudo(f"cat {PASSWORD}").stdout.strip() == password
    # Staged by somebody else, with an unknown password: the deploy stages it with a password that it can report.
    lab.sudo(f"rm {PASSWORD}")
    assert run(lab).code == 1
    assert lab.sudo(f"cat {PASSWORD}").stdout.strip() not in ("", password)

    # Nobody came to the screen in time.
    again(lab)
    assert run(lab).code == 1
    assert lab.sudo(f"cat {PASSWORD}").stdout.strip() != password

    state = json.loads(lab.sudo(f"cat {HARDWARE}").stdout)
    write(lab, HARDWARE, {**state, "person": True})
    again(lab)
    # Every operation after the driver's may or may not change something: the test is that the deploy finishes.
    assert run(lab).code == 0
    assert lab.sudo("ls /sys/module").stdout.split() == ["nvidia"]
    assert lab.sudo(f"ls {PASSWORD}", check=False).stdout == ""
    assert run(lab).changes == set()


def doctor(lab: Lab, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rig", "doctor", *arguments],
        cwd=CHECKOUT,
        env=lab.environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )


def verdicts(lab: Lab, environment: Mapping[str, str]) -> tuple[int, dict[str, dict[str, str]]]:
    """The doctor's exit code, and each check by its name."""
    done = doctor(lab, NAME, "--json", environment=environment)
    assert done.stderr == ""
    found = json.loads(done.stdout)["machines"][NAME]
    return done.returncode, {check["name"]: check for check in found["checks"]}


def test_the_doctor_finds_nothing_on_a_machine_that_is_well(first: First) -> None:
    code, found = verdicts(first.lab, {})
    assert {name: check["result"] for name, check in found.items()} == dict.fromkeys(found, "good")
    assert (code, len(found)) == (0, 19)


@dataclass(frozen=True)
class Illness:
    """A way to break the machine, and the doctor's report of it."""

    command: str
    """Breaks it, as root."""
    cure: str
    seen: dict[str, str]
    """Each check that turns bad, and a part of its message."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Other settings for the doctor."""


KERNEL = "$(cat /proc/sys/kernel/osrelease)"
REFRESH = "systemctl reset-failed nvidia-cdi-refresh.service; systemctl restart nvidia-cdi-refresh.service"
BAR = "/run/rig-lab/pci/0000:01:00.0/resource"
FLAG = "/run/rig-lab/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
NO_CARD = (
    "mkdir /run/empty && mount --bind /run/empty /sys/bus/pci/devices",
    "umount /sys/bus/pci/devices && rmdir /run/empty",
)
SHAPE = {
    **{"layers": 2, "kv_heads": 2, "head_dim": 32, "hidden": 64, "vocabulary": 256},
    **{"tied": False, "parameters": 200000},
}
ON_CARD = {
    "models": {"catalogue": {"tiny": {"shape": SHAPE}}},
    "engines": {"llama-70b": {"gpu_layers": 1}},
}
"""An engine that computes on the card."""

ILLNESSES = {
    "headers gone": Illness(
        f"mv /lib/modules/{KERNEL}/build /lib/modules/kept",
        f"mv /lib/modules/kept /lib/modules/{KERNEL}/build",
        {"headers": "are missing: no module can be built"},
    ),
    "the module does not build": Illness(
        f"cp -a /var/lib/dkms /var/lib/kept; mkdir -p /var/lib/dkms/nvidia/{NEW}/build; "
        f"rm -rf /var/lib/dkms/nvidia/{NEW}/{KERNEL}; mv /lib/modules/{KERNEL}/updates /lib/modules/kept; "
        f"depmod {KERNEL} 2>/dev/null; {_state(HARDWARE, dkms='fails')}; "
        f"dkms install -m nvidia -v {NEW} -k {KERNEL}; true",
        f"rm -rf /var/lib/dkms; mv /var/lib/kept /var/lib/dkms; mv /lib/modules/kept /lib/modules/{KERNEL}/updates; "
        f"depmod {KERNEL} 2>/dev/null; {_state(HARDWARE, dkms='works')}",
        {
            "build": "the log of the build says: nvidia/nv-pci.c:210: error: too few arguments",
            "versions": "for the running kernel: none",
        },
    ),
    "the proprietary module": Illness(
        f"file=/lib/modules/{KERNEL}/updates/dkms/nvidia.ko; cp -a $file /run/kept; "
        "sed -i 's#Dual MIT/GPL#NVIDIA\\x00\\x00\\x00\\x00\\x00\\x00#' $file",
        f"mv /run/kept /lib/modules/{KERNEL}/updates/dkms/nvidia.ko",
        {"licence": "licence is NVIDIA: it is the proprietary one"},
    ),
    "a key that firmware does not know": Illness(
        f"cp -a /var/lib/dkms/mok.pub /run/kept; echo other > /var/lib/dkms/mok.pub; cp -a {FLAG} /run/flag; "
        f"printf '\\6\\0\\0\\0\\1' >{FLAG}",
        f"mv /run/kept /var/lib/dkms/mok.pub; mv /run/flag {FLAG}",
        {"secure boot": "the key that signs the module is not known to firmware"},
    ),
    "nouveau loaded": Illness(
        "mkdir /sys/module/nouveau", "rmdir /sys/module/nouveau", {"nouveau": "nouveau is loaded, and holds the card"}
    ),
    "another module in the kernel": Illness(
        "echo 590.48.01 > /sys/module/nvidia/version",
        f"echo {NEW} > /sys/module/nvidia/version",
        {"versions": "loaded: 590.48.01", "answer": "nvidia-smi ends with 18"},
    ),
    "no module in the kernel": Illness(
        "mv /sys/module/nvidia /run/kept",
        "mv /run/kept /sys/module/nvidia",
        {"versions": "loaded: none", "answer": "nvidia-smi ends with 9"},
    ),
    "a kernel waits for its boot": Illness(
        "touch /boot/vmlinuz-99.0.0-amd64",
        "rm /boot/vmlinuz-99.0.0-amd64",
        {"versions": "the kernel 99.0.0-amd64 is installed"},
    ),
    "firmware hides the card": Illness(
        _state(SMI, fault="no-devices"), f"rm {SMI}", {"answer": "nvidia-smi ends with 6: No devices were found"}
    ),
    "nvidia-smi hangs": Illness(_state(SMI, fault="hang"), f"rm {SMI}", {"answer": "nvidia-smi ends with 124"}),
    "a card with less memory": Illness(
        _state(SMI, gpus=[{"memory.total": 12282}]),
        f"rm {SMI}",
        {"memory": "the card has 12.0 GiB, and machine.hardware"},
    ),
    "the small window": Illness(
        f"cp {BAR} /run/kept; sed -i '2s/.*/0x00000000d0000000 0x00000000dfffffff 0x0000000000140208/' {BAR}",
        f"mv /run/kept {BAR}",
        {"resizable bar": "the small one: 256 MiB at 0000:01:00.0"},
    ),
    "Xid lines": Illness(
        _state(HARDWARE, kernel_log=["NVRM: Xid (PCI:0000:01:00): 79, pid=1, name=x, GPU has fallen off the bus."]),
        _state(HARDWARE, kernel_log=[]),
        {"xid": "Xid 79 since the boot (1 lines); the last: "},
    ),
    "no specification": Illness(
        "rm /var/run/cdi/nvidia.yaml",
        REFRESH,
        {"cdi": "CDI knows no device", "container": "unresolvable CDI devices"},
    ),
    "a specification of another driver": Illness(
        f'sed -i \'s/{NEW}/590.48.01/g; s#"hostPath": "[^"]*ml.so[^"]*"#"hostPath": "/etc/hostname"#\' '
        "/var/run/cdi/nvidia.yaml",
        REFRESH,
        {"cdi": "is of the driver 590.48.01, and"},
    ),
    "containers may not open the card": Illness(
        # Docker keeps a device's numbers until the specification is written again.
        f"rm /dev/nvidia0; mknod /dev/nvidia0 c 195 0; {REFRESH}",
        f"rm /dev/nvidia0; mknod -m 666 /dev/nvidia0 c 10 229; {REFRESH}",
        {"container": "nvidia-smi says: Failed to initialize NVML: Unknown Error"},
    ),
    "settings of another branch": Illness(
        "true",
        "true",
        {"branch": f"{NEW} is installed, and gpu.driver.version is {OLD}"},
        {"gpu": {"driver": {"version": OLD}}},
    ),
    "settings of modules that do not drive it": Illness(
        "true",
        "true",
        {"card": "which the proprietary kernel modules do not drive"},
        {"gpu": {"driver": {"modules": "proprietary"}}},
    ),
    "the card is out": Illness(*NO_CARD, {"card": "no card of NVIDIA's is on the PCI bus"}, ON_CARD),
    # No engine of the lab computes on it, so nothing is missing.
    "the card is out, and nobody asks for it": Illness(*NO_CARD, {}),
}


@pytest.mark.parametrize("illness", ILLNESSES)
def test_the_doctor_names_what_is_broken_and_nothing_else(first: First, tmp_path: Path, illness: str) -> None:
    ill = ILLNESSES[illness]
    environment = altered(first.lab, tmp_path / "lab", ill.settings) if ill.settings else {}
    first.lab.sudo(ill.command)
    try:
        code, found = verdicts(first.lab, environment)
    finally:
        first.lab.sudo(ill.cure)
    bad = {name: check for name, check in found.items() if check["result"] == "bad"}
    assert code == (1 if ill.seen else 0)
    assert bad.keys() == ill.seen.keys(), bad
    for name, part in ill.seen.items():
        assert part in bad[name]["evidence"]
        assert bad[name]["remedy"]


def test_the_doctor_says_when_it_cannot_look(first: First, tmp_path: Path) -> None:
    done = doctor(first.lab, environment=altered(first.lab, tmp_path / "lab", address="127.0.0.1", port=1))
    assert done.returncode == 2
    assert "127.0.0.1 does not answer on port 1" in done.stderr
    assert "Traceback" not in done.stderr
