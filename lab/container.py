"""The lab's machine as a container of systemd-nspawn: boots within seconds, on the operator's kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from lab import disk
from lab.cgroups import Group
from lab.commands import LabError
from lab.spec import Network, Spec

BOOT_SECONDS = 120.0
STOP_SECONDS = 40.0
POWER_OFF = signal.SIGRTMIN + 4
REBOOT_ASKED = 133
"""Exit code of systemd-nspawn for a reboot: its parent must start it again."""


class Container:
    def __init__(self, spec: Spec, network: Network, group: Group, alone: AbstractContextManager[bool | None]) -> None:
        """`alone`: the lock for starting or stopping the machine; the machine itself may want to, too."""
        self.spec = spec
        self.network = network
        self.group = group
        self._alone = alone
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self._init() is not None

    def boot(self) -> None:
        disk.mount(self.spec)
        disk.prepare(self.spec, self.network)
        console = (self.spec.logs / "console.log").open("ab")
        nspawn = [
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--settings=no", "--boot"),
            *("--directory", str(self.spec.root), f"--machine={self.network.interface}"),
            *(
                "--network-bridge=lan0",
                "--console=pipe",
                "--link-journal=no",
                "--timezone=off",
                "--resolv-conf=off",
            ),
            # Without these two, the container engine starts but its containers do not.
            *("--capability=all", "--system-call-filter=@keyring bpf"),
            # The kernel has one clock and one set of modules, and they are the operator's. Even setting the time zone
            # would move the clock: the first settimeofday() after the kernel's boot shifts it by the offset.
            "--drop-capability=CAP_SYS_TIME,CAP_WAKE_ALARM,CAP_SYS_MODULE,CAP_SYS_RAWIO",
        ]
        self._process = subprocess.Popen(
            ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.group.entry()), *nspawn],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        console.close()
        threading.Thread(target=self._boot_again, args=[self._process], daemon=True).start()
        self._wait_for_boot(self._process)

    def run(self, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run `command` in it as root, without its network."""
        return subprocess.run(
            [*self._inside(), "bash", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )

    def cut(self) -> None:
        """Pull the plug: everything that the machine did not sync is lost."""
        if self._process is not None and self._process.poll() is None:
            # The cable first: no packet may leave a machine whose disk is gone. The disk before the processes: ext4
            # writes some files when their writers end.
            self._unplug()
            disk.lose(self.spec)
        self._off()

    def shut_down(self) -> None:
        """Shut down in order; cut the power if the machine does not follow."""
        init = self._init()
        if self._process is not None and init is not None:
            os.kill(init, POWER_OFF)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.cut()

    def _off(self) -> None:
        """End the machine's last processes, and detach its disk, which writes whatever is not lost by now."""
        if self._process is None:
            return
        init = self._init()
        self._process.kill()
        self._process.wait()
        if init is not None:
            # Ends every process of the machine; systemd-nspawn's own death does not.
            with suppress(ProcessLookupError):
                os.kill(init, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(init, 0)
        self._process = None
        self._unplug()
        disk.unmount(self.spec)

    def _inside(self) -> list[str]:
        """The command prefix that runs a command in the machine."""
        init = self._init()
        if init is None:
            raise LabError("there is no machine to run a command on")
        return ["nsenter", "--target", str(init), "--all"]

    def _init(self) -> int | None:
        """PID of the machine's first process, as seen from the lab."""
        if self._process is None or self._process.poll() is not None:
            return None
        with suppress(OSError):
            for child in Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return None

    def _boot_again(self, machine: subprocess.Popen[bytes]) -> None:
        """Start the machine again after it requested a reboot."""
        asked = machine.wait() == REBOOT_ASKED
        with self._alone:
            if asked and self._process is machine:
                self.cut()
                try:
                    self.boot()
                except LabError as problem:
                    print(problem, file=sys.stderr)

    def _wait_for_boot(self, machine: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + BOOT_SECONDS
        state = "its init did not start"
        while time.monotonic() < deadline:
            if machine.poll() is not None:
                raise LabError(f"the machine stopped while it booted; see {self.spec.logs / 'console.log'}")
            if self._init():
                # Checked from inside: a deployed firewall lets only the operator near the SSH server.
                asked = self.run("systemctl is-system-running --wait", timeout=BOOT_SECONDS)
                state = asked.stdout.strip() or asked.stderr.strip()
                if state in ("running", "degraded"):
                    return
            time.sleep(0.1)
        raise LabError(
            f"the machine did not boot within {BOOT_SECONDS:.0f} s ({state}); see {self.spec.logs / 'console.log'}"
        )

    def _unplug(self) -> None:
        """Delete the dead machine's cable: the kernel deletes it only later, and the next boot creates one with that
        name."""
        subprocess.run(["ip", "link", "delete", f"vb-{self.network.interface}"], capture_output=True)
