"""One deploy at a time to a machine: the connection holds a lock there, so that the lock cannot outlive its run."""

from __future__ import annotations

import getpass
import shlex
import socket
import subprocess
from typing import Protocol

import gevent
from pyinfra.api import DeployError, Host, StringCommand
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command_for_host

PLACE = "/run/rig-deploy.lock"
BEAT = 15.0
"""Seconds between two heartbeats."""
LIMIT = 90
"""Seconds without a heartbeat until the machine releases the lock: a cut connection gives no signal."""
PATIENCE = 3
"""Seconds for a run that has just ended to release the lock."""

# The programs in the loop do not inherit the lock: it ends with its shell.
_HOLD = f"""
exec 9>>{PLACE} || exit 1
flock -w {PATIENCE} 9 || {{ echo "held by $(cat {PLACE})"; exit 0; }}
printf "%s since %s (PID %s)" @WHO@ "$(date '+%F %T %Z')" $$ >{PLACE}
echo mine
while [ "$(timeout {LIMIT} dd bs=1 count=1 2>/dev/null 9>&-)" = . ]; do :; done
"""


class _Holder(Protocol):
    """The program on the machine that holds the lock while it receives heartbeats."""

    def first_line(self) -> str: ...

    def beat(self) -> None:
        """Send a heartbeat. Raises OSError if the program is gone."""

    @property
    def gone(self) -> bool: ...


class _Remote:
    def __init__(self, connector: SSHConnector, command: str) -> None:
        transport = None if connector.client is None else connector.client.get_transport()
        assert transport is not None
        self._channel = transport.open_session()
        self._channel.set_combine_stderr(True)
        self._channel.exec_command(command)

    def first_line(self) -> str:
        with self._channel.makefile("r") as answer:
            return str(answer.readline()).strip()

    def beat(self) -> None:
        self._channel.sendall(b".")

    @property
    def gone(self) -> bool:
        return bool(self._channel.closed or self._channel.exit_status_ready())


class _Local:
    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
        )

    def first_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode(errors="replace").strip()

    def beat(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b".")

    @property
    def gone(self) -> bool:
        return self._process.poll() is not None


_held: dict[str, tuple[_Holder, bool, str | None]] = {}
"""Holders of locks by host name, each with its way to root's rights."""


def hold(host: Host, *, sudo: bool, password: str | None) -> None:
    """Take the lock until the run ends. Raises DeployError if another run has it, with its owner and start."""
    command = _command(host, sudo, password)
    connector = host.connector
    holder: _Holder = _Remote(connector, command) if isinstance(connector, SSHConnector) else _Local(command)
    answer = holder.first_line()
    if answer != "mine":
        raise DeployError(refusal(host.name, answer))
    _held[host.name] = holder, sudo, password
    gevent.spawn(_beat, holder)


def keep(host: Host) -> None:
    """Take a lost lock again, as after a reboot by the run. Raises DeployError."""
    if host.name in _held:
        holder, sudo, password = _held[host.name]
        if holder.gone:
            hold(host, sudo=sudo, password=password)


def refusal(name: str, answer: str) -> str:
    """The message for an answer other than `mine`."""
    if answer.startswith("held by "):
        pid = answer.rpartition("(PID ")[2].rstrip(")")
        return (
            f"{name} is being deployed to, and nothing was changed: the lock is {answer}; wait for that run, or, where "
            f"nobody knows of it, end it: sudo kill {pid}"
        )
    return f"{name} does not give out the lock for a deploy, and nothing was changed: {answer or 'it says nothing'}"


def _command(host: Host, sudo: bool, password: str | None) -> str:
    who = shlex.quote(f"{getpass.getuser()}@{socket.gethostname()}")
    script = StringCommand(_HOLD.replace("@WHO@", who))
    made = make_unix_command_for_host(host.state, host, script, _sudo=sudo, _sudo_password=password)
    return str(made.get_raw_value())


def _beat(holder: _Holder) -> None:
    while not holder.gone:
        try:
            holder.beat()
        except OSError:
            return
        gevent.sleep(BEAT)
