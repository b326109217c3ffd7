"""Looks at the machine: units, what engines say of themselves, marks of models, certificates, a reboot that is due."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

from rigd.metrics.config import Config, Engine
from rigd.metrics.text import Gauge, Sample

SECONDS = 2
"""How long an engine may take to say how it is."""


def gauges(config: Config, root: Path = Path("/")) -> Iterator[Gauge]:
    """Every figure; ``root`` is where the machine's files are."""
    enabled = _enabled([engine.unit for engine in config.engines])
    yield Gauge(
        "rig_engine_wanted",
        "1 for an engine that its unit starts at boot, 0 for one that is off on purpose.",
        tuple(Sample(enabled.get(engine.unit, False), {"engine": engine.name}) for engine in config.engines),
    )
    yield Gauge(
        "rig_engine_loading",
        "1 for an engine that answers that it still loads its model.",
        tuple(Sample(_loading(engine), {"engine": engine.name}) for engine in config.engines),
    )
    yield Gauge(
        "rig_engine_on_gpu",
        "1 for an engine with a process on the graphics card, 0 for one that has to have one and does not.",
        tuple(_on_card([engine for engine in config.engines if engine.gpu])),
    )
    records = Path(config.records)
    yield Gauge(
        "rig_model_changed",
        "1 for a model whose file is no longer what was verified; engines do not start with it.",
        tuple(Sample((records / f"{name}.failed").exists(), {"model": name}) for name in config.models),
    )
    yield Gauge(
        "rig_reboot_pending",
        "1 when updates are installed that only a reboot brings into force.",
        (Sample(reboot_pending(root, os.uname().release), {}),),
    )
    yield Gauge(
        "rig_certificate_end_timestamp_seconds",
        "When a certificate ends, seconds since the epoch; 0 when it cannot be read.",
        tuple(Sample(certificate_end(path), {"path": path}) for path in config.certificates),
    )


def reboot_pending(root: Path, running: str) -> bool:
    """Whether a package asked for a reboot, or the kernel that the next boot takes is another one than ``running``."""
    if (root / "run/reboot-required").exists():
        return True
    link = root / "vmlinuz"
    return link.is_symlink() and os.path.basename(os.readlink(link)) != f"vmlinuz-{running}"  # noqa: PTH115, PTH119


def certificate_end(path: str) -> float:
    """End of the first certificate of a PEM file, seconds since the epoch; 0 when there is none to be read."""
    asked = ["openssl", "x509", "-noout", "-enddate", "-in", path]
    try:
        shown = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout
        return float(ssl.cert_time_to_seconds(shown.partition("=")[2].strip()))
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def _enabled(units: list[str]) -> dict[str, bool]:
    """Whether each unit is started at boot."""
    if not units:
        return {}
    asked = ["systemctl", "show", "--property=Id,UnitFileState", *units]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout
    blocks = (dict(line.split("=", 1) for line in block.splitlines()) for block in shown.strip().split("\n\n"))
    return {block["Id"]: block["UnitFileState"] == "enabled" for block in blocks}


def _on_card(engines: list[Engine]) -> Iterator[Sample]:
    """Nothing is said when the card itself does not answer, which is told elsewhere.

    llama.cpp goes on without the card when CUDA does not start, and says that it is healthy all the same.
    """
    if not engines:
        return
    pids = _output("nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader")
    if pids is None:
        return
    groups = [_control_group(pid) for pid in pids.split()]
    for engine in engines:
        mark: str | None = engine.unit
        if engine.container is not None:
            mark = (_output("docker", "inspect", "--format", "{{.Id}}", engine.container) or "").strip() or None
        yield Sample(mark is not None and any(mark in group for group in groups), {"engine": engine.name})


def _control_group(pid: str) -> str:
    """It has the name of the unit, or of the container, that a process belongs to."""
    try:
        return Path("/proc", pid, "cgroup").read_text()
    except OSError:
        return ""


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _loading(engine: Engine) -> bool:
    """llama.cpp's server and vLLM's answer 503 for as long as they are not ready."""
    connection = http.client.HTTPConnection(engine.address, engine.port, timeout=SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.SERVICE_UNAVAILABLE
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
