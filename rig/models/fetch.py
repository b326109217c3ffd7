"""What rig-models is told, and what is to be done about a fetch: plain functions of settings and of what was seen."""

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
"""NAME.verified for what was found right, NAME.failed for a model that must not be served."""
TOKEN = "/etc/rig/hub-token"
"""The owner's token for gated repositories, where there are any."""
UNIT = "rig-models-fetch.service"

SANDBOX = {
    "UMask": "0022",
    "NoNewPrivileges": "yes",
    # Files that people put into a model's folder may be anybody's, and become root's.
    "CapabilityBoundingSet": "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_CHOWN CAP_FOWNER",
    "ProtectSystem": "strict",
    # Not yes: models may lie below /home, and a folder that is hidden looks like one that is empty.
    "ProtectHome": "read-only",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "ProtectHostname": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelTunables": "yes",
    # The network, and what looks up names in it.
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
    "RestrictNamespaces": "yes",
    "RestrictRealtime": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
    "SystemCallFilter": "@system-service",
}
"""What the fetch may do, as properties of its unit: it reads what strangers send, and is root's."""

Step = Literal["stop", "start"]


@dataclass(frozen=True)
class ModelsState:
    """The fetch on a machine, and what is there of the models that are wanted."""

    active: bool
    """Whether a fetch is at work."""
    manifest: str
    """Beginning of the digest of the manifest that it was started for; empty without one."""
    verified: frozenset[str] = frozenset()
    """Models on record as right."""
    failed: frozenset[str] = frozenset()
    """Models that were found to have changed."""
    fetch: FetchState | None = None
    """How far the fetch is, or how the last one ended."""
    holder: int | None = None
    """PID of the rig-models that is at work; another one waits for it."""


def manifest(settings: Settings) -> Manifest:
    """What the enabled engines serve, where it comes from and where it lands."""
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
    """Properties of the unit that fetches: the sandbox, and the folders that it may write into."""
    return {"Type": "exec", **SANDBOX, "ReadWritePaths": f'"{wanted.directory}" {RECORDS}'}


def markers(names: Iterable[str]) -> list[str]:
    """Files that stand there when one of these models must not be served."""
    return [f"{RECORDS}/{name}.failed" for name in names]


def tag(wanted: Manifest) -> str:
    """By what a fetch is recognised that was started for this manifest."""
    return wanted.digest[:12]


def complete(state: ModelsState, wanted: Manifest) -> bool:
    """Whether every model is there and right."""
    return state.verified >= {model.name for model in wanted.models} and not state.failed


def steps(state: ModelsState, wanted: Manifest) -> list[Step]:
    """What to do so that a fetch for this manifest is at work, or needs not be. One that is at work is left alone."""
    if complete(state, wanted):
        return ["stop"] if state.active and state.manifest != tag(wanted) else []
    if not state.active:
        return ["start"]
    return [] if state.manifest == tag(wanted) else ["stop", "start"]


def report(state: ModelsState, wanted: Manifest) -> str | None:
    """What there is to say of a fetch that is at work, in one line; what an earlier one left says nothing of it."""
    if state.holder is None:
        return None
    if state.fetch is None or state.fetch.pid != state.holder:
        return f"the fetch waits for another rig-models (PID {state.holder}), such as a verify"
    return line(state.fetch.files) if state.fetch.manifest == wanted.digest else None


def causes(state: ModelsState, wanted: Manifest) -> list[str]:
    """Why a fetch that is over did not bring everything, a sentence each."""
    fetch = state.fetch
    if fetch is None or fetch.manifest != wanted.digest or fetch.result == "running":
        return ["the fetch ended before it was done, perhaps killed; run the deploy again, and it goes on from there"]
    return [file.error for file in fetch.files if file.error] or [fetch.error or "the fetch failed"]
