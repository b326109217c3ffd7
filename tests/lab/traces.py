"""Possible traces of a lab on the operator's machine, as a comparable value."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.machine import Lab

# These change by themselves.
RESTLESS = ("nf_conntrack_count", "nf_conntrack_buckets", "tcp_fastopen_key", "random")


@dataclass(frozen=True)
class Traces:
    """The parts of the kernel's state that show every network, mount and control group of a lab."""

    mounts: frozenset[str]
    interfaces: frozenset[str]
    rules: str
    sysctls: dict[str, str]
    groups: frozenset[str]
    loops: frozenset[str]

    @classmethod
    def take(cls) -> Traces:
        return cls(
            mounts=frozenset(Path("/proc/self/mountinfo").read_text().splitlines()),
            interfaces=frozenset(path.name for path in Path("/sys/class/net").iterdir()),
            rules=_output("nft", "list", "ruleset"),
            sysctls=_sysctls(),
            groups=frozenset(_groups()),
            loops=frozenset(path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")),
        )

    def left_behind(self, before: Traces, interface: str, directory: Path) -> list[str]:
        """New items, except those of labs that run beside this one."""
        news = [f"mount {line}" for line in self.mounts - before.mounts]
        news += [
            f"interface {name}"
            for name in self.interfaces - before.interfaces
            if name == interface or not name.startswith("rig-lab-")
        ]
        news += ["nftables rules"] if self.rules != before.rules else []
        news += [
            f"sysctl {name}: {value} became {self.sysctls[name]}"
            for name, value in before.sysctls.items()
            if name in self.sysctls and self.sysctls[name] != value
        ]
        news += [f"control group {path}" for path in self.groups - before.groups if not _guarded(path)]
        return news + [f"loop device of {file}" for file in self.loops if str(directory) in file]


def _groups() -> Iterator[str]:
    """Control groups of labs; others may appear and disappear meanwhile."""
    for parent, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"{parent}/{name}" for name in names if name.startswith("rig-lab-"))


def _guarded(group: str) -> bool:
    """True if it belongs to another lab, whose guard lives."""
    names = [part for part in Path(group).parts if part.startswith("rig-lab-")]
    return Path("/proc", names[0].removeprefix("rig-lab-")).exists()


@dataclass(frozen=True)
class Family:
    """The processes of one lab, recognisable after their parents are gone and their numbers used again."""

    starter: int
    guard: int
    supervisor: int
    members: frozenset[tuple[int, str]]
    directory: Path

    @classmethod
    def of(cls, lab: Lab, starter: int) -> Family:
        supervisor = int((lab.directory / "running").read_text())
        guard = _parent(_parent(supervisor))
        children: dict[int, list[int]] = {}
        for pid in _processes():
            children.setdefault(_parent(pid), []).append(pid)
        family, todo = set(), [guard]
        while todo:
            pid = todo.pop()
            family.add((pid, _started(pid)))
            todo += children.get(pid, [])
        return cls(starter, guard, supervisor, frozenset(family), lab.directory)

    def alive(self) -> list[str]:
        """Living members, and any process that mentions the lab's directory."""
        found = [f"{pid} {_command(pid)}" for pid, started in self.members if _started(pid) == started]
        own = {os.getpid(), self.starter}
        return found + [
            f"{pid} {_command(pid)}" for pid in _processes() if pid not in own and str(self.directory) in _command(pid)
        ]


def eventually(what: Callable[[], object], seconds: float = 20) -> None:
    """Wait until `what` is empty or false; fail with its last value."""
    deadline = time.monotonic() + seconds
    while still := what():
        assert time.monotonic() < deadline, f"after {seconds} s still: {still}"
        time.sleep(0.1)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _started(pid: int) -> str:
    """Its start time, which distinguishes two processes with the same number; empty for the dead."""
    fields = _stat(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _output(*command: str) -> str:
    words = list(command) if os.geteuid() == 0 else ["sudo", "-n", "--", *command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _sysctls() -> dict[str, str]:
    """The settings under net and vm, without those of interfaces, which come and go with them."""
    found = {}
    for line in _output("sysctl", "-a", "--pattern", r"^(net|vm)\.").splitlines():
        name, _, value = line.partition(" = ")
        if ".rig-lab-" not in name and not name.endswith(RESTLESS):
            found[name] = value
    return found
