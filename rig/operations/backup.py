"""The password of the backup: made once, on the machine; and never beside a backup that it does not open."""

from __future__ import annotations

import shlex

from pyinfra import host
from pyinfra.api import OperationError, operation

from rig.facts.backup import Backup, BackupState, Present
from rig.operations import Commands
from rigd.backup.config import PASSWORD


@operation()
def password(repository: str) -> Commands:
    """The machine has a password of 256 random bits for its backup. An existing password is never replaced.

    Raises OperationError if the machine has none and its disk holds a backup: that is from an earlier installation,
    and from here on the run would make new keys.
    """
    state: BackupState = host.get_fact(Backup, repository=repository)
    if not state.password and state.repository:
        raise OperationError(
            f"{repository} holds the backup of an earlier life of this machine, so no new key is made. To bring keys, "
            "settings and models back, run 'sudo rig-backup restore' on the machine, then this again; to begin without "
            f"them, move {repository} away; if only the password's file was lost: 'sudo rig-backup password --set'"
        )
    if not state.password:
        yield f"flock /etc/rig sh -c {shlex.quote(_GENERATE)}"
    elif state.password != "600 root:root":
        yield f"chown root:root {PASSWORD} && chmod 0600 {PASSWORD}"


@operation()
def retired(files: list[str]) -> Commands:
    """No backup runs any more, and no metrics of it are left. The password stays, and so do the backups."""
    there = host.get_fact(Present, paths=tuple(files))
    if there:
        yield f"rm -f {shlex.join(there)}"


_GENERATE = f"""set -eu
umask 077
[ ! -e {PASSWORD} ] || exit 0
# One name, so that what a power cut leaves of it is taken away by the next run.
new={PASSWORD}.new
trap 'rm -f "$new"' EXIT
rm -f "$new"
head -c 32 /dev/urandom | od -An -v -tx1 | tr -d " \\n" >"$new"
[ "$(wc -c <"$new")" = 64 ]
echo >>"$new"
sync "$new"
mv "$new" {PASSWORD}
sync "$(dirname {PASSWORD})"
"""
