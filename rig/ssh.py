"""Whether a machine's SSH server lets people log in by key alone: a plain function of settings and facts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

CONFIG = "/etc/ssh/sshd_config.d/00-rig.conf"
USUAL = (".ssh/authorized_keys", ".ssh/authorized_keys .ssh/authorized_keys2")
"""Files of keys by our configuration and by sshd's default; anything else is the owner's."""
OFF = "or write 'keys_only: false' in machine.ssh"


@dataclass(frozen=True)
class Server:
    """The SSH server of a machine."""

    installed: bool
    included: bool
    """Its main file includes the folder of our configuration."""
    key_files: str
    """`AuthorizedKeysFile` as it is in force."""
    outdated: bool
    """It was started before our configuration last changed."""


@dataclass(frozen=True)
class Choice:
    """Whether our configuration is to be there, or why that is impossible."""

    keys_only: bool
    refusal: str = ""


def choose(wanted: bool | None, login_keys: Collection[str], server: Server) -> Choice:
    """The choice for a setting; null is decided by the machine.

    ``login_keys``: keys that log in as the user of the deploy; empty for a login by password, or without SSH.
    """
    problem = _problem(login_keys, server)
    if wanted and problem:
        return Choice(keys_only=False, refusal=f"machine.ssh.keys_only cannot be true: {problem}, {OFF}")
    return Choice(keys_only=wanted is not False and not problem)


def _problem(login_keys: Collection[str], server: Server) -> str:
    if not server.installed:
        return "there is no SSH server; install openssh-server"
    if not login_keys:
        return "no key logs in as the user of this deploy; let yours in (ssh-copy-id)"
    if not server.included:
        first = "Include /etc/ssh/sshd_config.d/*.conf"
        return f"/etc/ssh/sshd_config does not include the files beside it; write '{first}' as its first line"
    if server.key_files not in USUAL:
        return f"sshd's AuthorizedKeysFile is yours ({server.key_files}); remove it from its configuration"
    return ""
