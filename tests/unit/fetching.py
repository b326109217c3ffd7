"""A destination for models, and the lab's hub as their source, on loopback."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lab.hub
from lab.hub import Published, State
from rigd.base.progress import Progress
from rigd.models import manifest, records
from rigd.models.fetch import Fetcher
from rigd.models.manifest import File, Limits, Manifest, Model
from rigd.models.pace import Patience
from rigd.models.records import Records
from tests.unit.project import ROOT

REPOSITORY = "made/up"
REVISION = "a" * 40


@dataclass(frozen=True)
class Asked:
    """A request to the hub."""

    path: str
    range: str | None
    authorization: str | None
    host: str

    @property
    def is_resolve(self) -> bool:
        return "/resolve/" in self.path


@dataclass
class Hub:
    """The lab's hub, with all requests to it."""

    address: str
    state: State
    asked: list[Asked] = field(default_factory=list)
    answering: int = 0
    idle: threading.Condition = field(default_factory=threading.Condition)

    def publish(self, path: Path, file: str) -> None:
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self.state.published.append(Published(REPOSITORY, REVISION, file, path, len(content), digest))

    def fault(self, **fault: Any) -> None:
        self.state.fault = lab.hub.Fault(**fault)

    @property
    def sent(self) -> int:
        """Bytes of all files together, once it has counted the last ones: the client may be done before that."""
        with self.idle:
            assert self.idle.wait_for(lambda: self.answering == 0, timeout=30)
        return sum(counter.bytes for path, counter in self.state.counters.items() if "/resolve/" not in path)

    @property
    def begun_at(self) -> list[int]:
        """The first byte of each download request."""
        downloads = [request for request in self.asked if not request.is_resolve]
        return [int(request.range[6:-1]) if request.range else 0 for request in downloads]


@contextmanager
def serving(handler: dict[str, Any] | None = None) -> Iterator[Hub]:
    """Serve the hub on a free port of 127.0.0.1; `handler`: methods that answer differently."""
    state = State([], {})
    server = lab.hub.serve("127.0.0.1", 0, state)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", state)

    class Recording(server.RequestHandlerClass):  # type: ignore[misc,name-defined]
        def do_GET(self) -> None:
            get = self.headers.get
            path, host = urlsplit(self.path).path, get("Host", "").split(":")[0]
            with hub.idle:
                hub.asked.append(Asked(path, get("Range"), get("Authorization"), host))
                hub.answering += 1
            try:
                super().do_GET()
            finally:
                with hub.idle:
                    hub.answering -= 1
                    hub.idle.notify_all()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server.RequestHandlerClass = type("Changed", (Recording,), handler or {})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Place:
    """A machine's folders, and the hub."""

    def __init__(self, root: Path, hub: Hub) -> None:
        self.root = root
        self.hub = hub
        self.manifest = Manifest(
            hub=hub.address,
            directory=str(root / "models"),
            records=str(root / "records"),
            models=(),
            backup=str(root / "backup"),
            token_file=str(root / "token"),
            limits=Limits(parallel=2, timeout=20),
        )

    def publish(self, name: str, **contents: bytes) -> None:
        """Add a model to the manifest and its files to the hub."""
        (self.root / "hub").mkdir(exist_ok=True)
        paths = {f"{stem}.gguf": self.root / "hub" / f"{name}-{stem}.gguf" for stem in contents}
        for stem, content in contents.items():
            paths[f"{stem}.gguf"].write_bytes(content)
        self.publish_files(name, paths)

    def publish_files(self, name: str, paths: dict[str, Path]) -> None:
        """Add a model with existing files, by their paths in the repository."""
        files = []
        for file, path in paths.items():
            self.hub.publish(path, file)
            content = path.read_bytes()
            files.append(File(file, len(content), hashlib.sha256(content).hexdigest()))
        model = Model(name, REPOSITORY, REVISION, tuple(files), ("engine",))
        self.change(models=(*self.manifest.models, model))

    def change(self, **values: Any) -> None:
        self.manifest = replace(self.manifest, **values)

    def limit(self, **values: Any) -> None:
        self.change(limits=replace(self.manifest.limits, **values))

    @property
    def records(self) -> Records:
        return records.make(Path(self.manifest.records))

    @property
    def models(self) -> Path:
        return Path(self.manifest.directory)

    def final(self, name: str = "tiny", file: str = "tiny.gguf") -> Path:
        (model,) = [model for model in self.manifest.models if model.name == name]
        listing = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted((e.path, e.sha256) for e in model.files))
        return self.models / name / hashlib.sha256(listing.encode()).hexdigest()[:12] / file

    def part(self, name: str = "tiny", file: str = "tiny.gguf") -> Path:
        return self.final(name, file).with_name(f"{file}.part")

    def saved(self, name: str = "tiny", file: str = "tiny.gguf") -> Path:
        """Path of the file in the backup."""
        return self.root / "backup" / self.final(name, file).relative_to(self.models)

    def put(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def fetch(self, token: str | None = None, **values: Any) -> None:
        """Fetch in this process, with minimal waits. Raises Failed."""

        def impatient(attempts: int, stop: threading.Event) -> Patience:
            return Patience(attempts, stop, first=0.001, most=0.01)

        fetcher = Fetcher(self.manifest, self.records, token, **({"patience": impatient} | values))
        jobs = fetcher.jobs(list(self.manifest.models))
        with Progress([job.item for job in jobs], self.records.directory, self.manifest.digest) as shown:
            fetcher.run(list(self.manifest.models), shown, jobs)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start the program itself."""
        self.write()
        return subprocess.Popen(self._command(arguments), cwd=ROOT, text=True, **options)

    def run(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the program itself, to its end."""
        self.write()
        return subprocess.run(
            self._command(arguments), cwd=ROOT, text=True, capture_output=True, check=False, timeout=60, **options
        )

    def ask(self, *arguments: str) -> Any:
        """The program's JSON output; it must succeed."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def write(self) -> None:
        (self.root / "models.json").write_text(manifest.dump(self.manifest), encoding="utf-8")

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        command, *rest = arguments
        return [sys.executable, "-m", "rigd.models", command, "--manifest", str(self.root / "models.json"), *rest]
