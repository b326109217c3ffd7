"""rig-models' settings, and the steps of a fetch: plain functions of the settings and of a machine's state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from rig.engines import compose, native, served
from rig.settings import Settings, size_bytes
from rig.settings.secrets import key_variable
from rigd.base.state import FetchState, line
from rigd.models.manifest import File, Leavings, Limits, Manifest, Model

RECORDS = "/var/lib/rig/models"
"""NAME.verified for a model that is correct, NAME.failed for one that must not be served."""
TOKEN = "/etc/rig/hub-token"
"""The owner's token for gated repositories, if any."""
UNIT = "rig-models-fetch.service"

SANDBOX = {
    "UMask": "0022",
    "NoNewPrivileges": "yes",
    # Files that people put into a model's folder may have any owner, and become root's.
    "CapabilityBoundingSet": "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER",
    "ProtectSystem": "strict",
    # Not yes: models may be below /home, and a hidden folder looks like an empty one.
    "ProtectHome": "read-only",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    # The network, and name resolution.
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
}
"""The sandbox of the fetch, as properties of its unit: it reads strangers' data, and runs as root."""

Step = Literal["stop", "start"]


@dataclass(frozen=True)
class ModelsState:
    """The fetch on a machine, and the state of the wanted models."""

    active: bool
    """Whether a fetch is running."""
    manifest: str
    """First digits of the digest of its manifest; empty without one."""
    verified: frozenset[str] = frozenset()
    """Models recorded as correct."""
    failed: frozenset[str] = frozenset()
    """Models whose files have changed."""
    fetch: FetchState | None = None
    """Progress of the fetch, or the result of the last one."""
    holder: int | None = None
    """PID of the running rig-models; another one waits for it."""


def manifest(settings: Settings) -> Manifest:
    """The files that enabled engines serve, with their sources and destinations."""
    wanted = settings.models.download
    return Manifest(
        hub=settings.models.hub,
        directory=str(settings.storage.models.path),
        must_be_mount=settings.storage.models.is_disk,
        records=RECORDS,
        backup=f"{settings.storage.backup.path}/models",
        token_file=TOKEN,
        leavings=Leavings(in_use=tuple(key_variable(consumer) for consumer in settings.consumers)),
        starters=(compose.PATH, native.drop_in("*"), served.path("*")),
        limits=Limits(
            parallel=wanted.parallel,
            bytes_per_second=None if wanted.rate is None else size_bytes(wanted.rate),
            attempts=wanted.attempts,
        ),
        models=tuple(
            Model(
                name=name,
                repository=model.repository,
                revision=model.chosen.revision,
                files=tuple(File(pinned.file, pinned.size, pinned.sha256) for pinned in model.chosen.pinned),
                engines=tuple(
                    engine for engine, entry in settings.enabled_engines.items() if name in entry.model_names
                ),
            )
            for name, model in settings.needed_models.items()
        ),
    )


def properties(wanted: Manifest) -> dict[str, str]:
    """Properties of the fetch's unit: the sandbox, and its writable folders."""
    return {"Type": "exec", **SANDBOX, "ReadWritePaths": f'"{wanted.directory}" {RECORDS}'}


def markers(names: Iterable[str]) -> list[str]:
    """Marker files that forbid serving one of these models."""
    return [f"{RECORDS}/{name}.failed" for name in names]


def tag(wanted: Manifest) -> str:
    """The tag by which a run recognises a fetch for this manifest."""
    return wanted.digest[:12]


def complete(state: ModelsState, wanted: Manifest) -> bool:
    """Whether every model is there and correct."""
    return state.verified >= {model.name for model in wanted.models} and not state.failed


def steps(state: ModelsState, wanted: Manifest) -> list[Step]:
    """Steps until a fetch for this manifest is running, or not needed. A running one for it is left alone."""
    if complete(state, wanted):
        return ["stop"] if state.active and state.manifest != tag(wanted) else []
    if not state.active:
        return ["start"]
    return [] if state.manifest == tag(wanted) else ["stop", "start"]


def report(state: ModelsState, wanted: Manifest) -> str | None:
    """The progress of a running fetch, in one line; an earlier fetch's result is not reported."""
    if state.holder is None:
        return None
    if state.fetch is None or state.fetch.pid != state.holder:
        return f"the fetch waits for another rig-models (PID {state.holder}), such as a verify"
    return line(state.fetch.files) if state.fetch.manifest == wanted.digest else None


def causes(state: ModelsState, wanted: Manifest) -> list[str]:
    """The reasons why a finished fetch is incomplete, a sentence each."""
    fetch = state.fetch
    if fetch is None or fetch.manifest != wanted.digest or fetch.result == "running":
        return ["the fetch ended before it was done, perhaps killed; run the deploy again, and it goes on from there"]
    return [file.error for file in fetch.files if file.error] or [fetch.error or "the fetch failed"]
