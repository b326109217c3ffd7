"""Settings of the running system that have a file for the next boot and a value for now."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence

from pyinfra import host
from pyinfra.api import operation

from rig.facts.machine import AuthorizedKeys, KeyFile, SysctlValues, TimeZone
from rig.operations import Commands


@operation()
def time_zone(zone: str) -> Commands:
    """The system's time zone is ``zone`` (a name of the tz database)."""
    if host.get_fact(TimeZone) != zone:
        # While timedated runs it believes what it read when it started, and would do nothing if that was ``zone``.
        yield f"systemctl stop systemd-timedated.service && timedatectl set-timezone {shlex.quote(zone)}"


@operation()
def authorized_keys(user: str, folder: str, keys: Sequence[str]) -> Commands:
    """Exactly ``keys`` log in as ``user``: ``folder``/authorized_keys holds them, a line each.

    pyinfra's own takes a key for the name of a file first, and most systems know none as long as an RSA key is.
    """
    text = "".join(f"{key}\n" for key in keys)
    wanted = KeyFile(f"700 {user}", f"600 {user}", hashlib.sha256(text.encode()).hexdigest())
    if host.get_fact(AuthorizedKeys, folder=folder) == wanted:
        return
    there = shlex.quote(folder)
    new = shlex.quote(f"{folder}/authorized_keys.rig-new")
    yield f"[ ! -e {there} ] || chown --no-dereference {user}: {there}"
    # By the user's own hand: a link that stands there leads to nothing that the user could not write without us.
    script = (
        f"umask 077 && mkdir -p {there} && chmod 00700 {there} && rm -f {new} && "
        f"printf %s {shlex.quote(text)} >{new} && sync {new} && mv --no-target-directory {new} {there}/authorized_keys"
    )
    yield f"runuser -u {user} -- sh -c {shlex.quote(script)}"


@operation()
def sysctl(values: Mapping[str, str], file: str) -> Commands:
    """The kernel runs with ``values``, which stand in ``file``."""
    live = host.get_fact(SysctlValues, keys=tuple(values))
    if any(live.get(key) != value for key, value in values.items()):
        yield f"sysctl --quiet --load {shlex.quote(file)}"
