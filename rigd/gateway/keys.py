"""The keys of clients: made, rotated and revoked in the records; `apply` brings these into force.

The records decide. The map and the running gateway follow from them, so the next `apply` puts right whatever a killed
run left behind.
"""

from __future__ import annotations

import grp
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from rigd.base import files, lock
from rigd.base.errors import BadInput, Failed
from rigd.gateway import admin, keymap, records
from rigd.gateway.config import Config
from rigd.gateway.keymap import Entries
from rigd.gateway.records import Key

PREFIX = "rig-"
"""In front of every key, so that programs that look for secrets in files can find one."""
BYTES = 32
"""Random bytes of a key."""
TRIES = 3
"""A gateway that reloads its settings hands its socket on to a new process meanwhile, which begins with the file."""
APPLY = "sudo rig-keys apply"


def add(config: Config, key: Key) -> str:
    """Record a new key with the properties of `key`, except for hash and time; return the key itself.

    Raises BadInput or Failed with nothing changed.
    """
    records.check(key, config.engines, config.limits)
    made, key = _made(key)

    def added(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        if key.name in [other.name for other in keys]:
            raise BadInput(
                f"{key.name} has a key already; a new one in its place: rig-keys rotate {key.name}; "
                f"other limits: rig-keys revoke {key.name}, and add it again"
            )
        return (*keys, key)

    _change(config, added)
    return made


def rotate(config: Config, name: str) -> str:
    """Record a new key in place of a client's old one; return it. Raises BadInput or Failed with nothing changed."""
    made = ""

    def rotated(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        nonlocal made
        old = _named(keys, name)
        if old.ends is not None and records.seconds(old.ends) <= datetime.now(UTC).timestamp():
            raise BadInput(f"the key of {name} ended at {old.ends}; revoke it, and add it again")
        made, new = _made(old)
        return tuple(new if key is old else key for key in keys)

    _change(config, rotated)
    return made


def revoke(config: Config, name: str) -> None:
    """Delete a key. Raises BadInput or Failed with nothing changed."""

    def revoked(keys: tuple[Key, ...]) -> tuple[Key, ...]:
        old = _named(keys, name)
        return tuple(key for key in keys if key is not old)

    _change(config, revoked)


def apply(config: Config) -> bool:
    """Bring the records into force; False if the gateway does not run, which reads the map when it starts.

    Raises Failed, also if the records cannot be used: then nothing was changed.
    """
    with _locked(config):
        wanted = keymap.entries(current(config), config.limits)
        try:
            _write(config, keymap.dump(wanted))
        except OSError as error:
            cause = f"{config.map} cannot be written: {error.strerror}{records.room(error)}"
            raise Failed(f"{cause}; until then the recorded keys are not in force: {APPLY}") from None
        try:
            return _load(config, wanted)
        except Failed as error:
            remedy = f"sudo systemctl restart {config.unit}"
            raise Failed(f"{error}; the recorded keys are in force once it starts again: {remedy}") from None


def current(config: Config) -> tuple[Key, ...]:
    """The recorded keys. Raises Failed if the records cannot be used, or are gone."""
    keys = records.read(Path(config.records))
    if keys is None:
        clients = len(_written(config))
        if clients:
            raise Failed(
                f"the records of the keys, {config.records}, are gone, and {config.map} has {clients} of them; "
                f"{records.RESTORE}; to begin with none, delete {config.map}"
            )
        return ()
    return keys


def in_force(config: Config) -> bool | None:
    """Whether the running gateway has exactly the recorded keys; None if it does not run. Raises Failed."""
    try:
        return admin.loaded(config.socket, config.map) == keymap.entries(current(config), config.limits)
    except admin.NotRunning:
        return None


def _made(key: Key) -> tuple[str, Key]:
    """A new key, and its record."""
    made = PREFIX + secrets.token_urlsafe(BYTES)
    now = datetime.now(UTC).strftime(records.TIME)
    return made, replace(key, sha256=hashlib.sha256(made.encode()).hexdigest(), made=now)


def _named(keys: tuple[Key, ...], name: str) -> Key:
    for key in keys:
        if key.name == name:
            return key
    raise BadInput(f"{name} has no key; those that have one: {', '.join(key.name for key in keys) or 'nobody'}")


def _change(config: Config, alter: Callable[[tuple[Key, ...]], tuple[Key, ...]]) -> None:
    with _locked(config):
        records.write(Path(config.records), alter(current(config)))


@contextmanager
def _locked(config: Config) -> Iterator[None]:
    """One rig-keys at a time, in a folder into which only root and the gateway may look."""
    folder, group = Path(config.records).parent, _group(config)
    if not folder.parent.is_dir():
        folder.parent.mkdir(parents=True)
        # Whatever the umask: others have folders of their own in it.
        folder.parent.chmod(0o755)
    folder.mkdir(mode=0o700, exist_ok=True)
    os.chown(folder, -1, group)
    folder.chmod(0o750)
    with lock.held(folder, wait=True):
        yield


def _load(config: Config, wanted: Entries) -> bool:
    """Load the map into the running gateway; False if none runs. Raises Failed."""
    try:
        for _ in range(TRIES):
            if admin.loaded(config.socket, config.map) == wanted:
                return True
            admin.load(config.socket, config.map, wanted)
        if admin.loaded(config.socket, config.map) != wanted:
            raise Failed(f"the running gateway does not keep {config.map}")
    except admin.NotRunning:
        return False
    return True


def _write(config: Config, text: str) -> None:
    """Write the map, if it is not there as it should be: a start of the gateway must not need room on the disk."""
    path, mode, group = Path(config.map), 0o640, _group(config)
    try:
        status = path.stat()
        if path.read_bytes() == text.encode() and (stat.S_IMODE(status.st_mode), status.st_gid) == (mode, group):
            return
    except FileNotFoundError:
        pass
    files.replace(path, text, mode=mode, group=group)


def _written(config: Config) -> Entries:
    """The map's file; empty without one."""
    try:
        return keymap.parse(Path(config.map).read_text(encoding="utf-8", errors="replace"))
    except FileNotFoundError:
        return {}


def _group(config: Config) -> int:
    try:
        return grp.getgrnam(config.group).gr_gid
    except KeyError:
        raise Failed(f"this machine has no group {config.group}; a deploy with gateway.enabled makes it") from None
