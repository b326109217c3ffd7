"""A throwaway root, in which operations and facts run for real: the operator's own /usr, and everything else private.

A child of the test process enters namespaces of its own (mounts, processes, network, IPC, host name), builds a root on
a tmpfs and answers requests there through pyinfra's own `@local` connector. All of it ends with that process. It has no
systemd: what needs a running one is tested in the lab.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pickle
import shutil
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from pyinfra.api import Config, FactBase, Inventory, State, connectors
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import OperationError, PyinfraError
from pyinfra.api.operation import OperationMeta, add_op
from pyinfra.api.operations import run_ops
from pyinfra.connectors import local
from pyinfra.connectors.util import CommandOutput, OutputLine

from tests.unit.project import ROOT

NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
"""CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID and CLONE_NEWNET."""
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 32, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG = 1
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1

PATIENCE = 120
"""Seconds that a request may take."""

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
COPIED = ("alternatives", "default", "ld.so.cache", "login.defs", "nsswitch.conf", "pam.d", "security")
"""What programs of /usr look up in /etc: copied from the operator's machine where it has them."""
FILES = {
    "etc/passwd": """\
root:x:0:0:root:/root:/bin/sh
_apt:x:42:65534::/nonexistent:/usr/sbin/nologin
prometheus:x:120:120::/var/lib/prometheus:/usr/sbin/nologin
owner:x:1000:1000::/home/owner:/bin/sh
stranger:x:1001:1001::/home/stranger:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
""",
    "etc/group": "root:x:0:\nvideo:x:44:\nprometheus:x:120:\nowner:x:1000:\nstranger:x:1001:\nnogroup:x:65534:\n",
    "etc/shadow": "root:*:20000::::::\nowner:*:20000::::::\nstranger:*:20000::::::\n",
    "etc/gshadow": "root:*::\nvideo:*::\nowner:!::\nstranger:!::\n",
    "etc/protocols": "icmp 1\ntcp 6\nudp 17\nipv6-icmp 58\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "var/lib/dpkg/status": "",
    "var/lib/dpkg/available": "",
}
FOLDERS = (
    "dev", "etc/rig", "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/systemd/system",
    "home", "mnt", "opt", "proc", "root", "run", "srv", "var/cache/apt/archives/partial", "var/lib/apt/lists/partial",
    "var/lib/dpkg/info", "var/lib/dpkg/triggers", "var/lib/dpkg/updates", "var/log/apt", "var/mail", "var/tmp",
)  # fmt: skip


class Refused(Exception):
    """An operation raised OperationError; its sentence."""


class Broken(Exception):
    """The throwaway root itself failed; the traceback of its process."""


@dataclass(frozen=True)
class Outcome:
    """What an operation did."""

    foreseen: bool
    """Whether it said, when it was prepared, that it would change something."""
    changed: bool
    succeeded: bool
    output: str


class Throwaway:
    """The test's end of the line to a throwaway root."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line

    def would_change(self, operation: Callable[..., Any], **arguments: Any) -> bool:
        """Prepare the operation, as a dry run does; raises Refused."""
        changes: bool = self._request(_would_change, operation, arguments)
        return changes

    def apply(self, operation: Callable[..., Any], **arguments: Any) -> Outcome:
        """Run the operation; raises Refused."""
        outcome: Outcome = self._request(_apply, operation, arguments)
        return outcome

    def fact(self, fact: type[FactBase[Any]], **arguments: Any) -> Any:
        """Read a fact."""
        return self._request(_fact, fact, arguments)

    def shell(self, script: str, check: bool = True) -> str:
        """Run a script as root, outside pyinfra; what it printed, errors included."""
        code, output = self._request(_shell, script)
        assert not check or code == 0, f"exit code {code} of: {script}\n{output}"
        return str(output)

    def umask(self, mask: int) -> None:
        """Of all that runs from here on."""
        self._request(os.umask, mask)

    def _request(self, function: Callable[..., Any], *arguments: Any) -> Any:
        _send(self._line, (function, arguments))
        verdict, answer = _receive(self._line)
        if verdict != "done":
            raise {"refused": Refused, "broken": Broken}[verdict](answer)
        return answer


@contextmanager
def throwaway(folder: Path) -> Iterator[Throwaway]:
    """A fresh root, mounted at ``folder`` where nobody else sees it."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    child = os.fork()
    if child == 0:
        ours.close()
        _enter(theirs, folder)
    theirs.close()
    try:
        verdict, answer = _receive(ours)
        if verdict != "done":
            raise Broken(answer)
        yield Throwaway(ours)
    except BaseException:
        # It may be in the middle of a command that does not end.
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        ours.close()
        os.waitpid(child, 0)


def _send(line: socket.socket, message: Any) -> None:
    content = pickle.dumps(message)
    line.sendall(struct.pack("!Q", len(content)) + content)


def _receive(line: socket.socket) -> Any:
    """Raises EOFError when the other end is gone."""
    (length,) = struct.unpack("!Q", _exactly(line, 8))
    return pickle.loads(_exactly(line, length))


def _exactly(line: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        part = line.recv(length - len(content))
        if not part:
            raise EOFError
        content += part
    return content


def _enter(line: socket.socket, folder: Path) -> NoReturn:
    """In the child: leave the operator's namespaces, and keep a first process in the new ones."""
    try:
        _end_with_the_parent()
        _call("unshare", NAMESPACES)
        first = os.fork()
        if first:
            line.close()
            os.waitpid(first, 0)
            os._exit(0)
        # All other processes of its namespace end with the first one, and so do the mounts.
        _end_with_the_parent()
        _serve(line, folder)
    finally:
        # Whatever happens: what comes next is the test run itself, which goes on in the parent alone.
        os._exit(1)


def _serve(line: socket.socket, folder: Path) -> None:
    """Answer until the test closes its end, which raises EOFError."""
    try:
        _build(folder)
    except Exception:
        _send(line, ("broken", traceback.format_exc()))
        return
    _send(line, ("done", None))
    while True:
        _answer(line)


def _answer(line: socket.socket) -> None:
    function, arguments = _receive(line)
    try:
        _send(line, ("done", function(*arguments)))
    except OperationError as problem:
        _send(line, ("refused", str(problem)))
    except Exception:
        _send(line, ("broken", traceback.format_exc()))


def _build(folder: Path) -> None:
    _mount("none", "/", PRIVATE | RECURSIVE)
    _mount("tmpfs", str(folder), 0, "tmpfs", "mode=755,size=256m")
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    for name in ("shadow", "gshadow"):
        (folder / "etc" / name).chmod(0o640)
    for name, number in (("owner", 1000), ("stranger", 1001)):
        home = folder / "home" / name
        home.mkdir(mode=0o755)
        os.chown(home, number, number)
    for name in COPIED:
        source = Path("/etc", name)
        if source.is_dir():
            shutil.copytree(source, folder / "etc" / name, symlinks=True)
        elif source.exists():
            shutil.copy(source, folder / "etc" / name)
    for name in ("bin", "lib", "lib32", "lib64", "sbin"):
        source = Path("/", name)
        if source.is_symlink():
            (folder / name).symlink_to(source.readlink())
        elif source.is_dir():
            _show(source, folder)
    _show(Path("/usr"), folder)
    for source in _python():
        _show(source, folder)
    for name in DEVICES:
        (folder / "dev" / name).touch()
        _mount(f"/dev/{name}", str(folder / "dev" / name), BIND)
    (folder / "dev/fd").symlink_to("/proc/self/fd")
    _mount("proc", str(folder / "proc"), 0, "proc")
    os.chroot(folder)
    os.chdir("/")
    os.umask(0o022)
    os.environ.update(HOME="/root", LC_ALL="C", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    _raise_loopback()
    # pyinfra looks through the metadata of every installed package each time.
    vars(connectors)["entry_points"] = cache(connectors.entry_points)
    vars(local)["run_local_process"] = _run_local_process


def _run_local_process(
    command: str, stdin: Any = None, timeout: float | None = None, **_: Any
) -> tuple[int, CommandOutput]:
    """As pyinfra's own, whose gevent copies this whole process for each command."""
    assert stdin is None
    done = subprocess.run(
        command, shell=True, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=timeout
    )
    pairs = (("stdout", done.stdout), ("stderr", done.stderr))
    return done.returncode, CommandOutput(
        [OutputLine(name, line) for name, text in pairs for line in text.splitlines()]
    )


def _python() -> list[Path]:
    """Where this interpreter finds modules that it has not imported yet, and templates."""
    named = map(Path, (str(ROOT), sys.prefix, sys.base_prefix, *sys.path))
    places = {place.resolve() for place in named if place.is_dir()}
    outside = sorted(place for place in places if not place.is_relative_to("/usr"))
    return [place for place in outside if not any(other in place.parents for other in outside)]


def _show(source: Path, folder: Path) -> None:
    """A folder of the operator's, which cannot be written to here."""
    target = folder / source.relative_to("/")
    target.mkdir(parents=True, exist_ok=True)
    _mount(str(source), str(target), BIND | RECURSIVE)
    _mount("none", str(target), BIND | REMOUNT | READ_ONLY)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo".ljust(16, b"\0")
        answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, name + bytes(24))
        flags = struct.unpack_from("H", answer, 16)[0] | IFF_UP
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, name + struct.pack("H", flags) + bytes(22))


def _end_with_the_parent() -> None:
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)


def _mount(source: str, target: str, flags: int, kind: str = "none", data: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def _call(name: str, *arguments: Any) -> None:
    """A function of the C library that Python 3.11 does not have; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def _prepared(operation: Callable[..., Any], arguments: dict[str, Any]) -> tuple[State, OperationMeta]:
    state = _state()
    (meta,) = add_op(state, operation, **arguments).values()
    return state, meta


def _state() -> State:
    """Fresh, as in a run of its own."""
    # pyinfra's own functions have no types here.
    inventory: Any = Inventory
    config: Any = Config
    state = State(inventory((["@local"], {})), config())
    connect_all(state)
    return state


def _would_change(operation: Callable[..., Any], arguments: dict[str, Any]) -> bool:
    _, meta = _prepared(operation, arguments)
    return bool(meta.will_change)


def _apply(operation: Callable[..., Any], arguments: dict[str, Any]) -> Outcome:
    state, meta = _prepared(operation, arguments)
    foreseen = bool(meta.will_change)
    try:
        run_ops(state)
    except PyinfraError:
        # The only host failed, which the operation's own outcome says better.
        if not meta.is_complete() or meta.did_succeed():
            raise
    return Outcome(foreseen, meta.did_change(), meta.did_succeed(), meta.stdout + meta.stderr)


def _fact(fact: type[FactBase[Any]], arguments: dict[str, Any]) -> Any:
    state = _state()
    (host,) = state.inventory
    return host.get_fact(fact, **arguments)


def _shell(script: str) -> tuple[int, str]:
    done = subprocess.run(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout
