"""An engine's last good definition, kept on the machine: a change that does not become healthy is rolled back."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rig.render import render

FOLDER = "/var/lib/rig/served"
COMPOSE = "/etc/rig/compose.yaml"


@dataclass(frozen=True)
class Served:
    """An engine's definition: its service of the compose file, or the files of its unit, by path."""

    fingerprint: str
    asked: Mapping[str, str | int | bool]
    """The engine's endpoint for health checks: address, port, model, and whether it is on the graphics card."""
    service: Mapping[str, Any] | None
    files: Mapping[str, str]

    @property
    def text(self) -> str:
        """The record's text; the same for the same definition."""
        parts = {"fingerprint": self.fingerprint, "asked": self.asked, "service": self.service, "files": self.files}
        # In the order of the settings, so that restoring it gives the identical file.
        return json.dumps(parts, indent=1) + "\n"

    def restored(self, engine: str, compose: str | None) -> dict[str, str]:
        """The files, by path, that restore the engine; `compose`: the text of the current compose file.

        Other engines' services stay as they are: only this engine failed.
        """
        if self.service is None:
            return dict(self.files)
        # Its drop-in as well: it holds the unit's mount and its group of alternatives.
        document = yaml.safe_load(compose or "") or {}
        services = {**document.get("services", {}), engine: dict(self.service)}
        return {COMPOSE: render(COMPOSE, compose={**document, "services": services}), **self.files}


def amended(
    wanted: Mapping[str, Any], engine: str, alternatives: Collection[str], there: str | None, records: Mapping[str, str]
) -> dict[str, Any]:
    """The compose file with this engine from `wanted`, and every other engine as it last served.

    So a boot after an interrupted run starts no untried definition. `there`: the current file; `records`: the text of
    each engine's record. For `alternatives` the current file takes precedence: the idle one is kept up to date there,
    and tried when rig-mode switches to it.
    """
    in_file = _services(there)
    services = {}
    for name, service in wanted["services"].items():
        record = parse(records.get(name))
        kept = None if record is None else record.service
        there_too = in_file.get(name)
        before = there_too or kept if name in alternatives else kept or there_too
        services[name] = service if name == engine else before
    return {**wanted, "services": {name: service for name, service in services.items() if service}}


def _services(compose: str | None) -> Mapping[str, Any]:
    """The services in a compose file; none if somebody broke the file."""
    try:
        services = yaml.safe_load(compose or "")["services"]
    except (yaml.YAMLError, TypeError, KeyError):
        return {}
    return services if isinstance(services, Mapping) else {}


def path(engine: str) -> str:
    """Path of an engine's record."""
    return f"{FOLDER}/{engine}.json"


def parse(text: str | None) -> Served | None:
    """The record in this text; None if it is not a valid one."""
    try:
        parts = json.loads(text or "")
        return Served(parts["fingerprint"], parts["asked"], parts["service"], parts["files"])
    except (ValueError, KeyError, TypeError):
        return None
