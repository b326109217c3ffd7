"""Cost of a backup with nothing to do, over the number of model files, next to rsync comparing the same trees.

The models' part is measured by itself, with the program's own start as a further reference; the encrypted part costs
the same for any number of models, and is measured once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rigd.backup import config as configs
from rigd.backup import copies, ledger
from rigd.backup.config import Config
from rigd.models import manifest, records
from rigd.models.manifest import File, Manifest, Model
from rigd.models.records import Record, Stamp, Verified

CHECKOUT = Path(__file__).resolve().parents[1]
COUNTS = (10, 100, 1000, 10000)
SIZE = 4096
"""Bytes of each file; unread files cost the same at any size."""


class CannotMeasure(Exception):
    """The measurement lacks a condition; the message is shown to the owner."""


@dataclass(frozen=True)
class Row:
    """Seconds, median of all turns."""

    files: int
    models: float
    """The models' part, in this process."""
    rsync: float
    """`rsync --archive --dry-run` of the models' folder to their copies."""


@dataclass(frozen=True)
class Report:
    """Seconds, median of all turns."""

    rows: tuple[Row, ...]
    start: float
    """`rig-backup run --if-due` when nothing is due: the cost of each check by cron, every quarter of an hour."""
    run: float
    """`rig-backup run` with nothing to do for 10 files, the encrypted part included."""
    restic: float
    """`restic cat config` of the same repository: the minimum that restic needs for a password."""

    def __str__(self) -> str:
        lines = ["files    models' part    rsync --dry-run    ratio"]
        lines += [
            f"{row.files:5}    {row.models:9.3f} s       {row.rsync:9.3f} s    {row.models / row.rsync:5.2f}"
            for row in self.rows
        ]
        return "\n".join(
            [
                *lines,
                "",
                f"rig-backup run --if-due, nothing due    {self.start:.3f} s",
                f"rig-backup run, nothing to do           {self.run:.3f} s",
                f"restic cat config (reference)           {self.restic:.3f} s",
            ]
        )


class Bench:
    """Folders with this number of files, all in the backup already."""

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        for name in ("models", "records", "etc", "backup/models"):
            (root / name).mkdir(parents=True)
        content = os.urandom(SIZE)
        digest = hashlib.sha256(content).hexdigest()
        model = Model("many", "made/up", "a" * 40, tuple(File(f"{n}.bin", SIZE, digest) for n in range(count)))
        self.manifest = Manifest("http://127.0.0.1:9", str(root / "models"), str(root / "records"), (model,))
        folder = Path(self.manifest.folder(model))
        folder.mkdir(parents=True)
        for file in model.files:
            (folder / file.path).write_bytes(content)
        subprocess.run(["cp", "--archive", str(root / "models/many"), str(root / "backup/models/many")], check=True)
        self._put_on_record(model)
        self.config = Config(
            target=str(root / "backup"),
            must_be_mount=False,
            timezone="Etc/UTC",
            metrics=str(root / "none"),
            own=str(root / "etc"),
            manifest=str(root / "etc/models.json"),
            password=str(root / "etc/password"),
            state=str(root / "state"),
            check_parts=256,
        )
        Path(self.config.manifest).write_text(manifest.dump(self.manifest), encoding="utf-8")
        secret = Path(self.config.password)
        secret.touch(mode=0o600)
        secret.write_text("made-up\n", encoding="utf-8")
        (root / "etc/backup.json").write_text(configs.dump(self.config), encoding="utf-8")

    def _put_on_record(self, model: Model) -> None:
        """Write the records of a fetch and a first backup at once instead of file by file."""
        known = records.make(Path(self.manifest.records))
        book = ledger.Ledger(self.root / "backup/models")
        verified: dict[str, Verified] = {}
        for file in model.files:
            for path, note in ((Path(self.manifest.path(model, file)), True), (self._copy(model, file), False)):
                stamp = Stamp.of(path)
                assert stamp is not None
                if note:
                    verified[file.path] = Verified(stamp, file.sha256, "2026-01-01T00:00:00+00:00")
                else:
                    place = copies.place(self.manifest, model, file)
                    entry = ledger.Entry(file.sha256, stamp, "2026-01-01T00:00:00+00:00", "made/up", "a" * 40)
                    book.entries[place] = entry
        book.forget()
        record = Record("made/up", "a" * 40, str(self.manifest.folder(model)), verified)
        (known.directory / "many.verified").write_text(json.dumps(asdict(record)), encoding="utf-8")

    def _copy(self, model: Model, file: File) -> Path:
        return self.root / "backup/models" / copies.place(self.manifest, model, file)

    def models(self) -> None:
        """The models' part of a run."""
        script = (
            "import sys, os; from pathlib import Path; from rigd.backup import copies; "
            "from rigd.backup.backup import turn; from rigd.models import manifest; "
            "from rigd.base.progress import Progress; "
            f"os.chdir({str(self.root / 'backup')!r}); "
            f"shelf = copies.shelf(manifest.parse(Path({self.config.manifest!r}).read_text())); "
            "wanted = shelf.copies(); shown = Progress([copy.item for copy in wanted]); "
            "found = copies.run(shelf, wanted, turn(0, 1 << 31), shown); "
            f"sys.exit(found.copied or found.files != {len(self.manifest.models[0].files)} or bool(found.problems))"
        )
        _run([sys.executable, "-c", script])

    def rsync(self) -> None:
        _run(["rsync", "--archive", "--dry-run", f"{self.root}/models/", f"{self.root}/backup/models/"])

    def if_due(self) -> None:
        self._program("run", "--if-due")

    def backup(self) -> None:
        self._program("run")

    def restic(self) -> None:
        repository = f"{self.root}/backup/restic"
        words = ["restic", "--no-cache", "--no-lock", "--repo", repository, "cat", "config"]
        _run(words, RESTIC_PASSWORD_FILE=self.config.password)

    def _program(self, *words: str) -> None:
        _run([sys.executable, "-m", "rigd.backup", *words, "--config", str(self.root / "etc/backup.json")])


def _run(words: list[str], **environ: str) -> None:
    done = subprocess.run(
        words,
        cwd=CHECKOUT,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CannotMeasure(f"'{words[0]}' ended with {done.returncode}: {done.stderr.strip()[-500:]}")


def timed(*what: Callable[[], None], repeat: int) -> list[float]:
    """Median seconds of each, in turns, so that a slow moment of this machine affects all of them."""
    times: list[list[float]] = [[] for _ in what]
    for _ in range(repeat):
        for spent, one in zip(times, what, strict=True):
            begin = time.perf_counter()
            one()
            spent.append(time.perf_counter() - begin)
    return [median(spent) for spent in times]


def measure(repeat: int, counts: tuple[int, ...], say: Callable[[str], object]) -> Report:
    """Measure all counts. Raises CannotMeasure."""
    for program in ("rsync", "restic", "setpriv"):
        if shutil.which(program) is None:
            raise CannotMeasure(f"{program} is not installed; install it: apt-get install rsync restic util-linux")
    rows = []
    with tempfile.TemporaryDirectory(prefix="rig-backup-") as folder:
        for count in counts:
            bench = Bench(Path(folder) / str(count), count)
            models, rsync = timed(bench.models, bench.rsync, repeat=repeat)
            rows.append(Row(count, models, rsync))
            say(f"{count} files: {models:.3f} s")
        bench = Bench(Path(folder) / "whole", 10)
        bench.backup()
        start, run, restic = timed(bench.if_due, bench.backup, bench.restic, repeat=repeat)
    return Report(tuple(rows), start, run, restic)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup", description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="turns (default: 5)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    try:
        report = measure(max(1, options.repeat), COUNTS, lambda line: print(line, file=sys.stderr, flush=True))
    except CannotMeasure as problem:
        print(f"benchmark: {problem}", file=sys.stderr)
        return 2
    about: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0]}
    print(json.dumps(asdict(report) | about, indent=2) if options.json else report)
    if not options.json:
        print(f"\n{about['cores']} cores, load {about['load']:.1f}; medians of {options.repeat} turns")
    return 0


if __name__ == "__main__":
    sys.exit(main())
