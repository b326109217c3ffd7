"""Everything that a deploy downloads, from where, and how it is verified: a plain list, computed from the settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rig.page import place
from rig.settings import Settings
from rig.settings.engines import Containerised, NativeEngine

BEGIN = "<!-- Computed by `rig downloads --into PAGE`; all until the end mark is replaced. -->"
UNPINNED = "not known yet: its engine cannot be enabled before `rig lock`, or you, have written it"


@dataclass(frozen=True)
class Download:
    """One thing that a deploy downloads."""

    what: str
    source: str
    verified: str
    """How it is verified, with the value that the settings pin."""


def listed(settings: Settings) -> list[Download]:
    """All downloads, engines that are off included, in the order of a deploy."""
    return [*_fixed(), *_repositories(settings), *_programs(settings), *_models(settings)]


def _fixed() -> Iterator[Download]:
    yield Download(
        "Python packages of the machine that runs the deploy",
        "the package index of its pip",
        "SHA-256 of every file in `requirements.txt` (`pip --require-hashes`)",
    )
    yield Download(
        "packages of the distribution (`machine.packages`, Prometheus, restic, ...)",
        "apt's own sources on the machine",
        "signature of the release, by the distribution's key that the machine has",
    )


def _repositories(settings: Settings) -> Iterator[Download]:
    gpu, containers = settings.gpu, settings.containers
    if gpu.enabled and gpu.driver.source == "vendor":
        yield _repository("NVIDIA's driver", gpu.driver.repository, gpu.driver.key_fingerprints)
    if gpu.enabled:
        yield _repository("NVIDIA's container toolkit", gpu.toolkit.repository, gpu.toolkit.key_fingerprints)
    if containers.source == "vendor":
        vendor = containers.vendor
        yield _repository("Docker's packages", vendor.repository, vendor.key_fingerprints)


def _repository(what: str, address: str, fingerprints: tuple[str, ...]) -> Download:
    keys = ", ".join(f"`{fingerprint}`" for fingerprint in fingerprints)
    return Download(what, address, f"signature of the release, by a key with the fingerprint {keys}")


def _programs(settings: Settings) -> Iterator[Download]:
    for name, engine in settings.engines.items():
        if isinstance(engine, Containerised):
            yield _image(f"image of the engine {name}", engine.image)
        elif isinstance(engine, NativeEngine) and engine.archive is not None:
            yield Download(f"program of the engine {name}", engine.archive.url, f"SHA-256 `{engine.archive.sha256}`")
    if settings.monitoring.grafana.enabled:
        yield _image("image of Grafana", settings.monitoring.grafana.image)


def _image(what: str, image: str | None) -> Download:
    if image is None:
        return Download(what, UNPINNED, UNPINNED)
    name, _, digest = image.partition("@")
    return Download(what, name, f"digest `{digest}`")


def _models(settings: Settings) -> Iterator[Download]:
    for name, model in settings.models.catalogue.items():
        pin = model.chosen
        source = f"{settings.models.hub}/{model.repository}, revision `{pin.revision}`"
        if pin.files:
            yield Download(f"model {name}", source, f"SHA-256 of each of its {len(pin.files)} files, in the settings")
        elif pin.file is not None and pin.sha256 is not None:
            yield Download(f"model {name}", f"{source}, `{pin.file}`", f"SHA-256 `{pin.sha256}`")
        else:
            yield Download(f"model {name}", source, UNPINNED)


def markdown(downloads: list[Download]) -> str:
    """The list as a table."""
    rows = [f"| {one.what} | {one.source} | {one.verified} |" for one in downloads]
    return "\n".join(["| what | from where | how it is verified |", "| --- | --- | --- |", *rows]) + "\n"


def placed(page: str, downloads: list[Download]) -> str:
    """The page with the table between its two marks. Raises NoPlace without the marks."""
    return place(page, BEGIN, markdown(downloads), "list")
