"""Logins at the SSH server by key alone."""

from __future__ import annotations

from collections.abc import Collection

from pyinfra import host
from pyinfra.api import OperationError, operation

from rig import ssh
from rig.confirmation import Change
from rig.facts.files import Written
from rig.facts.ssh import SshServer
from rig.operations import Commands, files
from rig.operations.confirmation import confirmed
from rig.ssh import CONFIG

RESTART = "systemctl try-restart ssh.service"
"""Sessions run on: they are not the service's own process. A restart waits for the new one, unlike a reload."""
NEW = files.beside(CONFIG)
CHANGE = Change(
    name="ssh",
    keep=f'{{ [ ! -e {CONFIG} ] || : >"$kept/there"; }}',
    apply=f"{{ [ -e {CONFIG} ] || : >{CONFIG}; }} && mount --bind {NEW} {CONFIG} && mkdir -p /run/sshd && "
    "/usr/sbin/sshd -t && "
    "{ /usr/sbin/sshd -T | grep -qx 'passwordauthentication no' || "
    "{ echo 'a line of /etc/ssh/sshd_config before its Include lets passwords in; move it below' >&2; false; }; } && "
    f"{RESTART}",
    undo=f'umount {CONFIG} 2>/dev/null; [ -e "$kept/there" ] || rm -f {CONFIG}; {RESTART}',
    commit=f"umount {CONFIG} && {files.replace(CONFIG)} && {RESTART}",
)
"""The new file lies over the old one's place as a mount, which a power cut takes away."""
REMEDY = "see which key logs in, or write 'keys_only: false' in machine.ssh, and deploy again"


@operation()
def key_logins(wanted: bool | None, login_keys: Collection[str], text: str) -> Commands:
    """The SSH server has ``text`` as its first file, or none of ours, as the settings and the machine say.

    A new SSH connection must get in first. Raises OperationError if the settings want what is impossible.
    """
    server: ssh.Server = host.get_fact(SshServer)
    choice = ssh.choose(wanted, login_keys, server)
    if choice.refusal:
        raise OperationError(choice.refusal)
    if not choice.keys_only:
        if host.get_fact(Written, path=CONFIG) is not None:
            # Not on trial: without it, sshd lets more in than with it.
            yield f"rm {CONFIG} && /usr/sbin/sshd -t && {RESTART}"
        return
    if not files.holds(CONFIG, text):
        yield from files.prepared(CONFIG, text)
        yield from confirmed(CHANGE, REMEDY)
    elif server.outdated:
        yield RESTART
