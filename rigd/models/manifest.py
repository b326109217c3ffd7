"""The manifest lists the model files that belong on a machine; the deploy writes it, rig-models reads it."""

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
"""Its path on a machine."""
IMAGES = "/var/lib/rig/images"
"""The container images that deploys have pulled, one per line."""


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
    """The identity of a model's version: the beginning of a SHA-256 over paths and SHA-256 of all files."""
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
        """The name of the folder for exactly these files; each file's path uses it."""
        return version((file.path, file.sha256) for file in self.files)


@dataclass(frozen=True)
class Limits:
    """Limits on the load of the hub."""

    parallel: Count = 2
    """Number of parallel downloads."""
    bytes_per_second: Count | None = None
    """For all files together; None for no limit."""
    attempts: Count = 8
    """Fruitless attempts in a row after which a file is given up."""
    timeout: Annotated[float, AtLeast(0.01)] = 60.0
    """Seconds of silence after which a connection is given up."""


@dataclass(frozen=True)
class Leavings:
    """The places of a deploy's leftovers besides models."""

    images: Folder = IMAGES
    programs: Folder = "/opt/rig/llama.cpp"
    """Has a folder for each archive of an engine, named by the beginning of its hash."""
    keys: Folder = "/etc/rig/keys.env"
    native_keys: Folder = "/etc/rig/keys"
    """Has a file for each native engine, with its key alone."""
    deploy: Folder = "/run/rig-deploy.lock"
    """Held while a deploy runs, which may be about to use something that nothing names yet."""
    in_use: tuple[str, ...] = ()
    """Variables of the keys that an engine or a consumer in the settings has."""


@dataclass(frozen=True)
class Manifest:
    """The complete input of rig-models."""

    hub: Address
    directory: Folder
    """A file's path is directory/model name/version/path, so that no file replaces one that is being served."""
    records: Folder
    """Folder of the records of verified files."""
    models: tuple[Model, ...]
    must_be_mount: bool = False
    """Require that the directory is on another disk; read and write nothing there while that disk is missing."""
    backup: Folder | None = None
    """A folder with the same layout, searched before the hub."""
    token_file: Folder | None = None
    """File with the owner's token for gated repositories; it may be missing."""
    limits: Limits = Limits()
    starters: tuple[Folder, ...] = ()
    """Patterns of files that start engines: a version of a model that one of them names is in use."""
    leavings: Leavings | None = None
    """None: rig-models ignores everything besides models."""

    def folder(self, model: Model) -> PurePosixPath:
        """Folder of this version of a model."""
        return PurePosixPath(self.directory) / model.name / model.version

    def path(self, model: Model, file: File) -> PurePosixPath:
        """Path of a file on the machine."""
        return self.folder(model) / file.path

    def backup_path(self, model: Model, file: File) -> PurePosixPath | None:
        """Path of a file in the backup; None without a backup."""
        return None if self.backup is None else PurePosixPath(self.backup) / model.name / model.version / file.path

    def require_disk(self) -> None:
        """Raises Failed if the directory must be on another disk, and that disk is missing."""
        if self.must_be_mount and (missing := mounts.missing(self.directory, "storage.models")) is not None:
            raise Failed(missing)

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest: identifies the input of a running fetch."""
        return hashlib.sha256(dump(self).encode()).hexdigest()


def dump(manifest: Manifest) -> str:
    """The manifest as JSON; equal values give equal text."""
    return json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n"


def parse(text: str, hub: str | None = None) -> Manifest:
    """Parse a manifest; `hub` replaces its hub. Raises Unusable for the first wrong value."""
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
