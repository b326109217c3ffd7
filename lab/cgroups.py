"""A control group for each lab, so that labs never share one, and the cleanup knows what to remove."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def _mounts() -> list[tuple[str, Path]]:
    fields = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [(entry[2], Path(entry[1])) for entry in fields if entry[2] in ("cgroup", "cgroup2")]


def _own() -> str:
    """This process' path in the version 2 hierarchy, which systemd-nspawn uses for all hierarchies."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::").strip("/")
    return ""


NAME = "rig-lab-"


class Group:
    """`<where the guard started>/rig-lab-<its pid>`, with a leaf for helpers and one for the machine."""

    def __init__(self, home: str, name: str) -> None:
        self.home = home
        self.name = name

    @staticmethod
    def create() -> Group:
        """Make the group; in a control group that systemd lent, the calling process moves into a leaf."""
        home = _own()
        _sweep(home)
        group = Group(home, f"{NAME}{os.getpid()}")
        group._make()
        return group

    def _make(self) -> None:
        base = self._base()
        if base is None:
            return
        (base / "machine").mkdir(parents=True)
        if not self.home:
            # At the top, processes may stay in place, and the lab must not choose controllers.
            return
        (base / "helpers").mkdir()
        _move(os.getpid(), base / "helpers")
        for level in (base.parent, base):
            # Refused if controllers are on version 1: limits have no effect then.
            with suppress(OSError):
                controllers = (level / "cgroup.controllers").read_text().split()
                (level / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in controllers))

    def _base(self) -> Path | None:
        for kind, mount in _mounts():
            if kind == "cgroup2":
                return mount / self.home / self.name
        return None

    def entry(self) -> Path:
        """The file that takes the PID of each process of the machine."""
        base = self._base()
        return Path(os.devnull) if base is None else base / "machine" / "cgroup.procs"

    def remove(self) -> bool:
        """Leave the group and remove it from every hierarchy; False while its processes are still ending."""
        if f"/{self.name}/" in Path("/proc/self/cgroup").read_text():
            base = self._base()
            if base is not None:
                _move(os.getpid(), base.parent)
        tops = [mount / self.home / self.name for _, mount in _mounts()]
        for top in tops:
            for directory, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):
                    Path(directory).rmdir()
        return not any(top.exists() for top in tops)


def _sweep(home: str) -> None:
    """Remove the leftovers of a guard that was killed together with its supervisor."""
    for _, mount in _mounts():
        for group in (mount / home).glob(f"{NAME}*"):
            if not Path("/proc", group.name.removeprefix(NAME)).exists():
                Group(home, group.name).remove()


def _move(process: int, group: Path) -> None:
    with suppress(OSError):
        (group / "cgroup.procs").write_text(str(process))
