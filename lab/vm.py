"""The lab's machine as a whole one in QEMU: kernel, firmware and memory of its own, emulated in software.

It takes the container's place: on the same bridge, with the same disk but for its kernel, beside the same stand-ins.
QEMU gets its network and its lines to the lab as open files, so that it leaves nothing in a file system or on an
interface.
"""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import shutil
import socket
import struct
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import disk
from lab.commands import LabError, run
from lab.progress import Reporter
from lab.recipes import qemu, vm
from lab.spec import Network, Spec
from lab.wire import Line

# Software emulation on two cores with a load of 12: a boot took 123 to 163 s, and 337 s with a larger initramfs.
BOOT_SECONDS = 900.0
STOP_SECONDS = 240.0
ANSWER_SECONDS = 60.0
BOOT_ID = "/proc/sys/kernel/random/boot_id"
MEMORY = "4096M"
FIRMWARE = "OVMF_CODE_4M.secboot.fd"
# Variables with the vendors' keys switch Secure Boot on; without keys the same firmware has it off.
VARIABLES = {True: "OVMF_VARS_4M.ms.fd", False: "OVMF_VARS_4M.fd"}
# The owner's names for enrolled keys: any will do.
OWNER = "7c5d0b5e-8a1c-4f0e-9a57-5d2f6a3b1e90"
_TUNSETIFF = 0x400454CA
_TAP, _WITHOUT_HEADER, _OFFLOADS = 0x0002, 0x1000, 0x4000


class Unanswered(LabError):
    """The machine does not answer: it is booting, or it hangs."""


class VM:
    def __init__(self, spec: Spec, network: Network, tree: Path, reporter: Reporter) -> None:
        self.spec = spec
        self.network = network
        self.tree = tree
        self.reporter = reporter
        self.secure_boot = spec.secure_boot
        self._process: subprocess.Popen[bytes] | None = None
        self._agent: Agent | None = None
        self._monitor: Line | None = None
        # Only this lab sees it, like every mount of the lab.
        run("mount", "--bind", str(spec.directory), str(tree / qemu.LAB))

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def boot(self) -> None:
        if not self._boot_partition.exists():
            # Once: afterwards the disk is the machine's own, which repairs it after a power cut.
            self._make_whole()
        self._lay_out()
        wire = _tap("vm0")
        run("ip", "link", "set", "vm0", "master", "lan0", "up")
        agent, agents = socket.socketpair()
        monitor, monitors = socket.socketpair()
        handed = {
            "wire": wire,
            "agent": agents.detach(),
            "monitor": monitors.detach(),
            # It reads the disk before it opens it for writing.
            "disk": os.open(self.spec.disk, os.O_RDWR | os.O_CLOEXEC),
            "read": os.open(self.spec.disk, os.O_RDONLY | os.O_CLOEXEC),
        }
        with (self.spec.logs / "qemu.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["chroot", str(self.tree), *self._command(**handed)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=tuple(handed.values()),
                start_new_session=True,
            )
        for descriptor in handed.values():
            os.close(descriptor)
        self._agent, self._monitor = Agent(Line(agent)), Line(monitor)
        self.wait(BOOT_SECONDS)

    def wait(self, seconds: float, before: str = "") -> None:
        """Wait until another boot than `before` is up; LabError if it takes longer."""
        deadline = time.monotonic() + seconds
        state = "nobody answers"
        # A slow machine reports that it is up before its network card has a name.
        address = f"ip -4 -oneline address show to {self.network.machine}"
        on_the_network = f"timeout {seconds:.0f} sh -c 'until [ -n \"$({address})\" ]; do sleep 0.2; done'"
        up = f"cat {BOOT_ID}; {on_the_network}; systemctl is-system-running --wait"
        while time.monotonic() < deadline:
            if not self.alive:
                raise LabError(f"the machine stopped while it booted; see {self.spec.logs}/qemu.log and console.log")
            with suppress(Unanswered):
                boot, _, state = self.run(up, timeout=seconds).stdout.strip().partition("\n")
                if boot != before and state in ("running", "degraded"):
                    return
            time.sleep(1)
        raise LabError(
            f"the machine did not boot within {seconds:.0f} s ({state}); see {self.spec.logs / 'console.log'}"
        )

    def run(self, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run `command` in it as root, without its network."""
        if not self.alive or self._agent is None:
            raise LabError("there is no machine to run a command on")
        return self._agent.run(command, timeout)

    def reboot(self, seconds: float) -> None:
        """Reboot from a login, and wait until the machine is up again."""
        before = self.run(f"cat {BOOT_ID}; systemctl reboot", timeout=ANSWER_SECONDS).stdout.split()[0]
        self.wait(seconds, before)

    def cut(self) -> None:
        """Pull the plug: everything that the machine did not sync is lost.

        Unsynced data is in the machine's memory, which ends with QEMU. Whatever has reached the disk is in the
        operator's memory, and stays, flushed or not: this disk has no cache of its own to lose.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._agent = self._monitor = None

    def shut_down(self) -> None:
        """Press the power button; cut the power if the machine does not follow."""
        if self._process is not None and self._monitor is not None and self.alive:
            for command in ("qmp_capabilities", "system_powerdown"):
                self._monitor.send({"execute": command})
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.cut()

    def enrol(self, certificate: str) -> None:
        """Enrol a machine owner's key in the firmware, as a person at its screen would; `certificate` is PEM text."""
        if self.alive:
            raise LabError("keys are enrolled while the machine is off; stop it first")
        self._lay_out()
        given = self.spec.directory / "owner.pem"
        given.write_text(certificate)
        variables = f"/{qemu.LAB}/{self._variables.name}"
        run(
            *("chroot", str(self.tree), "virt-fw-vars", "--inplace", variables),
            *("--add-mok", OWNER, f"/{qemu.LAB}/{given.name}"),
        )
        given.unlink()

    @property
    def _variables(self) -> Path:
        """The firmware's memory; each kind of firmware has a file of its own."""
        return self.spec.directory / f"firmware-{'secure' if self.secure_boot else 'open'}.fd"

    def _make_whole(self) -> None:
        """Prepare the disk for its first start as a whole machine; it may have been a container's until now."""
        disk.mount(self.spec)
        try:
            disk.prepare(self.spec, self.network)
            if not vm.has_kernel(self.spec.root):
                with self.reporter.step("Put a kernel on the disk") as note:
                    vm.give_kernel(self.spec.root, note)
        finally:
            disk.unmount(self.spec)

    @property
    def _boot_partition(self) -> Path:
        return self.spec.directory / qemu.BOOT_PARTITION

    def _lay_out(self) -> None:
        """Create the files beside the disk of a new machine."""
        if not self._variables.exists():
            _copy(self.tree / "usr/share/OVMF" / VARIABLES[self.secure_boot], self._variables)
        if not self._boot_partition.exists():
            _copy(self.tree / qemu.BOOT_PARTITION, self._boot_partition)

    def _command(self, wire: int, agent: int, monitor: int, disk: int, read: int) -> list[str]:
        lab = f"/{qemu.LAB}"
        firmware = f"/usr/share/OVMF/{FIRMWARE}"
        # Writes need not survive the operator's kernel, and a power cut of the machine does not touch it.
        kept = "if=virtio,format=raw,cache=unsafe"
        return [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
            # Without the memory management mode, anybody could write the variables that hold the trusted keys.
            *("-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"),
            *("-accel", "tcg,thread=multi,tb-size=1024"),
            # Linux panics with five levels of page tables or the wide compare-and-swap, as QEMU 7 emulated them.
            # The machine has no machines in it.
            *("-cpu", "max,la57=off,-cx16,-svm", "-smp", "2", "-m", MEMORY),
            *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={firmware}"),
            *("-drive", f"if=pflash,format=raw,unit=1,file={lab}/{self._variables.name}"),
            # The disk is outside the emulator's chroot.
            *("-add-fd", f"fd={disk},set=1", "-add-fd", f"fd={read},set=1"),
            *("-drive", f"{kept},discard=unmap,file=/dev/fdset/1"),
            *("-drive", f"{kept},file={lab}/{qemu.BOOT_PARTITION}"),
            *("-netdev", f"tap,id=net,fd={wire}", "-device", "virtio-net-pci,netdev=net"),
            *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
            *("-chardev", f"socket,id=agent,fd={agent}"),
            *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
            *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
            *("-chardev", f"file,id=console,path={lab}/log/console.log,append=on", "-serial", "chardev:console"),
        ]


class Agent:
    """The guest agent: commands as root on the machine, over a line that is no network."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._lock = threading.Lock()

    def run(self, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Raises Unanswered if the agent does not answer, and if the machine was started again meanwhile."""
        deadline = time.monotonic() + timeout
        words = ["bash", "-c", command]
        started = self._ask("guest-exec", path="/usr/bin/env", arg=words, **{"capture-output": True})
        pause = 0.02
        while not (state := self._ask("guest-exec-status", pid=started["pid"]))["exited"]:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(words, timeout)
            time.sleep(pause)
            pause = min(pause * 2, 1.0)
        out, err = (base64.b64decode(state.get(name, "")).decode(errors="replace") for name in ("out-data", "err-data"))
        return subprocess.CompletedProcess(words, state.get("exitcode", -state.get("signal", 0)), out, err)

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            self._greet()
            return dict(self._exchange(command, arguments))

    def _greet(self) -> None:
        """Reach the agent, and discard its answers to requests from before its start."""
        token = secrets.randbelow(1 << 31)
        self._line.send({"execute": "guest-sync", "arguments": {"id": token}})
        while self._answer().get("return") != token:
            pass

    def _exchange(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._line.send({"execute": command, "arguments": arguments})
        answer = self._answer()
        if "error" in answer:
            raise Unanswered(f"the machine's agent refused '{command}': {answer['error'].get('desc')}")
        found: dict[str, Any] = answer["return"]
        return found

    def _answer(self) -> dict[str, Any]:
        try:
            answer = self._line.receive(ANSWER_SECONDS)
        except TimeoutError:
            answer = None
        if answer is None:
            raise Unanswered("the machine's agent does not answer")
        return answer


def _tap(name: str) -> int:
    """A network interface as a file: it disappears with the last process that holds it."""
    # Not inherited by accident: QEMU gets its number.
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _TAP | _WITHOUT_HEADER | _OFFLOADS))
    return descriptor


def _copy(source: Path, target: Path) -> None:
    beside = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, beside)
    beside.rename(target)
