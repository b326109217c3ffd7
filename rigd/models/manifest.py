"""The manifest: which model files belong on a machine; written by the deploy, read by rig-models, defined here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated

from rigd.base import configuration, mounts
from rigd.base.configuration import AtLeast, Shape, Unusable
from rigd.base.errors import Failed

PATH = "/etc/rig/models.json"
"""Where it lies on a machine."""
IMAGES = "/var/lib/rig/images"
"""Each container image that a deploy has pulled, a line."""


Folder = Annotated[str, Shape(r"(?!.*/\.{1,2}(/|$))(/[^/\x00]+)+", "an absolute path")]
Inside = Annotated[
    str, Shape(r"(?!(.*/)?\.{1,2}(/|$))[^/\x00]+(/[^/\x00]+)*", "a path inside the repository, without '..'")
]
Sha256 = Annotated[str, Shape(r"[0-9a-f]{64}", "64 lower-case hexadecimal digits")]
Name = Annotated[str, Shape(r"[a-z0-9][a-z0-9.-]*", "lower-case letters, digits, . and -")]
Repository = Annotated[str, Shape(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", "owner/name")]
Revision = Annotated[str, Shape(r"[A-Za-z0-9._-]+", "a commit or a branch")]
Address = Annotated[str, Shape(r"https?://[^/\s]+(/[^/\s]+)*", "a web address without a slash at the end")]
Count = Annotated[int, AtLeast(1)]


def version(files: Iterable[tuple[str, str]]) -> str:
    """What tells versions of a model apart: the beginning of a SHA-256 over paths and SHA-256 of all files."""
    listing = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class File:
    """One file of a repository."""

    path: Inside
    size: Annotated[int, AtLeast(0)]
    sha256: Sha256


@dataclass(frozen=True)
class Model:
    """Files of one repository at one revision, and the engines that serve them."""

    name: Name
    repository: Repository
    revision: Revision
    files: tuple[File, ...]
    engines: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @cached_property
    def version(self) -> str:
        """The name of the folder of exactly these files; each file's path asks for it."""
        return version((file.path, file.sha256) for file in self.files)


@dataclass(frozen=True)
class Limits:
    """How hard the hub is asked."""

    parallel: Count = 2
    """Files that are fetched at the same time."""
    bytes_per_second: Count | None = None
    """Of all files together; None: as fast as it goes."""
    attempts: Count = 8
    """Fruitless attempts in a row after which a file is given up."""
    timeout: Annotated[float, AtLeast(0.01)] = 60.0
    """Seconds of silence after which a connection is given up."""


@dataclass(frozen=True)
class Leavings:
    """Where deploys put what they may leave behind besides models."""

    images: Folder = IMAGES
    programs: Folder = "/opt/rig/llama.cpp"
    """A folder for each archive of an engine, named by the beginning of its hash."""
    keys: Folder = "/etc/rig/keys.env"
    native_keys: Folder = "/etc/rig/keys"
    """A file for each native engine, with its key alone."""
    deploy: Folder = "/run/rig-deploy.lock"
    """Held while a deploy is at work, which may be about to use what nothing names yet."""
    in_use: tuple[str, ...] = ()
    """Variables of the keys that an engine or a consumer of the settings has."""


@dataclass(frozen=True)
class Manifest:
    """Everything that rig-models has to know."""

    hub: Address
    directory: Folder
    """A file lands at directory/model name/version/path, so that none takes the place of one that is being served."""
    records: Folder
    """Where is written down what was verified."""
    models: tuple[Model, ...]
    must_be_mount: bool = False
    """Whether the directory is another disk's, and nothing is looked for or written there when that is not there."""
    backup: Folder | None = None
    """A folder of the same layout, asked before the hub."""
    token_file: Folder | None = None
    """File with the owner's token for gated repositories; it need not be there."""
    limits: Limits = Limits()
    starters: tuple[Folder, ...] = ()
    """Patterns of files by which engines are started: the version of a model that one of them names is in use."""
    leavings: Leavings | None = None
    """None: whatever is there besides models is none of rig-models' business."""

    def folder(self, model: Model) -> PurePosixPath:
        """Where the files of this version of a model lie."""
        return PurePosixPath(self.directory) / model.name / model.version

    def path(self, model: Model, file: File) -> PurePosixPath:
        """Where a file lies on the machine."""
        return self.folder(model) / file.path

    def backup_path(self, model: Model, file: File) -> PurePosixPath | None:
        """Where a file lies in the backup, if there is one."""
        return None if self.backup is None else PurePosixPath(self.backup) / model.name / model.version / file.path

    def require_disk(self) -> None:
        """Raises Failed where the directory must be another disk's, and that disk is missing."""
        if self.must_be_mount and (missing := mounts.missing(self.directory, "storage.models")) is not None:
            raise Failed(missing)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest: what a running fetch was started for."""
        return hashlib.sha256(dump(self).encode()).hexdigest()


def dump(manifest: Manifest) -> str:
    """The manifest as JSON, always the same for the same values."""
    return json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n"


def parse(text: str, hub: str | None = None) -> Manifest:
    """The manifest in a JSON text, with another hub when one is given. Raises Unusable with the first thing wrong."""
    manifest = configuration.parse(Manifest, text, **({"hub": hub.rstrip("/")} if hub else {}))
    names = [model.name for model in manifest.models]
    for name in names:
        if names.count(name) > 1:
            raise Unusable(f"models must name {name} once only")
    for model in manifest.models:
        paths = [file.path for file in model.files]
        if not paths or len(set(paths)) != len(paths):
            raise Unusable(f"models.{model.name}.files must name at least one file, and each once only")
    return manifest
