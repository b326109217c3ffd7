"""Fetching: complete every file of the manifest from other files on the machine, the backup or the hub."""

from __future__ import annotations

import errno
import glob
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rigd.base import files, state
from rigd.base.errors import Failed, Trouble
from rigd.base.progress import Item, Progress
from rigd.models import hub, part
from rigd.models.hub import Hub
from rigd.models.manifest import File, Manifest, Model
from rigd.models.pace import Patience, Stopped, Throttle
from rigd.models.part import Part
from rigd.models.records import Records, Stamp, holds

FRUITFUL = 1 << 20
"""Bytes that an attempt must bring to count as a success."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a full disk."""


@dataclass(frozen=True)
class Job:
    """One file that is not known to be good."""

    model: Model
    file: File
    final: Path
    backup: Path | None
    item: Item


@dataclass
class Fetcher:
    """The state that all files of a fetch share."""

    manifest: Manifest
    records: Records
    token: str | None
    stop: threading.Event = field(default_factory=threading.Event)
    patience: Callable[[int, threading.Event], Patience] = Patience
    free: Callable[[Path], int] = field(default_factory=lambda: _free)

    def __post_init__(self) -> None:
        self.throttle = Throttle(self.manifest.limits.bytes_per_second, self.stop)
        self._copied: dict[Path, list[Path]] = {}
        """Files elsewhere on the machine that are copied instead of fetched, by destination."""

    def jobs(self, models: list[Model]) -> list[Job]:
        """The files that have no record as good. Reads none of them."""
        found = []
        for model in models:
            record = self.records.read(model.name)
            for file in model.files:
                final = Path(self.manifest.path(model, file))
                if not holds(record, file, Stamp.of(final)):
                    found.append(self._job(model, file, final))
        return found

    def _job(self, model: Model, file: File, final: Path) -> Job:
        backup = self.manifest.backup_path(model, file)
        return Job(model, file, final, None if backup is None else Path(backup), Item(model.name, file.path, file.size))

    def run(self, models: list[Model], progress: Progress, jobs: list[Job]) -> None:
        """Fetch the files. Raises Failed with a sentence for each failed file, after the others are complete."""
        self.manifest.require_disk()
        errors = self._all(jobs, self._look, progress)
        rest = [job for job in jobs if job.item.stage == "waiting"]
        self._require_space(rest)
        errors += self._all(rest, self._obtain, progress)
        for model in models:
            record = self.records.read(model.name)
            if all(holds(record, file, Stamp.of(Path(self.manifest.path(model, file)))) for file in model.files):
                self.records.clear(model.name)
        if errors:
            raise Failed("; ".join(errors))

    def _all(self, jobs: list[Job], work: Callable[[Job, Progress], None], progress: Progress) -> list[str]:
        """Do the work for each job, several at a time; return a sentence for each failure."""
        pool = ThreadPoolExecutor(self.manifest.limits.parallel)
        try:
            tasks = [pool.submit(self._one, job, work, progress) for job in jobs]
            return [error for task in tasks if (error := task.result()) is not None]
        finally:
            # After Ctrl-C, do not wait for a silent server.
            if sys.exception() is not None:
                self.stop.set()
            pool.shutdown(wait=not self.stop.is_set(), cancel_futures=True)

    def _one(self, job: Job, work: Callable[[Job, Progress], None], progress: Progress) -> str | None:
        try:
            work(job, progress)
        except Stopped:
            return None
        except (Failed, Trouble, OSError) as error:
            job.item.stage = "failed"
            job.item.error = _sentence(error, job)
            progress.say(job.item.error)
            return job.item.error
        return None

    # Files that are already there

    def _look(self, job: Job, progress: Progress) -> None:
        """Accept a file that was put there by hand if its hash is right; move a wrong one aside."""
        self._require_inside(job.final.parent)
        if job.final.is_symlink():
            progress.say(f"{job.final} is a link to {job.final.readlink()}; the file itself takes its place")
        stamp = Stamp.of(job.final)
        if stamp is not None:
            job.item.begin("checking")
            found = files.digest(job.final, job.item.advance) if stamp.size == job.file.size else ""
            if found == job.file.sha256 and Stamp.of(job.final) == stamp:
                self._done(job)
                return
            self._set_aside(job, found or files.digest(job.final, lambda count: None), progress)
        if self._found(job):
            self._done(job)
        else:
            job.item.begin("waiting", _size(_part(job.final)))

    def _found(self, job: Job) -> bool:
        """Link the same bytes from the model's own folder, where people put files, or from another version of it.

        The bytes get a second name, because an engine may start with the first: an update of a repository often changes
        a few small files and leaves the others, and an earlier layout had no folders for versions.
        """
        root = Path(self.manifest.directory).resolve()
        for path in self._same_name(job):
            if _size(path) != job.file.size or self._differs(path, job):
                continue
            if not path.is_relative_to(root):
                # With a second name outside the folder, rig-models could change the owner of someone else's file.
                self._copied.setdefault(job.final, []).append(path)
                continue
            job.item.begin("checking")
            if files.digest(path, job.item.advance) != job.file.sha256:
                continue
            job.final.parent.mkdir(parents=True, exist_ok=True)
            second = job.final.with_name(f".{job.final.name}.new")
            try:
                second.unlink(missing_ok=True)
                second.hardlink_to(path)
                second.replace(job.final)
            except OSError:
                # The file system has no hard links, or the folder is on another one.
                self._copied.setdefault(job.final, []).append(path)
                continue
            files.sync_directory(job.final.parent)
            return True
        return False

    def _same_name(self, job: Job) -> list[Path]:
        """The files with this name in the model's own folder or behind a link there, resolved; not the file itself."""
        home = Path(self.manifest.directory) / job.model.name
        named = (job.final, home / job.file.path, *sorted(home.glob(f"*/{glob.escape(job.file.path)}")))
        found = [path.resolve() for path in named if (path != job.final or path.is_symlink()) and path.is_file()]
        return [path for path in dict.fromkeys(found) if path != job.final.parent.resolve() / job.final.name]

    def _require_inside(self, folder: Path) -> None:
        """Require that a folder is inside the models' own. Raises Failed if a link leads out of it."""
        root = Path(self.manifest.directory)
        if not folder.resolve().is_relative_to(root.resolve()):
            raise Failed(
                f"{folder} leads out of {root} to {folder.resolve()}; remove the link, and put the files there instead"
            )

    def _differs(self, path: Path, job: Job) -> bool:
        """True if a record gives the file other bytes, so that it need not be read."""
        record = self.records.read(job.model.name)
        known = record.files.get(job.file.path)
        return (
            known is not None
            and path == (Path(record.directory) / job.file.path).resolve()
            and known.stamp == Stamp.of(path)
            and known.sha256 != job.file.sha256
        )

    def _set_aside(self, job: Job, sha256: str, progress: Progress) -> None:
        self.records.forget(job.model.name, job.file.path)
        kept = aside(job.final, sha256)
        job.final.rename(kept)
        progress.say(
            f"{job.final} is not what is pinned, but has SHA-256 {sha256}; it is kept as {kept.name} until "
            "rig-models prune"
        )

    # Missing files

    def _require_space(self, jobs: list[Job]) -> None:
        """Start nothing that cannot finish; the existing bytes of a file count."""
        needed = sum(job.file.size - min(job.file.size, _size(_part(job.final))) for job in jobs)
        directory = Path(self.manifest.directory)
        if needed > (free := self.free(directory)):
            raise Failed(
                f"{state.size(needed)} are missing and {directory} has {state.size(free)} free; "
                f"free {state.size(needed - free)} (rig-models prune names what no engine uses)"
            )

    def _obtain(self, job: Job, progress: Progress) -> None:
        job.final.parent.mkdir(parents=True, exist_ok=True)
        job.item.begin("checking")
        with part.opened(job.final, job.file.size, job.item.advance) as unfinished:
            sources = [*self._copied.get(job.final, []), *([] if job.backup is None else [job.backup])]
            if not any(self._from_disk(path, job, unfinished, progress) for path in sources):
                self._from_hub(job, unfinished, progress)
            unfinished.finish(job.final)
        self._done(job)

    def _done(self, job: Job) -> None:
        # Whatever owner and mode the file had: the user that runs this can change it, everyone else can only read it.
        descriptor = os.open(job.final, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(descriptor, os.geteuid(), os.getegid())
            os.fchmod(descriptor, 0o644)
        finally:
            os.close(descriptor)
        stamp = Stamp.of(job.final)
        assert stamp is not None
        self.records.write(self.manifest, job.model, job.file, stamp)
        job.item.begin("done", job.file.size)

    def _from_disk(self, source: Path, job: Job, unfinished: Part, progress: Progress) -> bool:
        """Complete the file from another one on this machine; if that is wrong or unreadable, undo everything."""
        before = unfinished.mark()
        try:
            if _size(source) != job.file.size:
                return False
            if self._completed(source, unfinished, job):
                return True
            unfinished.rewind(before)
            if before.size > 0 and self._is_right(source, job):
                # The beginning is damaged, for example by a power cut.
                unfinished.restart()
                before = unfinished.mark()
                if self._completed(source, unfinished, job):
                    return True
                unfinished.rewind(before)
            trouble = "is not what is pinned"
        except OSError as error:
            if error.errno in FULL:
                raise
            # If the destination's disk failed, it fails again with the hub's bytes.
            unfinished.rewind(before)
            trouble = f"cannot be read ({error.strerror})"
        progress.say(f"{source} {trouble}; it is left alone, and the hub is used instead")
        return False

    def _completed(self, source: Path, unfinished: Part, job: Job) -> bool:
        """Copy the missing bytes from a file; return True if the result has the right hash."""
        job.item.begin("copying", unfinished.size)
        if unfinished.size == 0 and files.clone(source, unfinished.descriptor):
            unfinished.read_in(job.item.advance)
        else:
            self._copy(source, unfinished, job)
        return unfinished.sha256 == job.file.sha256

    def _is_right(self, source: Path, job: Job) -> bool:
        job.item.begin("checking")
        return files.digest(source, job.item.advance) == job.file.sha256

    def _copy(self, source: Path, unfinished: Part, job: Job) -> None:
        with source.open("rb", buffering=0) as file:
            file.seek(unfinished.size)
            while data := file.read(files.CHUNK):
                if self.stop.is_set():
                    raise Stopped
                unfinished.append(data)
                job.item.advance(len(data))

    def _from_hub(self, job: Job, unfinished: Part, progress: Progress) -> None:
        """Repeat attempts until the hash is right. Raises Failed, Trouble or OSError with the last cause."""
        server = Hub(self.manifest.hub, self.token, self.manifest.limits.timeout)
        patience = self.patience(self.manifest.limits.attempts, self.stop)
        # Pieces fetched at different times may be of different files: then request the whole file, once.
        in_pieces = unfinished.size > 0
        # A server that begins again each time brings nothing new before this byte.
        furthest = most = unfinished.size
        while unfinished.size < job.file.size or unfinished.sha256 != job.file.sha256:
            if unfinished.size == job.file.size:
                self._give_up_wrong(job, unfinished, for_good=not in_pieces)
                in_pieces = False
            job.item.begin("fetching", unfinished.size)
            try:
                self._attempt(server, job, unfinished)
            except Trouble as trouble:
                reached = unfinished.size
                most = max(most, reached)
                if trouble.afresh:
                    unfinished.restart()
                fruitful = reached - furthest >= FRUITFUL
                furthest = reached if fruitful else furthest
                try:
                    patience.after(trouble, fruitful)
                except Trouble:
                    if unfinished.restarts:
                        raise Failed(_begins_again(trouble, most, job)) from None
                    raise
                progress.say(f"{job.model.name}/{job.file.path}: {trouble}; asking again at {unfinished.size} bytes")

    def _give_up_wrong(self, job: Job, unfinished: Part, for_good: bool) -> None:
        """Report a complete but wrong file. Raises Failed if another request is useless."""
        found = unfinished.sha256
        unfinished.restart()
        if for_good:
            unfinished.path.unlink()
            raise Failed(
                f"{self.manifest.hub} sent {job.file.size} bytes with SHA-256 {found}, and {job.file.sha256} is "
                "pinned; they were deleted; pin the new file, or find out who changed it"
            )

    def _attempt(self, server: Hub, job: Job, unfinished: Part) -> None:
        """Fetch from the part's end to the end of the file. Raises Trouble if fewer bytes come."""
        with server.open(job.model, job.file, unfinished.size) as body:
            if body.start == 0 and unfinished.size:
                unfinished.restart()
                job.item.begin("fetching")
            for piece in body.pieces(self.throttle.piece):
                if unfinished.size + len(piece) > job.file.size:
                    raise Trouble(f"the server sends more than {job.file.size} bytes", afresh=True)
                unfinished.append(piece)
                job.item.advance(len(piece))
                self.throttle.pass_through(len(piece))
        if unfinished.size < job.file.size:
            raise Trouble(f"the connection ended after {unfinished.size} of {job.file.size} bytes")


def fetcher(manifest: Manifest, records: Records) -> Fetcher:
    """A fetcher with the manifest's token. Raises BadInput if others can read the token's file."""
    return Fetcher(manifest, records, hub.token(Path(manifest.token_file) if manifest.token_file else None))


def aside(final: Path, sha256: str) -> Path:
    """The name under which a file with the wrong bytes is kept."""
    return final.with_name(f"{final.name}.{sha256[:12]}.aside")


def _begins_again(trouble: Trouble, most: int, job: Job) -> str:
    """The advice for a server that breaks off and cannot continue."""
    return (
        f"{trouble}; the server cannot continue a download, and at most {most} of {job.file.size} bytes came in one "
        f"attempt; given up: name another mirror in models.hub, or put the file at {job.final} yourself"
    )


def _part(final: Path) -> Path:
    return final.with_name(f"{final.name}.part")


def _size(path: Path) -> int:
    stamp = Stamp.of(path)
    return 0 if stamp is None else stamp.size


def _free(directory: Path) -> int:
    while not directory.is_dir():
        directory = directory.parent
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def _sentence(error: Exception, job: Job) -> str:
    """The cause of a file's failure, with the remedy."""
    name = f"{job.model.name}/{job.file.path}"
    if isinstance(error, OSError):
        if error.errno in FULL:
            missing = job.file.size - _size(_part(job.final))
            return f"{name}: the disk is full; free {state.size(missing)}, and it goes on from where it is"
        return f"{name}: {error.filename or job.final}: {error.strerror}"
    if isinstance(error, Trouble):
        return f"{name}: {error}; given up, the next run goes on from where it is"
    return f"{name}: {error}"
