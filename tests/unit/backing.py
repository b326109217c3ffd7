"""A machine's folders with models on record, and a folder to back them up to; the program itself does the work."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from rigd.backup import config as configs
from rigd.backup.config import Config
from rigd.models import manifest, records
from rigd.models.manifest import File, Manifest, Model
from rigd.models.records import Records, Stamp
from tests.unit.project import ROOT
from tests.unit.sample import needs

PASSWORD = "correct horse battery staple".replace(" ", "")

needs_programs = needs("rsync", "restic", "setpriv")


@cache
def empty_repository() -> dict[str, bytes]:
    """The files of a repository that restic made, whose key is derived from PASSWORD in no time.

    restic itself takes half a second for a new one, and a twentieth for each command that opens it.
    """
    with TemporaryDirectory() as folder:
        words = ["restic", "--no-cache", "--repo", f"{folder}/new", "init", "--quiet"]
        subprocess.run(words, env={**os.environ, "RESTIC_PASSWORD": PASSWORD}, check=True)
        files = contents(Path(folder, "new"))
    (name,) = [name for name in files if name.startswith("keys/")]
    key = _derived_quickly(files.pop(name))
    return {**files, f"keys/{hashlib.sha256(key).hexdigest()}": key}


def _derived_quickly(file: bytes) -> bytes:
    """The same key, sealed with the lowest cost of scrypt; restic's design document, "Keys, Encryption and MAC"."""
    entry = json.loads(file)
    salt, data = base64.b64decode(entry["salt"]), base64.b64decode(entry["data"])
    nonce, sealed = data[:16], data[16:-16]

    def derived(cost: int) -> bytes:
        settings = {"n": cost, "r": entry["r"], "p": entry["p"], "dklen": 64, "maxmem": 1 << 30}
        return hashlib.scrypt(PASSWORD.encode(), salt=salt, **settings)

    old, new = derived(entry["N"]), derived(2)
    sealed = _aes(new[:32], modes.CTR(nonce), _aes(old[:32], modes.CTR(nonce), sealed))
    tag = Poly1305.generate_tag(new[48:] + _aes(new[32:48], modes.ECB(), nonce), sealed)
    return json.dumps({**entry, "N": 2, "data": base64.b64encode(nonce + sealed + tag).decode()}).encode()


def _aes(key: bytes, mode: modes.CTR | modes.ECB, data: bytes) -> bytes:
    encryptor = Cipher(algorithms.AES(key), mode).encryptor()
    return encryptor.update(data) + encryptor.finalize()


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
        """Add a model to the machine, with a record unless `verified` is false."""
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
        """A file's path on both sides."""
        (model,) = [model for model in self.manifest.models if model.name == name]
        return f"{name}/{model.version}/{file}"

    def model(self, name: str = "tiny", file: str = "tiny.gguf") -> Path:
        return self.root / "models" / self.place(name, file)

    def copy(self, name: str = "tiny", file: str = "tiny.gguf") -> Path:
        return self.root / "backup/models" / self.place(name, file)

    def change(self, **values: Any) -> None:
        self.config = replace(self.config, **values)

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        command = self.prepared(arguments)
        return subprocess.run(
            command, cwd=ROOT, text=True, capture_output=True, check=False, timeout=120, **({"input": ""} | options)
        )

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start the program."""
        return subprocess.Popen(self.prepared(arguments), cwd=ROOT, text=True, **options)

    def back_up(self) -> str:
        """Run a backup that must succeed; return its output. Without a repository, puts an empty one there first."""
        place = self.root / "backup/restic"
        if not place.exists():
            for name, content in empty_repository().items():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                (place / name).write_bytes(content)
        done = self.run("run")
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json").stdout)
        return found

    def due(self) -> None:
        """Date everything that was done so far long ago."""
        ago = 1_600_000_000
        os.utime(self.config.password, (ago, ago))
        (self.root / "state/state.json").unlink(missing_ok=True)

    def restic(self, *words: str) -> str:
        """restic's own output for the repository."""
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
