"""An engine that is about to stop: the gateway sends it no new requests, and those in progress are counted.

The states are those of HAProxy's management guide, 9.3 (`set server`); pools in which the engine stands in for another
one follow it. They are in the gateway's memory: a reload forgets them.
"""

from __future__ import annotations

import csv
import io

from rigd.base.errors import Failed
from rigd.gateway import admin


def hold(path: str, engine: str) -> None:
    """Send the engine no new requests. Raises NotRunning, or Failed if the gateway does not know the engine."""
    _set(path, engine, "drain")


def release(path: str, engine: str) -> None:
    """Send it requests again, as soon as it is healthy. Raises NotRunning or Failed."""
    _set(path, engine, "ready")


def in_progress(path: str, engine: str) -> int:
    """The requests that the engine is answering. Raises NotRunning or Failed."""
    pools = {f"engine_{engine}", f"fallback_{engine}"}
    # The first line begins with a comment sign and names the columns.
    table = csv.DictReader(io.StringIO(admin.command(path, "show stat -1 4 -1").removeprefix("# ")))
    return sum(int(row["scur"]) for row in table if row["pxname"] in pools and row["svname"] == engine)


def _set(path: str, engine: str, state: str) -> None:
    told = admin.command(path, f"set server engine_{engine}/{engine} state {state}")
    if told:
        raise Failed(f"the gateway does not take {engine} out: {told.splitlines()[0][:160]}")
