"""The SSH connection: speed, and remedies for failures."""

from __future__ import annotations

import logging
import shlex
import socket
import time
from collections.abc import Iterable
from typing import Any

import click
import gevent
from paramiko import SSHException
from pyinfra.api import Host, State, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput

from rig import settings

FORGET = ("If this is expected, you can remove the bad key using:", "    ssh-keygen -R ")
"""pyinfra's advice on forgetting a host key: it names ~/.ssh/known_hosts, whatever file the key is in."""


def tune(host: Host) -> None:
    """Send each small packet at once: with Nagle's algorithm a command costs 48 ms over loopback, without it 5.5 ms.

    Also run each command with a umask of 022, as everybody may read files without a mode of their own: root's own umask
    may differ.
    """
    connector = host.connector
    run = connector.run_shell_command
    if not hasattr(run, "for_all"):

        def for_all(command: StringCommand, *arguments: Any, **options: Any) -> tuple[bool, CommandOutput]:
            return run(StringCommand("umask 022;", command), *arguments, **options)

        for_all.for_all = True  # type: ignore[attr-defined]
        connector.run_shell_command = for_all  # type: ignore[method-assign]
    if isinstance(connector, SSHConnector) and connector.client is not None:
        transport = connector.client.get_transport()
        if transport is not None and isinstance(transport.sock, socket.socket):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def refused(state: State, host: Host, seconds: float) -> str | None:
    """Why a new connection to the machine fails for so many seconds; None if it gets in and runs a command.

    It has nothing of the run's own connection, which a packet filter admitted earlier. Without SSH there is nothing to
    be locked out of.
    """
    if not isinstance(host.connector, SSHConnector):
        return None
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        problem: str | None = gevent.with_timeout(max(left, 1), _attempt, state, host, timeout_value="no answer")
        if problem is None or left <= 1:
            return problem
        # A server that has just been restarted may not listen yet.
        gevent.sleep(1)


def _attempt(state: State, host: Host) -> str | None:
    connector = SSHConnector(state, host)
    try:
        connector.connect()
        assert connector.client is not None
        _, output, _ = connector.client.exec_command("true")
        return None if output.channel.recv_exit_status() == 0 else "its shell runs no command"
    except (ConnectError, SSHException, OSError, EOFError) as error:
        return str(error)
    finally:
        if connector.client is not None:
            connector.client.close()


def known_as(host: settings.Host) -> str:
    """The machine's name in a known_hosts file."""
    return host.address if host.port == 22 else f"[{host.address}]:{host.port}"


def explained(host: settings.Host, error: str) -> str:
    """pyinfra's message about a failed connection, with the remedy."""
    kind = error.partition(" (")[0]
    if kind == "Could not connect":
        return (
            f"{host.address} does not answer on port {host.port}; "
            "is the machine switched on, and are its address and port in hosts.yml right?"
        )
    if kind == "Could not resolve hostname":
        return f"no address is known for '{host.address}'; correct it in hosts.yml, or write an IP address"
    if kind == "SSH host key error":
        forget = shlex.join(["ssh-keygen", "-f", str(host.known_hosts_file), "-R", known_as(host)])
        return f"{error}; if you know why the machine has a new one, forget the old one ({forget}) and run again"
    if kind == "Authentication error":
        key = f"the key {host.identity_file}" if host.identity_file else "any key of the SSH agent and of ~/.ssh"
        return (
            f"{host.user}@{host.address} does not accept {key}; correct user or identity_file in hosts.yml, "
            "or let the key in: ssh-copy-id"
        )
    return error


class Explanations(logging.Filter):
    """Adds remedies to pyinfra's log messages about failed connections."""

    def __init__(self, hosts: Iterable[settings.Host]) -> None:
        super().__init__()
        self._hosts = {host.name: host for host in hosts}

    def filter(self, record: logging.LogRecord) -> bool:
        text = click.unstyle(record.msg) if isinstance(record.msg, str) else ""
        if record.levelno == logging.WARNING:
            return not text.startswith(FORGET)
        name, _, error = text.removeprefix("[").partition("]")
        if record.levelno == logging.ERROR and name in self._hosts:
            told = explained(self._hosts[name], error.strip())
            if told != error.strip():
                record.msg = f"[{click.style(name, bold=True)}] {click.style(told, 'red')}"
        return True
