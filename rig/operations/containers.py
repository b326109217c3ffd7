"""The container engine's configuration, merged into what the owner put there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pyinfra import host
from pyinfra.api import operation
from pyinfra.operations import files as pyinfra_files

from rig.facts.containers import DAEMON, Daemon
from rig.operations import Commands, files


def merged(own: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """``ours`` over ``own``: mappings merge, anything else of ours replaces, keys that we do not name survive."""
    result = dict(own)
    for key, value in ours.items():
        there = result.get(key)
        both = isinstance(there, Mapping) and isinstance(value, Mapping)
        result[key] = merged(there, value) if both else value  # type: ignore[arg-type]
    return result


@operation()
def daemon(wanted: Mapping[str, Any]) -> Commands:
    """daemon.json holds ``wanted``, and whatever else the owner wrote into it."""
    there = host.get_fact(Daemon)
    content = merged(there, wanted)
    if content != there:
        yield from files.written._inner(path=DAEMON, text=json.dumps(content, indent=2) + "\n")
    elif content:
        # Not written again for its layout, which is the owner's.
        yield from pyinfra_files.file._inner(path=DAEMON, user="root", group="root", mode="644")
