"""The throwaway root itself: real enough for what runs in it, and without a trace on the operator's machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from rig.operations import files
from tests.local.throwaway import Broken, Throwaway, throwaway
from tests.unit.sample import needs_root

pytestmark = needs_root


def traces() -> dict[str, object]:
    """What is told of the operator's machine by the kernel and by other programs than the harness."""
    listed = [
        "find",
        "/etc",
        "/root",
        "/opt",
        "/home",
        "-xdev",
        "-maxdepth",
        "2",
        "-printf",
        "%p %y %m %u %g %s %C@\\n",
    ]
    return {
        "files": set(subprocess.run(listed, capture_output=True, text=True, check=False).stdout.splitlines()),
        "mounts": {line.split(" ", 3)[3] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "namespaces": {path.name: str(path.readlink()) for path in Path("/proc/self/ns").iterdir()},
        "somaxconn": Path("/proc/sys/net/core/somaxconn").read_text(),
        "host name": os.uname().nodename,
        "open files": len(list(Path("/proc/self/fd").iterdir())),
    }


def test_no_trace_is_left_on_the_operators_machine(tmp_path: Path) -> None:
    before = traces()
    with throwaway(tmp_path) as root:
        assert root.apply(files.written, path="/etc/passwd.new", text="x").changed
        root.shell(
            "useradd guest; rm -r /home/owner; mkdir /opt/new /root/new; echo 77 >/proc/sys/net/core/somaxconn; "
            "hostname throwaway || true; mount -t tmpfs none /mnt; nft add table inet throwaway; "
            "sleep 1000 >/dev/null 2>&1 &"
        )
        (child,) = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()[-1:]
        below = [child, *Path(f"/proc/{child}/task/{child}/children").read_text().split()]
        assert len(below) == 2
    assert traces() == before
    assert list(tmp_path.iterdir()) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in below)


def test_usr_cannot_be_written_to(root: Throwaway) -> None:
    assert "Read-only file system" in root.shell("touch /usr/x", check=False)


def test_nothing_outside_the_machine_can_be_reached(root: Throwaway) -> None:
    assert root.shell("ls /sys/class/net 2>/dev/null; sed 1,2d /proc/net/dev | cut -d: -f1 | tr -d ' '") == "lo\n"
    assert root.shell("cat /proc/net/route | wc -l") == "1\n"


def test_each_root_is_a_fresh_one(tmp_path: Path) -> None:
    for _ in range(2):
        with throwaway(tmp_path) as root:
            assert root.shell("ls /srv; ls -A /home/owner") == ""
            root.shell("touch /srv/x /home/owner/x")


def test_what_breaks_in_it_is_told_and_it_goes_on(root: Throwaway) -> None:
    with pytest.raises(Broken, match="TypeError"):
        root.apply(files.written, nonsense=1)
    assert root.shell("echo on") == "on\n"
