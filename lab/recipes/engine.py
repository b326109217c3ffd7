"""The real llama.cpp server, from Debian's development release: as a container image and as an archive."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.cache import BuildError, Cache, Note, recipe_source, run
from lab.recipes import grafana, vllm
from lab.recipes.debian import debootstrap
from lab.recipes.packing import pack, sha256

RELEASE = "sid"
# curl: the upstream image has it, for health checks.
PACKAGES = ("llama.cpp", "ca-certificates", "curl")
REPOSITORY = "ggml-org/llama.cpp"
_KIND = "application/vnd.oci.image."
BINARY = "build/bin/llama-server"
SILENT = "nobody answers here"
"""What the server says that starts and never answers."""
_NOBODY = ["/bin/sh", "-c", f"trap exit TERM; echo {SILENT}; sleep infinity & wait"]

_NOT_IN_IMAGE = re.compile(
    r"(dev|proc|sys|run|tmp|boot|home|mnt|media|srv)/.+"
    r"|usr/share/(doc|man|info|locale|lintian|bash-completion|zsh)(/.*)?"
    r"|var/(cache|log|lib/(apt|dpkg))/.+"
    r"|usr/libexec/[^/]+/ggml(/.*)?"
    r"|etc/apt/sources\.list\.d/.+"
)

_LAUNCHER = """#!/bin/sh
# Brings its own C library, so that it runs on older systems than it was built for.
here=$(dirname "$(readlink -f "$0")")
exec "$here/../lib/LOADER" --argv0 llama-server --library-path "$here/../lib" "$here/../lib/llama-server" "$@"
"""


def tree(cache: Cache) -> Path:
    """A root file system with llama.cpp in it."""

    def make(target: Path, note: Note) -> None:
        debootstrap(RELEASE, target, "apt", PACKAGES, note)
        (target / "app").mkdir()
        (target / "app/llama-server").symlink_to("/usr/bin/llama-server")

    return cache.artefact("llama.cpp", "Fetch the real llama.cpp", recipe_source("debian", "engine"), make)


def build_number(root: Path) -> str:
    """The upstream build that Debian packaged, such as b11669."""
    for tag in (root / "usr/share/doc").glob("libllama*/nightly-tag.txt"):
        return tag.read_text().strip()
    raise BuildError("the llama.cpp package does not say which upstream build it is; look at its documentation")


def archive(cache: Cache, root: Path) -> Path:
    """`llama.cpp.tar.gz` like upstream's releases, with a server that runs on every supported Debian."""

    def make(target: Path, note: Note) -> None:
        bundle = target / "bundle"
        (bundle / "build/bin").mkdir(parents=True)
        (bundle / "build/lib").mkdir()
        needed, loader = _libraries(root, "/usr/bin/llama-server")
        files = [root / "usr/bin/llama-server", *needed, *root.glob("usr/lib/*/ggml/backends*/*.so"), loader]
        for file in files:
            # The backends too: the server looks for them beside its loader.
            shutil.copy(file, bundle / "build/lib" / file.name)
        for path in (bundle / "build/lib").iterdir():
            path.chmod(0o755)
        launcher = bundle / BINARY
        launcher.write_text(_LAUNCHER.replace("LOADER", loader.name))
        launcher.chmod(0o755)
        note("packing")
        pack(bundle, target / "llama.cpp.tar.gz")
        shutil.rmtree(bundle)

    recipe = [*recipe_source("engine", "packing"), root.name]
    return cache.artefact("archive", "Pack the native archive", recipe, make)


def _libraries(root: Path, program: str) -> tuple[list[Path], Path]:
    """The libraries that `program` and the backends are linked with, and the loader that finds them."""
    backends = [f"/{path.relative_to(root)}" for path in root.glob("usr/lib/*/ggml/backends*/*.so")]
    listing = run(["chroot", root, "ldd", program, *backends])
    found = {name: root / path.lstrip("/") for name, path in re.findall(r"^\s+(\S+) => (/\S+) \(", listing, re.M)}
    loader = re.search(r"^\s+(/lib\S*/ld-\S+) \(", listing, re.M)
    if loader is None:
        raise BuildError(f"the loader of {program} is not in what ldd lists:\n{listing}")
    return list(found.values()), root / loader[1].lstrip("/")


def images(cache: Cache, root: Path, vllm_root: Path, grafana_root: Path) -> Path:
    """The storage of a registry that holds all images.

    `reference`, `vllm-reference` and `grafana-reference` in it name those that the settings ask for, `silent-reference`
    one whose server never answers.
    """

    def make(target: Path, note: Note) -> None:
        target.mkdir()
        entry = {"Entrypoint": ["/app/llama-server"], "WorkingDir": "/app"}
        layer, tag = _layer(target, root, note), f"server-{build_number(root)}"
        (target / "reference").write_text(_image(target, layer, REPOSITORY, tag, entry))
        silent = _image(target, layer, REPOSITORY, "server-silent", {"Entrypoint": _NOBODY})
        (target / "silent-reference").write_text(silent)
        layer = _layer(target, vllm_root, note)
        served = _image(target, layer, vllm.REPOSITORY, vllm.TAG, {"User": "2000:0"})
        (target / "vllm-reference").write_text(served)
        layer = _layer(target, grafana_root, note)
        shown = _image(target, layer, grafana.REPOSITORY, grafana.TAG, grafana.ENTRY)
        (target / "grafana-reference").write_text(shown)

    trees = (root, vllm_root, grafana_root)
    recipe = [*recipe_source("engine", "packing", "vllm", "grafana"), *(tree.name for tree in trees)]
    return cache.artefact("images", "Pack the container images", recipe, make)


def _layer(target: Path, root: Path, note: Note) -> Layer:
    """Put a file system into the storage."""
    note("packing the layer")
    packed = target / "layer"
    inner = pack(root, packed, keep=lambda name: not _NOT_IN_IMAGE.fullmatch(name))
    return Layer(_store(target, "layer.v1.tar+gzip", packed), inner)


def _image(target: Path, layer: Layer, repository: str, tag: str, entry: Mapping[str, object]) -> str:
    """Put an image of one layer into the storage; its name, tag and digest."""
    environment = ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LLAMA_ARG_HOST=0.0.0.0"]
    configuration = {
        "architecture": run(["dpkg", "--print-architecture"]).strip(),
        "os": "linux",
        "config": {"Env": environment, **entry},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.inner}"]},
        "history": [{"created_by": f"{repository} from Debian"}],
    }
    described = _store(target, "config.v1+json", _file(target, configuration))
    manifest = {
        "schemaVersion": 2,
        "mediaType": _KIND + "manifest.v1+json",
        "config": described.manifest(),
        "layers": [layer.content.manifest()],
    }
    top = _store(target, "manifest.v1+json", _file(target, manifest))
    place = target / "docker/registry/v2/repositories" / repository
    for blob in (described, layer.content):
        _link(place / "_layers", blob.digest)
    _link(place / "_manifests/revisions", top.digest)
    _link(place / f"_manifests/tags/{tag}/index", top.digest)
    current = place / f"_manifests/tags/{tag}/current"
    current.mkdir(parents=True)
    (current / "link").write_text(top.digest)
    return f"{repository}:{tag}@{top.digest}"


@dataclass(frozen=True)
class Blob:
    """Content in a registry, as manifests point to it."""

    kind: str
    digest: str
    size: int

    def manifest(self) -> dict[str, str | int]:
        return {"mediaType": self.kind, "digest": self.digest, "size": self.size}


@dataclass(frozen=True)
class Layer:
    """A file system in the storage."""

    content: Blob
    inner: str
    """SHA-256 of what is compressed in it."""


def _file(target: Path, content: Mapping[str, object]) -> Path:
    path = target / "content"
    path.write_text(json.dumps(content, sort_keys=True))
    return path


def _store(target: Path, kind: str, content: Path) -> Blob:
    """Move `content` to where the registry keeps it."""
    digest = sha256(content)
    size = content.stat().st_size
    place = target / "docker/registry/v2/blobs/sha256" / digest[:2] / digest
    place.mkdir(parents=True)
    content.rename(place / "data")
    return Blob(_KIND + kind, f"sha256:{digest}", size)


def _link(directory: Path, digest: str) -> None:
    algorithm, value = digest.split(":")
    place = directory / algorithm / value
    # Images share their layer.
    place.mkdir(parents=True, exist_ok=True)
    (place / "link").write_text(digest)
