"""A machine's folders with models on record, and a folder to back them up to; the program itself does the work."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rigd.backup import config as configs
from rigd.backup.config import Config
from rigd.models import manifest, records
from rigd.models.manifest import File, Manifest, Model
from rigd.models.records import Records, Stamp
from tests.unit.project import ROOT
from tests.unit.sample import needs

PASSWORD = "correct horse battery staple".replace(" ", "")

needs_programs = needs("rsync", "restic", "setpriv")


class Machine:
    """Everything below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("etc", "backup", "models", "metrics", "elsewhere"):
            (root / name).mkdir(parents=True)
        self.manifest = Manifest(
            hub="http://127.0.0.1:9",
            directory=str(root / "models"),
            records=str(root / "records"),
            models=(),
            backup=str(root / "backup/models"),
        )
        self.config = Config(
            target=str(root / "backup"),
            must_be_mount=False,
            timezone="Europe/Berlin",
            metrics=str(root / "metrics"),
            own=str(root / "etc"),
            paths=(str(root / "elsewhere"), str(root / "not-there")),
            manifest=str(root / "etc/models.json"),
            password=str(root / "etc/backup-password"),
            state=str(root / "state"),
        )
        self.set_password(PASSWORD)
        (root / "etc/keys.env").write_text("RIG_KEY_ONE=secret\n")
        (root / "etc/keys.env").chmod(0o600)

    def set_password(self, text: str) -> None:
        path = Path(self.config.password)
        path.write_text(text + "\n")
        path.chmod(0o600)

    @property
    def records(self) -> Records:
        return records.make(Path(self.manifest.records))

    def add(self, name: str, verified: bool = True, **contents: bytes) -> None:
        """A model that lies on the machine, on record unless said otherwise."""
        listed = {
            File(f"{stem}.gguf", len(content), hashlib.sha256(content).hexdigest()): content
            for stem, content in contents.items()
        }
        model = Model(name, "made/up", "a" * 40, tuple(listed), ("engine",))
        self.manifest = replace(self.manifest, models=(*self.manifest.models, model))
        for file, content in listed.items():
            path = self.model(name, file.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            if verified:
                self.verify(model, file)

    def verify(self, model: Model, file: File) -> None:
        stamp = Stamp.of(self.model(model.name, file.path))
        assert stamp is not None
        self.records.write(self.manifest, model, file, stamp)

    def place(self, name: str = "tiny", file: str = "tiny.gguf") -> str:
        """Where a file lies on both sides."""
        (model,) = [model for model in self.manifest.models if model.name == name]
        return f"{name}/{model.version}/{file}"

    def model(self, name: str = "tiny", file: str = "tiny.gguf") -> Path:
        return self.root / "models" / self.place(name, file)

    def copy(self, name: str = "tiny", file: str = "tiny.gguf") -> Path:
        return self.root / "backup/models" / self.place(name, file)

    def change(self, **values: Any) -> None:
        self.config = replace(self.config, **values)

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The program, to its end."""
        command = self.prepared(arguments)
        return subprocess.run(
            command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=120, **({"input": ""} | options)
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """The program, while it works."""
        return subprocess.Popen(self.prepared(arguments), cwd=ROOT, text=True, **options)

    def back_up(self) -> str:
        """A run that must succeed; what it says."""
        done = self.run("run")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def due(self) -> None:
        """Everything that was done so far was done long ago."""
        ago = 1_600_000_000
        os.utime(self.config.password, (ago, ago))
        (self.root / "state/state.json").unlink(missing_ok=True)

    def restic(self, *words: str) -> str:
        """What restic itself says of the repository."""
        return subprocess.run(
            ["restic", "--no-cache", "--repo", str(self.root / "backup/restic"), *words],
            env={**os.environ, "RESTIC_PASSWORD_FILE": self.config.password},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def metrics(self) -> dict[str, float]:
        lines = (self.root / "metrics/rig_backup.prom").read_text().splitlines()
        return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}

    def prepared(self, arguments: tuple[str, ...]) -> list[str]:
        (self.root / "etc/models.json").write_text(manifest.dump(self.manifest))
        path = self.root / "etc/backup.json"
        path.write_text(configs.dump(self.config))
        command, *rest = arguments
        return [sys.executable, "-m", "rigd.backup", command, "--config", str(path), *rest]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
