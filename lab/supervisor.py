"""Process 1 of the lab: in its own network, mounts and processes it runs the machine and its surroundings.

Everything the lab changes lives in these namespaces, so the kernel takes all of it back when this process
ends, however it ends. The operator's side gets one end of a virtual cable, which goes with the other end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab import disk
from lab.cache import BuildError, Cache
from lab.cgroups import Group
from lab.commands import LabError, run
from lab.goods import Goods
from lab.guard import clean
from lab.progress import Reporter
from lab.recipes import debian
from lab.spec import APT_PROXY_PORT, HUB_PORT, INDICES, PREFIX, REGISTRY_PORT, Network, Spec
from lab.wire import Line, Message, listen

BOOT_SECONDS = 120.0
STOP_SECONDS = 40.0
SERVICE_SECONDS = 30.0
POWER_OFF = signal.SIGRTMIN + 4
REBOOT_ASKED = 133
"""How systemd-nspawn ends when the machine reboots: whoever started it is to start it again."""


class Supervisor:
    def __init__(self, spec: Spec, guard: Line, outside: int, group: Group) -> None:
        self.spec = spec
        self.guard = guard
        self.group = group
        self.outside = f"/proc/{os.getpid()}/fd/{outside}"
        self.reporter = Reporter(guard.send)
        self.over = threading.Event()
        self.guard_gone = threading.Event()
        self._claim: str | None = None
        self._lock = threading.RLock()
        self._machine: subprocess.Popen[bytes] | None = None
        self._neighbour: subprocess.Popen[bytes] | None = None
        self._helpers: list[subprocess.Popen[bytes]] = []

    # What the starter waits for

    def build(self) -> None:
        cache = Cache(self.spec.cache, self.reporter)
        self.disk_image = debian.bare(cache, self.spec.release)
        self.goods = Goods.gather(cache)

    def up(self) -> None:
        with self.reporter.step("Lay the network"):
            self.network = self._cable()
            self._way_out()
            self._neighbour_host()
        with self.reporter.step("Start hub, registry and package cache"):
            self._stand_ins()
        if not self.spec.disk.exists():
            with self.reporter.step(f"Copy a disk with Debian {self.spec.release}"):
                disk.copy(self.disk_image, self.spec.disk)
        self.boot()
        threading.Thread(target=self._answer, args=[listen(self.spec.control, self.spec.uid)], daemon=True).start()
        settings = self.goods.settings(self.network)
        self.guard.send({"event": "ready", "index": self.network.index, "settings": settings})

    # The network

    def _cable(self) -> Network:
        """Claim the first free network: creating the interface either succeeds or says that it is taken."""
        run("mount", "--make-rprivate", "/")
        # systemd-nspawn writes here, and would leave it behind on the operator's machine.
        Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", "/run/systemd/nspawn")
        run("ip", "link", "set", "lo", "up")
        run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "link", "add", "lan0", "type", "bridge")
        free_to_choose = 1 if self.spec.settled else INDICES
        for index in (number % INDICES for number in range(self.spec.index, self.spec.index + free_to_choose)):
            network = Network(index)
            if self._outside("ip", "-4", "route", "show", network.subnet).stdout.strip():
                continue
            new = [
                "ip",
                "link",
                "add",
                network.interface,
                "type",
                "veth",
                "peer",
                "name",
                "up0",
                "netns",
                str(os.getpid()),
            ]
            if self._outside(*new).returncode == 0:
                self._claim = network.interface
                break
        else:
            raise LabError(
                f"{Network(self.spec.index).subnet} is in use, and this machine has been set up on it; "
                "stop the other lab, or remove this machine: python -m lab down --purge"
                if self.spec.settled
                else f"all networks of {PREFIX}.0.0/16 are in use; stop another lab"
            )
        run("ip", "addr", "add", f"{network.services}/24", "dev", "lan0")
        run("ip", "link", "set", "up0", "master", "lan0", "up")
        run("ip", "link", "set", "lan0", "up")
        self._outside("ip", "addr", "add", f"{network.operator}/24", "dev", network.interface)
        self._outside("ip", "link", "set", network.interface, "up")
        return network

    def _outside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the operator's network."""
        return subprocess.run(["nsenter", f"--net={self.outside}", *command], capture_output=True, text=True)

    def _way_out(self) -> None:
        """Packets that leave the lab do so as connections of one ordinary process of the operator's."""
        ready, tell = os.pipe()
        self._help(
            "way-out",
            [
                *("nsenter", f"--net={self.outside}", "slirp4netns", "--configure", "--mtu=65520"),
                *(
                    "--disable-host-loopback",
                    f"--ready-fd={tell}",
                    "--netns-type=path",
                    "/proc/1/ns/net",
                    "tap0",
                ),
            ],
            tell,
        )
        os.close(tell)
        if not os.read(ready, 1):
            raise LabError(f"slirp4netns did not start; see {self.spec.logs / 'way-out.log'}")
        os.close(ready)
        # Other labs are as far away as other people's networks, although both are beside the operator's.
        rules = f"""table ip way_out {{
 chain source {{
  type nat hook postrouting priority 100;
  oifname "tap0" masquerade
 }}
 chain forward {{
  type filter hook forward priority 0;
  oifname "tap0" ip daddr {PREFIX}.0.0/16 reject
 }}
}}
"""
        subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)

    def _neighbour_host(self) -> None:
        """A second host on the same wire: what it reaches, anybody on the owner's network reaches."""
        self._neighbour = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        own = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self._neighbour.pid}/ns/net").readlink() == own:
            time.sleep(0.01)
        run(
            "ip",
            "link",
            "add",
            "nb0",
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            str(self._neighbour.pid),
        )
        run("ip", "link", "set", "nb0", "master", "lan0", "up")
        for command in (
            "ip link set lo up",
            f"ip addr add {self.network.neighbour}/24 dev eth0",
            "ip link set eth0 up",
            f"ip route add default via {self.network.services}",
        ):
            run(*self._at("neighbour"), *command.split())

    def _stand_ins(self) -> None:
        address, logs = self.network.services, self.spec.logs
        python = [sys.executable, "-B", "-m"]
        configuration = self.spec.directory / "registry.json"
        configuration.write_text(json.dumps(self.goods.registry_configuration(self.network)))
        self._help("hub", [*python, "lab.hub", "--address", address, *self.goods.hub_arguments()])
        self._help("registry", [str(self.goods.registry_program), "serve", str(configuration)])
        listener = socket.create_server((address, APT_PROXY_PORT), backlog=64)
        store = self.spec.cache / "packages"
        self._help(
            "packages",
            [
                *("nsenter", f"--net={self.outside}", *python, "lab.aptproxy"),
                *(f"--socket={listener.fileno()}", f"--store={store}"),
            ],
            listener.fileno(),
        )
        listener.close()
        for port in (HUB_PORT, REGISTRY_PORT):
            self._wait_for_service(address, port, logs)

    def _help(self, name: str, command: list[str], *inherited: int) -> None:
        """Start a stand-in; it ends with the lab."""
        with (self.spec.logs / f"{name}.log").open("ab") as log:
            self._helpers.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=inherited)
            )

    def _wait_for_service(self, address: str, port: int, logs: Path) -> None:
        deadline = time.monotonic() + SERVICE_SECONDS
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection((address, port), timeout=1):
                return
            time.sleep(0.02)
        raise LabError(f"nothing answers at {address}:{port}; see the logs in {logs}")

    # The machine

    def boot(self) -> None:
        with self._lock, self.reporter.step("Boot the machine"):
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
                # Without these two the container engine starts and its containers do not.
                *("--capability=all", "--system-call-filter=@keyring bpf"),
                # The kernel has one clock and one set of modules, and they are the operator's. Even setting the time
                # zone would move the clock: the first settimeofday() after the kernel's boot shifts it by the offset.
                "--drop-capability=CAP_SYS_TIME,CAP_WAKE_ALARM,CAP_SYS_MODULE,CAP_SYS_RAWIO",
            ]
            self._machine = subprocess.Popen(
                ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.group.entry()), *nspawn],
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
            console.close()
            threading.Thread(target=self._boot_again, args=[self._machine], daemon=True).start()
            self._wait_for_boot(self._machine)

    def _boot_again(self, machine: subprocess.Popen[bytes]) -> None:
        """A machine that asks for a reboot gets it."""
        asked = machine.wait() == REBOOT_ASKED
        with self._lock:
            if asked and self._machine is machine:
                self._machine = None
                self._unplug()
                disk.unmount(self.spec)
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
                # Asked from inside: a deployed firewall lets nobody but the operator near the SSH server.
                asked = subprocess.run(
                    [*self._at("machine"), "systemctl", "is-system-running", "--wait"],
                    capture_output=True,
                    text=True,
                    timeout=BOOT_SECONDS,
                )
                state = asked.stdout.strip() or asked.stderr.strip()
                if state in ("running", "degraded"):
                    return
            time.sleep(0.1)
        raise LabError(
            f"the machine did not boot within {BOOT_SECONDS:.0f} s ({state}); see {self.spec.logs / 'console.log'}"
        )

    def _init(self) -> int | None:
        """The machine's first process, as seen from here."""
        if self._machine is None or self._machine.poll() is not None:
            return None
        with suppress(OSError):
            for child in Path(f"/proc/{self._machine.pid}/task/{self._machine.pid}/children").read_text().split():
                if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                    return int(child)
        return None

    def power_cut(self) -> None:
        """What a pulled plug does: nobody is asked, nothing is flushed by the machine."""
        with self._lock:
            if self._machine is not None:
                init = self._init()
                self._machine.kill()
                self._machine.wait()
                if init is not None:
                    # Takes every process of the machine with it; systemd-nspawn's own death does not.
                    with suppress(ProcessLookupError):
                        os.kill(init, signal.SIGKILL)
                    with suppress(ChildProcessError):
                        os.waitpid(init, 0)
                self._machine = None
                self._unplug()
                disk.unmount(self.spec)

    def _unplug(self) -> None:
        """The kernel removes the dead machine's cable only later, and the next boot lays one of that name."""
        subprocess.run(["ip", "link", "delete", f"vb-{self.network.interface}"], capture_output=True)

    def shut_down(self) -> None:
        """An orderly shutdown; a power cut when the machine does not follow."""
        with self._lock:
            init = self._init()
            if self._machine is not None and init is not None:
                os.kill(init, POWER_OFF)
                with suppress(subprocess.TimeoutExpired):
                    self._machine.wait(STOP_SECONDS)
            self.power_cut()

    # Requests

    def _at(self, where: str) -> list[str]:
        """What to put before a command so that it runs at `where`."""
        if where == "neighbour" and self._neighbour is not None:
            return ["nsenter", f"--net=/proc/{self._neighbour.pid}/ns/net"]
        if where == "services":
            return []
        init = self._init()
        if where != "machine" or init is None:
            raise LabError(f"there is no {where} to run a command on")
        return ["nsenter", "--target", str(init), "--all"]

    def _answer(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self._converse, args=[Line(connection)], daemon=True).start()

    def _converse(self, line: Line) -> None:
        request = line.receive()
        if request is None:
            return
        try:
            answer = self._do(request)
        except (LabError, OSError, subprocess.SubprocessError) as problem:
            answer = {"error": str(problem)}
        line.send(answer)
        line.close()
        if request["do"] == "down":
            self.over.set()

    def _do(self, request: Message) -> Message:
        match request["do"]:
            case "run":
                done = subprocess.run(
                    [*self._at(request["where"]), "bash", "-c", request["command"]],
                    input=request.get("input", ""),
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=request["timeout"],
                )
                return {"status": done.returncode, "out": done.stdout, "err": done.stderr}
            case "cut":
                self.power_cut()
            case "stop" | "down":
                self.shut_down()
            case "start":
                if self._init() is None:
                    self.power_cut()
                    self.boot()
            case "status":
                return {
                    "index": self.network.index,
                    "machine": self._init() is not None,
                    "release": self.spec.release,
                }
            case unknown:
                raise LabError(f"unknown request '{unknown}'")
        return {}

    # The end

    def end(self) -> None:
        """Kill everything in here, and do the guard's part where the guard is what was killed."""
        if self._claim is not None:
            # The kernel would do this, too, a moment after the last process is gone.
            self._outside("ip", "link", "delete", self._claim)
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        if self.guard_gone.is_set():
            clean(self.spec, self.group)


def _watch(supervisor: Supervisor) -> None:
    """The guard never says anything: hearing from it means that it is gone."""
    supervisor.guard.receive()
    supervisor.guard_gone.set()
    supervisor.over.set()


def main() -> None:
    spec = Spec.decode(sys.argv[1])
    ends: dict[str, Any] = json.loads(sys.argv[2])
    guard = Line(socket.socket(fileno=ends["guard"]))
    group = Group(ends["home"], ends["group"])
    supervisor = Supervisor(spec, guard, ends["outside"], group)
    threading.Thread(target=_watch, args=[supervisor], daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: supervisor.over.set())
    worker = threading.Thread(target=_work, args=[supervisor], daemon=True)
    worker.start()
    supervisor.over.wait()
    supervisor.end()


def _work(supervisor: Supervisor) -> None:
    try:
        supervisor.build()
        if supervisor.spec.only_build:
            supervisor.guard.send({"event": "built"})
            supervisor.over.set()
        else:
            supervisor.up()
    except (LabError, BuildError) as problem:
        supervisor.reporter.fail(str(problem))
        supervisor.over.set()
    except BaseException as problem:
        supervisor.reporter.fail(f"{type(problem).__name__}: {problem}; see {supervisor.spec.logs / 'lab.log'}")
        supervisor.over.set()
        raise


if __name__ == "__main__":
    main()
