"""Measure the machine: units, the health of engines, marks of models, certificates, a pending reboot."""

from __future__ import annotations

import http.client
import os
import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rigd.base import card
from rigd.base.command import NoAnswer, Programs
from rigd.base.exposition import Metric, Sample
from rigd.metrics.config import Config, Engine

SECONDS = 2
"""Seconds that an engine may take to report its health."""
TIMEOUT = 10
"""Seconds that a program may take to answer; all of them must finish within the unit's minute."""


def gauges(config: Config, tell: Callable[[str], None], root: Path = Path("/")) -> Iterator[Metric]:
    """All metrics; ``root`` is the folder of the machine's files. `tell` gets the cause of each missing metric."""
    ask = Programs(TIMEOUT)
    for name, help, look in (
        (
            "rig_engine_wanted",
            "1 for an engine that its unit starts at boot, 0 for one that is off on purpose.",
            lambda: _wanted(config.engines, ask),
        ),
        (
            "rig_engine_loading",
            "1 for an engine that answers that it still loads its model.",
            lambda: (Sample(_loading(engine), {"engine": engine.name}) for engine in config.engines),
        ),
        (
            "rig_engine_on_gpu",
            "1 for an engine with a process on the graphics card, 0 for one that has to have one and does not.",
            lambda: _on_card([engine for engine in config.engines if engine.gpu], ask),
        ),
        (
            "rig_model_changed",
            "1 for a model whose file is no longer what was verified; engines do not start with it.",
            lambda: (
                Sample(Path(config.records, f"{model}.failed").exists(), {"model": model}) for model in config.models
            ),
        ),
        (
            "rig_reboot_pending",
            "1 when updates are installed that only a reboot brings into force.",
            lambda: (Sample(reboot_pending(root, os.uname().release), {}),),
        ),
        (
            "rig_gpu_module_missing",
            "1 when the kernel of the next boot has no module for the graphics card, and the running one has.",
            lambda: _module_missing(root, os.uname().release),
        ),
        (
            "rig_certificate_end_timestamp_seconds",
            "When a certificate ends, seconds since the epoch; 0 when it cannot be read.",
            lambda: (Sample(certificate_end(path, ask), {"path": path}) for path in config.certificates),
        ),
    ):
        try:
            yield Metric(name, help, tuple(look()))
        except (NoAnswer, OSError) as error:
            tell(f"{name} is left out: {error}")


def reboot_pending(root: Path, running: str) -> bool:
    """True if a package requested a reboot, or if the next boot takes a kernel other than ``running``."""
    if (root / "run/reboot-required").exists():
        return True
    return (following := next_kernel(root)) is not None and following != running


def next_kernel(root: Path) -> str | None:
    """Release of the kernel that the next boot takes; None if no link names it."""
    for link in (root / "vmlinuz", root / "boot/vmlinuz"):
        if link.is_symlink():
            return os.path.basename(os.readlink(link)).removeprefix("vmlinuz-")  # noqa: PTH115, PTH119
    return None


def has_module(root: Path, kernel: str) -> bool:
    """True if a kernel has NVIDIA's module, by the list that depmod makes after every installation."""
    try:
        listed = (root / "lib/modules" / kernel / "modules.dep").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return False
    return re.search(r"(?m)^(?:\S*/)?nvidia\.ko\S*:", listed) is not None


def _module_missing(root: Path, running: str) -> Iterator[Sample]:
    """No sample if the running kernel has no module either: the machine has no card, or no driver."""
    following = next_kernel(root)
    if following is not None and has_module(root, running):
        yield Sample(following != running and not has_module(root, following), {})


def certificate_end(path: str, ask: Programs) -> float:
    """End of the first certificate of a PEM file, seconds since the epoch; 0 if there is none to read."""
    try:
        shown = ask.output("openssl", "x509", "-noout", "-enddate", "-in", path)
        return float(ssl.cert_time_to_seconds(shown.partition("=")[2].strip()))
    except (NoAnswer, ValueError):
        return 0


def _wanted(engines: Iterable[Engine], ask: Programs) -> Iterator[Sample]:
    """One sample per unit: 1 if it starts at boot. Raises NoAnswer."""
    units = [engine.unit for engine in engines]
    shown = ask.output("systemctl", "show", "--property=Id,UnitFileState", *units) if units else ""
    enabled = {
        line.removeprefix("Id=")
        for block in shown.split("\n\n")
        if "UnitFileState=enabled" in (lines := block.split("\n"))
        for line in lines
        if line.startswith("Id=")
    }
    for engine in engines:
        yield Sample(engine.unit in enabled, {"engine": engine.name})


def _on_card(engines: list[Engine], ask: Programs) -> Iterator[Sample]:
    """No sample if the card itself does not answer, which has its own metric. Raises NoAnswer.

    If CUDA does not start, llama.cpp goes on without the card, and still reports that it is healthy.
    """
    if not engines:
        return
    try:
        groups = card.groups(ask)
    except NoAnswer:
        return
    for engine in engines:
        yield Sample(card.computes(engine.unit, engine.container, groups, ask), {"engine": engine.name})


def _loading(engine: Engine) -> bool:
    """True if the server is not ready yet: llama.cpp and vLLM then answer 503."""
    connection = http.client.HTTPConnection(engine.address, engine.port, timeout=SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.SERVICE_UNAVAILABLE
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
