"""The encrypted part of the backup, by restic; plain functions compute its commands."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigd.backup import command, password, target
from rigd.backup.config import Keep
from rigd.backup.target import REPOSITORY
from rigd.base.errors import Failed

TAG = "rig"
"""Marks our snapshots; those of others in the same repository are left alone."""
PROBED = 5.0
"""Seconds between two probes of the disk while restic writes to it."""
WRONG_PASSWORD = ("wrong password or no key found", "unable to open config file: Stat: ciphertext verification failed")


@dataclass(frozen=True)
class Snapshot:
    """One snapshot of the encrypted files."""

    id: str
    time: str
    """ISO 8601."""
    paths: tuple[str, ...]


def backup_words(sources: Iterable[str], left_out: str) -> list[str]:
    """The command for a snapshot of these files and folders, except one."""
    return ["backup", "--json", "--tag", TAG, "--exclude", left_out, "--", *sources]


def forget_words(keep: Keep) -> list[str]:
    """The command that removes old snapshots and frees their space.

    Not grouped by host and path, which is restic's default: a machine with a new name, or another folder to back up,
    would keep its earlier snapshots for ever.
    """
    kept = {"daily": keep.daily, "weekly": keep.weekly, "monthly": keep.monthly, "yearly": keep.yearly}
    limits = [word for name, count in kept.items() if count for word in (f"--keep-{name}", str(count))]
    return ["forget", "--quiet", "--tag", TAG, "--group-by", "", *limits, "--prune"]


def check_words(run: int, parts: int) -> list[str]:
    """The command that checks the whole structure, and one of `parts` of the data: another one in each run."""
    return ["check", "--quiet", f"--read-data-subset={run % parts + 1}/{parts}"]


CHECK_ALL = ("check", "--quiet", "--read-data")


class WrongPassword(Failed):
    """The repository has another password."""


class Vault:
    """The repository in the working directory, with its password."""

    def __init__(self, secret: str, read_only: bool = False) -> None:
        """`read_only`: write nothing, not even a lock, so that a failing disk can still be read."""
        self._secret = secret
        self._read_only = read_only

    @property
    def exists(self) -> bool:
        """True if there is a repository, whatever its password."""
        return (REPOSITORY / "config").exists()

    def make(self) -> None:
        """Create an empty repository."""
        self._run(["init", "--quiet"])

    def open(self) -> None:
        """Open the repository. Raises WrongPassword.

        Removes locks of dead runs: restic removes only those whose process is gone, or that are old.
        """
        locked = not self._read_only and any((REPOSITORY / "locks").glob("*"))
        self._run(["unlock", "--quiet"] if locked else ["cat", "config", "--quiet"])

    def save(self, sources: Sequence[str], left_out: str) -> str:
        """Make a snapshot; return its id. Raises Failed, also if a file could not be read."""
        done = self._run(backup_words(sources, left_out), fine=(0, 3))
        if done.code == 3:
            raise Failed(f"not everything could be encrypted: {done.cause}")
        return str(_last(done.output).get("snapshot_id", ""))[:8]

    def tidy(self, keep: Keep) -> None:
        """Remove the snapshots that are not to be kept."""
        self._run(forget_words(keep))

    def check(self, words: Sequence[str]) -> None:
        """Check the repository. Raises Failed if it is damaged."""
        self._run(words)

    def snapshots(self) -> list[Snapshot]:
        """Our snapshots, the oldest first."""
        found = json.loads(self._run(["snapshots", "--json", "--tag", TAG]).output) or []
        return sorted(
            (Snapshot(entry["short_id"], entry["time"], tuple(entry["paths"])) for entry in found),
            key=lambda snapshot: snapshot.time,
        )

    def extract(self, snapshot: Snapshot, folder: Path) -> None:
        """Extract a snapshot below a folder."""
        self._run(["restore", snapshot.id, "--quiet", "--target", str(folder)])

    def _run(self, words: Sequence[str], fine: Sequence[int] = (0,)) -> command.Done:
        with password.handed(self._secret) as descriptor:
            environment = {
                "RESTIC_REPOSITORY": str(REPOSITORY),
                # A path of the child's own: each program that opens it reads from the beginning.
                "RESTIC_PASSWORD_FILE": f"/proc/self/fd/{descriptor}",
                "RESTIC_PROGRESS_FPS": "0",
            }
            # A lock is a file: a full disk has no room for it, and the cause would stay hidden.
            options = ["--no-cache", *(["--no-lock"] if self._read_only or words[0] == "cat" else [])]
            watch = (lambda: None) if self._read_only else _Watch(words[0]).look
            done = command.run(["restic", *options, *words], environment, (descriptor,), watch)
        if any(sign in done.errors for sign in WRONG_PASSWORD):
            raise WrongPassword(f"the password does not open {_where()}")
        if done.code not in fine:
            raise Failed(_failure(words[0], done))
        return done


class _Watch:
    """Stop restic when the disk can no longer be written: restic itself would retry for a quarter of an hour and
    more."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = time.monotonic() + PROBED

    def look(self) -> None:
        """Probe the disk. Raises Failed."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PROBED
        refusal = target.refusal()
        if refusal is not None:
            raise Failed(
                f"restic {self._what} of {_where()} was ended: the disk takes nothing any more ({refusal}); look for "
                "its errors (journalctl -k), check it (fsck), and mount it again"
            )


def _failure(what: str, done: command.Done) -> str:
    if done.disk_is_full:
        return f"{_where()}: the disk is full; free some space (rig-backup prune names old models)"
    return f"restic {what} of {_where()} failed: {done.cause}"


def _where() -> str:
    try:
        return f"{Path.cwd()}/{REPOSITORY}"
    except OSError:
        # The disk was removed.
        return str(REPOSITORY)


def _last(output: str) -> dict[str, Any]:
    """The summary, the last line that restic prints."""
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    return {}
