"""The one process of the lab outside its namespaces: starts the supervisor, holds the leash, cleans up.

The guard and the supervisor watch each other: if one is killed, the other ends the lab and removes what the kernel does
not remove by itself (control groups, the file that marks the lab as running).
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from lab.cgroups import Group
from lab.spec import Spec
from lab.wire import Line, connect

NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def main() -> None:
    spec = Spec.decode(sys.argv[1])
    starter = connect(spec.leash)
    # The starter's sudo ends here and the guard goes on: no terminal, session or password prompt may end it.
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    _detach(spec)
    # An ordinary user's search path, which sudo may keep, lacks the folders of root's programs.
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/local/sbin:/usr/sbin:/sbin"
    with (spec.directory / ".lock").open("w") as lock:
        if _alone(lock):
            guard(spec, starter)
        else:
            starter.send({"event": "failed", "message": f"a lab is being started or stopped in {spec.directory}"})


def _alone(lock: TextIO) -> bool:
    """Take the lock; wait a moment for a guard that is still cleaning up."""
    for _ in range(100):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.1)
    return False


def _detach(spec: Spec) -> None:
    spec.logs.mkdir(parents=True, exist_ok=True)
    with Path(os.devnull).open("rb") as nothing, (spec.logs / "lab.log").open("ab") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def guard(spec: Spec, starter: Line) -> None:
    """Build, then run the lab until it ends by itself, or its starter disappears without sending `keep`."""
    group = Group.create()
    try:
        # Building needs the operator's network, running needs its own: two supervisors, one after the other.
        if _supervise(replace(spec, only_build=True), starter, group) and not spec.only_build:
            _supervise(spec, starter, group)
    finally:
        clean(spec, group)
        starter.send({"event": "ended"})


def _supervise(spec: Spec, starter: Line, group: Group) -> bool:
    """Run one supervisor to its end; True if its work was done."""
    ours, theirs = socket.socketpair()
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    unshare = subprocess.Popen(
        [
            "unshare",
            *NAMESPACES,
            *(() if spec.only_build else ("--net",)),
            *(sys.executable, "-B", "-m", "lab.supervisor"),
            spec.encode(),
            json.dumps({"guard": theirs.fileno(), "outside": outside, "home": group.home, "group": group.name}),
        ],
        pass_fds=[theirs.fileno(), outside],
    )
    theirs.close()
    os.close(outside)
    try:
        return _relay(spec, starter, Line(ours), unshare)
    finally:
        ours.close()
        unshare.kill()
        unshare.wait()


def _relay(spec: Spec, starter: Line, supervisor: Line, unshare: subprocess.Popen[bytes]) -> bool:
    """Pass events on until either end disappears; True if the supervisor reported that its work is done."""
    kept = done = False
    with selectors.DefaultSelector() as selector:
        selector.register(starter.connection, selectors.EVENT_READ, starter)
        selector.register(supervisor.connection, selectors.EVENT_READ, supervisor)
        while True:
            for key, _ in selector.select():
                line: Line = key.data
                while (message := line.receive()) is not None:
                    if line is supervisor:
                        if message["event"] == "ready":
                            _say_running(spec, unshare)
                        done = done or message["event"] == "built"
                        starter.send(message)
                    elif message.get("keep"):
                        kept = True
                        starter.send({"event": "kept"})
                    if not line.pending:
                        break
                else:
                    if line is supervisor or not kept:
                        return done
                    selector.unregister(starter.connection)


def _say_running(spec: Spec, unshare: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{unshare.pid}/task/{unshare.pid}/children").read_text().split()
    beside = spec.directory / ".running.part"
    beside.write_text(children[0] + "\n")
    os.chown(beside, spec.uid, spec.gid)
    beside.rename(spec.running)


def clean(spec: Spec, group: Group) -> None:
    """Remove what would outlive the namespaces; wait until the kernel has ended them."""
    close_masters(spec)
    spec.running.unlink(missing_ok=True)
    spec.control.unlink(missing_ok=True)
    for _ in range(100):
        if group.remove():
            break
        time.sleep(0.05)


def close_masters(spec: Spec) -> None:
    """End the shared SSH connection: its process would otherwise wait for a machine that is gone."""
    if (spec.directory / "ssh_config").exists() and shutil.which("ssh"):
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                ["ssh", "-F", spec.directory / "ssh_config", "-O", "exit", "rig-lab"],
                user=spec.uid,
                group=spec.gid,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=5,
            )


if __name__ == "__main__":
    main()
