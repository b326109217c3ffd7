"""Process 1 of the lab: it runs the machine and its surroundings in network, mount and process namespaces of its own.

Everything that the lab changes is in these namespaces, so the kernel undoes all of it when this process ends, however
it ends. The operator's side gets one end of a virtual cable, which disappears with the other end.
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
from typing import Any, Protocol

from lab import pool
from lab.cache import BuildError, Cache
from lab.cgroups import Group
from lab.commands import LabError, run
from lab.container import Container
from lab.goods import Goods
from lab.guard import clean
from lab.progress import Reporter
from lab.recipes import debian, qemu
from lab.recipes import vm as vm_disk
from lab.spec import APT_PROXY_PORT, HUB_PORT, INDICES, OPERATORS, PREFIX, REGISTRY_PORT, Network, Spec
from lab.vm import VM
from lab.wire import Line, Message, listen

SERVICE_SECONDS = 30.0


class Machine(Protocol):
    """The machine on the wire, a container or a whole machine."""

    @property
    def alive(self) -> bool: ...

    def boot(self) -> None: ...

    def run(self, command: str, timeout: float) -> subprocess.CompletedProcess[str]: ...

    def cut(self) -> None: ...

    def shut_down(self) -> None: ...


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
        self._neighbour: subprocess.Popen[bytes] | None = None
        self._helpers: list[subprocess.Popen[bytes]] = []

    # Work that the starter waits for

    def build(self) -> None:
        cache = Cache(self.spec.cache, self.reporter)
        self.disk_image = (vm_disk if self.spec.vm else debian).bare(cache, self.spec.release)
        self.emulator = qemu.tree(cache) if self.spec.vm else None
        self.goods = Goods.gather(cache)

    @property
    def artefacts(self) -> list[str]:
        """Names of the artefacts behind a bare machine and its deploy; each changes with its recipe."""
        return [self.disk_image.name, *self.goods.names]

    def up(self) -> None:
        with self.reporter.step("Lay the network"):
            self.network = self._cable()
            pool.attach(self.spec.cache)
            self._way_out()
            self._neighbour_host()
        with self.reporter.step("Start hub, registry and package cache"):
            self._stand_ins()
        if not self.spec.disk.exists():
            origin = self.spec.origin or self.disk_image
            if not origin.exists():
                origin.unlink(missing_ok=True)
                raise LabError(f"{origin} led to a disk that is gone; start again, and it is made again")
            with self.reporter.step(f"Copy a disk with Debian {self.spec.release}"):
                pool.copy(origin, self.spec.disk, self.spec.cache)
        self.machine: Machine = (
            VM(self.spec, self.network, self.emulator, self.reporter)
            if self.emulator
            else Container(self.spec, self.network, self.group, self._lock)
        )
        self.boot()
        threading.Thread(target=self._answer, args=[listen(self.spec.control, self.spec.uid)], daemon=True).start()
        settings = self.goods.settings(self.network)
        self.guard.send({"event": "ready", "index": self.network.index, "settings": settings})

    # The network

    def _cable(self) -> Network:
        """Claim the first free network: creating the interface either succeeds or reports that it is taken."""
        run("mount", "--make-rprivate", "/")
        # systemd-nspawn writes here, and would leave it behind on the operator's machine.
        Path("/run/systemd/nspawn").mkdir(parents=True, exist_ok=True)
        run("mount", "-t", "tmpfs", "tmpfs", "/run/systemd/nspawn")
        run("ip", "link", "set", "lo", "up")
        run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        run("ip", "link", "add", "lan0", "type", "bridge")
        for index in (number % INDICES for number in range(self.spec.index, self.spec.index + INDICES)):
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
            raise LabError(f"all networks of {PREFIX}.0.0/16 are in use; stop another lab")
        run("ip", "addr", "add", f"{network.services}/24", "dev", "lan0")
        run("ip", "link", "set", "up0", "master", "lan0", "up")
        run("ip", "link", "set", "lan0", "up")
        run("ip", "route", "add", OPERATORS, "dev", "lan0")
        self._outside("ip", "addr", "add", f"{network.operator}/32", "dev", network.interface)
        self._outside("ip", "link", "set", network.interface, "up")
        self._outside("ip", "route", "add", network.subnet, "dev", network.interface, "src", network.operator)
        return network

    def _outside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the operator's network."""
        return subprocess.run(["nsenter", f"--net={self.outside}", *command], capture_output=True, text=True)

    def _way_out(self) -> None:
        """Send packets that leave the lab as connections of one ordinary process of the operator's."""
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
        """Start a second host on the same wire: it reaches the same ports as anybody on the owner's network."""
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
            run(*self._next_door(), *command.split())

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
            self.machine.boot()

    # Requests

    def _run(self, where: str, command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        if where == "machine":
            return self.machine.run(command, timeout)
        before = self._next_door() if where == "neighbour" else []
        return subprocess.run(
            [*before, "bash", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )

    def _next_door(self) -> list[str]:
        """The command prefix that runs a command on the neighbour."""
        assert self._neighbour is not None
        return ["nsenter", f"--net=/proc/{self._neighbour.pid}/ns/net"]

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
                done = self._run(request["where"], request["command"], request["timeout"])
                return {"status": done.returncode, "out": done.stdout, "err": done.stderr}
            case "cut":
                with self._lock:
                    self.machine.cut()
            case "stop" | "down":
                with self._lock:
                    self.machine.shut_down()
            case "start":
                with self._lock:
                    if not self.machine.alive:
                        self.machine.cut()
                        self.boot()
            case "keep":
                with self._lock:
                    if self.machine.alive:
                        raise LabError("a disk is copied while its machine is off; stop it first")
                    pool.copy(self.spec.disk, Path(request["to"]), self.spec.cache)
            case "restore":
                if not Path(request["from"]).exists():
                    raise LabError(f"there is no snapshot {request['from']}")
                with self._lock:
                    self.machine.cut()
                    pool.copy(Path(request["from"]), self.spec.disk, self.spec.cache)
                    self.boot()
            case "status":
                return {
                    "index": self.network.index,
                    "machine": self.machine.alive,
                    "release": self.spec.release,
                    "vm": self.spec.vm,
                }
            case "reboot":
                self._whole_machine().reboot(request["timeout"])
            case "firmware":
                with self._lock:
                    self._whole_machine().secure_boot = request["secure_boot"]
            case "enrol":
                with self._lock:
                    self._whole_machine().enrol(request["certificate"])
            case unknown:
                raise LabError(f"unknown request '{unknown}'")
        return {}

    def _whole_machine(self) -> VM:
        if not isinstance(self.machine, VM):
            raise LabError("this machine is a container; a whole one is started by: python -m lab up --vm")
        return self.machine

    # The end

    def end(self) -> None:
        """Kill everything in here, and do the guard's part if the guard was killed."""
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
    """Watch the guard, which never sends anything: an event on its line means that it is gone."""
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
            supervisor.guard.send({"event": "built", "artefacts": supervisor.artefacts})
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
