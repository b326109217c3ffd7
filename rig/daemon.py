"""daemon.json of the container engine: our keys merged over the owner's, and the owner's keys that must go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULT_DRIVER = "json-file"
"""Docker's log driver where daemon.json names none."""
OF_EVERY_DRIVER = frozenset({"mode", "max-buffer-size"})
LABELLING = frozenset({"env", "env-regex", "labels", "labels-regex", "tag"})
ROTATION = frozenset({"compress", "max-file", "max-size"})
TAKES = {"json-file": LABELLING | ROTATION, "local": ROTATION, "none": frozenset[str]()}
"""Options that each log driver accepts (Docker's manual); other drivers accept labels, and share no further options.

Docker does not start with an option that its driver does not know.
"""


def merged(own: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """``ours`` merged over ``own``: mappings merge, any other value of ours replaces the owner's, other keys stay."""
    result = dict(own)
    for key, value in ours.items():
        there = result.get(key)
        both = isinstance(there, Mapping) and isinstance(value, Mapping)
        result[key] = merged(there, value) if both else value  # type: ignore[arg-type]
    return result


def content(own: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The new content of daemon.json. If ours changes the log driver, options that the new driver lacks are dropped."""
    before, after = own.get("log-driver") or DEFAULT_DRIVER, ours.get("log-driver")
    options = own.get("log-opts")
    if after is None or after == before or not isinstance(options, Mapping):
        return merged(own, ours)
    known = OF_EVERY_DRIVER | TAKES.get(after, LABELLING)
    left = {name: value for name, value in options.items() if name in known}
    without = {key: value for key, value in own.items() if key != "log-opts"}
    return merged({**without, "log-opts": left} if left else without, ours)


def problems(own: Mapping[str, Any], ours: Mapping[str, Any], swarm: bool) -> list[str]:
    """Keys that stop Docker or an engine from starting, each as a sentence. ``swarm``: the machine is a swarm node."""
    whole = content(own, ours)
    found: list[str] = []
    if swarm and whole.get("live-restore"):
        found.append(
            "the machine is a node of a Docker swarm, and Docker does not start there with live-restore; write "
            "'live-restore: false' in containers.daemon, or leave the swarm (docker swarm leave)"
        )
    if whole.get("userns-remap"):
        where = "containers.daemon" if ours.get("userns-remap") else "/etc/docker/daemon.json"
        found.append(
            f"{where} has userns-remap: {whole['userns-remap']}, with which engines in containers can read neither "
            "their models nor their keys; take it out there, or write 'userns-remap: \"\"' in containers.daemon"
        )
    return found
