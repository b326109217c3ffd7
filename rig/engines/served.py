"""What an engine served with last, kept on the machine: a change that does not become healthy is taken back."""

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
    """An engine's own definition: its service of the compose file, or the files of its unit, by path."""

    fingerprint: str
    asked: Mapping[str, str | int | bool]
    """By what it is known to serve: address, port, model, and whether it is on the graphics card."""
    service: Mapping[str, Any] | None
    files: Mapping[str, str]

    @property
    def text(self) -> str:
        """What is kept; the same for the same definition."""
        parts = {"fingerprint": self.fingerprint, "asked": self.asked, "service": self.service, "files": self.files}
        # In the order of the settings, so that what is restored is the file that was there.
        return json.dumps(parts, indent=1) + "\n"

    def restored(self, engine: str, compose: str | None) -> dict[str, str]:
        """Files, by path, with which the engine runs as it did; `compose`: the compose file as it is now.

        Other engines' services stay as they are: only this engine was found wanting.
        """
        if self.service is None:
            return dict(self.files)
        # Its drop-in as well: a limit that comes without its mount, or its group, is no engine.
        document = yaml.safe_load(compose or "") or {}
        services = {**document.get("services", {}), engine: dict(self.service)}
        return {COMPOSE: render(COMPOSE, compose={**document, "services": services}), **self.files}


def amended(
    wanted: Mapping[str, Any], engine: str, alternatives: Collection[str], there: str | None, records: Mapping[str, str]
) -> dict[str, Any]:
    """The compose file in which this engine alone is as `wanted` has it, and every other one as it last served.

    So that a boot after a run that broke off starts nothing that was not tried. `there`: the file as it is; `records`:
    the text of each engine's record. Of the `alternatives` the file itself is believed: one that is not chosen is kept
    up to date there, and tried when it is switched to.
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
    """What a compose file runs; nothing where somebody made something else of it."""
    try:
        services = yaml.safe_load(compose or "")["services"]
    except (yaml.YAMLError, TypeError, KeyError):
        return {}
    return services if isinstance(services, Mapping) else {}


def path(engine: str) -> str:
    """Where an engine's record lies."""
    return f"{FOLDER}/{engine}.json"


def parse(text: str | None) -> Served | None:
    """The record in this text; None where it is none."""
    try:
        parts = json.loads(text or "")
        return Served(parts["fingerprint"], parts["asked"], parts["service"], parts["files"])
    except (ValueError, KeyError, TypeError):
        return None
