"""One backup from beginning to end: irreplaceable data first, then the models."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from rigd.backup import copies, metrics, password, schedule, state, target, vault
from rigd.backup.config import Config
from rigd.backup.copies import Outcome
from rigd.backup.state import Run, State
from rigd.base import configuration
from rigd.base.errors import Failed
from rigd.base.progress import Progress
from rigd.base.state import size
from rigd.models import manifest
from rigd.models.manifest import File, Manifest


@dataclass
class Backup:
    """The state that the parts of a backup share."""

    config: Config
    say: Callable[[str], None]
    clock: Callable[[], float] = field(default=time.time)

    @property
    def folder(self) -> Path:
        """Folder of the state."""
        return Path(self.config.state)

    def since(self) -> float | None:
        """Time at which the machine got its backup, which is the password's time; None before."""
        try:
            return Path(self.config.password).stat().st_mtime
        except FileNotFoundError:
            return None

    def due(self) -> bool:
        """True if a backup is due now. Never before the deploy has made a password."""
        since = self.since()
        if since is None:
            return False
        past = state.past(state.read(self.folder), since)
        return schedule.due(self.config.schedule, self.config.zone, self.clock(), past)

    def tell(self, known: State) -> None:
        """Write the metrics."""
        since = self.since()
        if since is not None:
            checked = (self.folder / state.CHECKED).exists()
            metrics.write(self.config, metrics.render(self.config, known, since, self.clock(), checked))

    def run(self) -> Run:
        """Make a backup and record its outcome; the caller holds the lock. Raises BadInput before anything is done."""
        secret = password.required(self.config.password)
        models = read_manifest(self.config)
        # Report an unknown time zone before the work, not after it.
        _ = self.config.zone
        known = state.begun(state.read(self.folder), self.clock())
        state.write(self.folder, known)
        assert known.last is not None
        done = self._parts(known.last, known.runs, secret, models)
        done = replace(done, ended=self.clock(), result="failed" if done.problems else "done")
        known = state.ended(known, done)
        state.write(self.folder, known)
        self.tell(known)
        return done

    def _parts(self, run: Run, number: int, secret: str, models: Manifest) -> Run:
        """Run each part by itself: a failure in one is no reason to skip the next."""
        problems: list[str] = []
        snapshot, outcome = None, Outcome()
        try:
            target.enter(self.config)
        except Failed as error:
            return replace(run, problems=(str(error),))
        try:
            snapshot = self._encrypt(number, secret)
        except (Failed, OSError) as error:
            problems.append(copies.sentence_of(error))
            self.say(problems[-1])
        try:
            if self.config.models:
                outcome = self._copy(number, models)
                problems += outcome.problems
        except (Failed, OSError) as error:
            problems.append(copies.sentence_of(error))
            self.say(problems[-1])
        if not target.still_there(self.config):
            problems = [f"{self.config.target} was taken away in the middle; connect it again, and: rig-backup run"]
            self.say(problems[0])
        return replace(
            run,
            problems=tuple(problems),
            snapshot=snapshot,
            copied=outcome.copied,
            files=outcome.files,
            bytes=outcome.bytes,
        )

    def _encrypt(self, number: int, secret: str) -> str:
        box = vault.Vault(secret)
        if not box.exists:
            self.say(f"making the repository {self.config.target}/{target.REPOSITORY}")
            box.make()
        try:
            box.open()
        except vault.WrongPassword as error:
            raise Failed(
                f"{error}; if that is a backup of an earlier life of this machine, bring it back (rig-backup restore "
                "--password-file -), or move the folder away to start over"
            ) from None
        sources = [path for path in self.config.sources if Path(path).exists()]
        snapshot = box.save(sources, self.config.password)
        self.say(f"encrypted: {', '.join(sources)} (snapshot {snapshot})")
        box.tidy(self.config.keep)
        box.check(vault.check_words(number, self.config.check_parts))
        return snapshot

    def _copy(self, number: int, models: Manifest) -> Outcome:
        target.MODELS.mkdir(exist_ok=True)
        shelf = copies.shelf(models)
        wanted = shelf.copies()
        with Progress([copy.item for copy in wanted]) as shown:
            outcome = copies.run(shelf, wanted, turn(number, self.config.check_parts), shown)
        self.say(
            f"models: {outcome.copied} copied, {outcome.files} of {len(wanted)} in the backup ({size(outcome.bytes)})"
        )
        return outcome


def turn(number: int, parts: int) -> Callable[[File], bool]:
    """A function that selects the files to read again in this run: each file once in `parts` runs."""
    return lambda file: int(file.sha256[:8], 16) % parts == number % parts


def read_manifest(config: Config) -> Manifest:
    """The manifest of the models. Raises BadInput."""
    return configuration.read(config.manifest, manifest.parse)
