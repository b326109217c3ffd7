"""Settings of the running system with a file for the next boot and a value for now."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pyinfra import host
from pyinfra.api import operation

from rig.facts.machine import (
    Account,
    AccountState,
    AuthorizedKeys,
    KeyFile,
    OtherKeyFiles,
    SysctlValues,
    TimeZone,
)
from rig.operations import Commands


@operation()
def time_zone(zone: str) -> Commands:
    """The system's time zone is ``zone`` (a name of the tz database)."""
    if host.get_fact(TimeZone) != zone:
        # A running timedated trusts the value of its start, and would do nothing if that was ``zone``.
        yield f"systemctl stop systemd-timedated.service && timedatectl set-timezone {shlex.quote(zone)}"


@operation()
def account(user: str, groups: Sequence[str], shell: str, home: str) -> Commands:
    """``user`` has an account with this shell and home, and is a member of ``groups``, besides any others.

    A new account gets a home with the system's usual files; an existing home keeps its place, and becomes the user's
    own, which nobody else can write to. pyinfra's own operation walks all accounts of the machine for each user.
    """
    there: AccountState | None = host.get_fact(Account, user=user)
    name, place = shlex.quote(user), shlex.quote(home)
    if there is None:
        further = f"-G {shlex.quote(','.join(groups))} " if groups else ""
        # A group of the same name may exist without an account; useradd would refuse to make it again.
        own = f"$(getent group {name} >/dev/null && echo -g {name})"
        yield f"sh -c {shlex.quote(_home(home))}"
        yield f"useradd -d {place} -s {shlex.quote(shell)} {own} {further}-M {name}"
        yield _given(user, home)
        return
    changes = ["-d", home] if there.home != home else []
    changes += ["-s", shell] if there.shell != shell else []
    changes += ["-a", "-G", ",".join(groups)] if not there.groups.issuperset(groups) else []
    if changes:
        yield f"usermod {shlex.join([*changes, user])}"
    if there.home == home and there.folder and there.folder.partition(" ")[2] != user:
        yield _given(user, home)
    if there.home == home and there.open:
        yield f"chmod go-w {place}"


def _home(home: str) -> str:
    """A script that makes a home with the system's usual files where there is none.

    useradd does not sync them: a power cut leaves an account with empty files. So they are whole before the account
    exists, and get their place by a rename.
    """
    new = shlex.quote(f"{home}.rig-new")
    place, above = shlex.quote(home), shlex.quote(str(PurePosixPath(home).parent))
    return (
        f"set -e; [ ! -e {place} ] && [ ! -L {place} ] || exit 0; "
        f"rm -rf {new}; mkdir -p {new}; [ ! -d /etc/skel ] || cp -RP --preserve=mode /etc/skel/. {new}; "
        "mode=$(sed -n 's/^HOME_MODE[[:space:]]*//p' /etc/login.defs); "
        f'chmod "${{mode:-0700}}" {new}; sync --file-system {new}; mv -T {new} {place}; sync {above}'
    )


def _given(user: str, home: str) -> str:
    """A command that gives a home to its user, with those of the usual files that are there; a link stays as it is."""
    name, place = shlex.quote(user), shlex.quote(home)
    return (
        f"[ -L {place} ] || {{ chown --no-dereference {name}: {place} && "
        f"ls -A /etc/skel 2>/dev/null | while read -r file; do [ ! -e {place}/\"$file\" ] || "
        f"chown --recursive --no-dereference {name}: {place}/\"$file\"; done; }}"
    )


@operation()
def authorized_keys(user: str, folder: str, keys: Sequence[str]) -> Commands:
    """Exactly ``keys`` log in as ``user``: ``folder``/authorized_keys holds them, a line each, and no other file does.

    pyinfra's own operation first tries each key as a file name, and an RSA key is longer than most systems allow.
    """
    for other in host.get_fact(OtherKeyFiles, user=user, folder=folder):
        yield f"runuser -u {user} -- rm -f {shlex.quote(other)}"
    text = "".join(f"{key}\n" for key in keys)
    wanted = KeyFile(f"700 {user}", f"600 {user}", hashlib.sha256(text.encode()).hexdigest())
    if host.get_fact(AuthorizedKeys, folder=folder) == wanted:
        return
    there = shlex.quote(folder)
    new = shlex.quote(f"{folder}/authorized_keys.rig-new")
    yield f"[ ! -e {there} ] || chown --no-dereference {user}: {there}"
    # With the user's own rights: a link there leads to nothing that the user could not write without us.
    script = (
        f"umask 077 && mkdir -p {there} && chmod 00700 {there} && rm -f {new} && "
        f"printf %s {shlex.quote(text)} >{new} && sync {new} && mv --no-target-directory {new} {there}/authorized_keys"
        f" && sync {there}"
    )
    yield f"runuser -u {user} -- sh -c {shlex.quote(script)}"


@operation()
def sysctl(values: Mapping[str, str], file: str) -> Commands:
    """The kernel runs with ``values``, which are in ``file``."""
    live = host.get_fact(SysctlValues, keys=tuple(values))
    if any(live.get(key) != value for key, value in values.items()):
        yield f"sysctl --quiet --load {shlex.quote(file)}"
