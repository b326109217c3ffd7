"""An engine that is about to stop: the gateway sends it no new requests, and those in progress are counted.

The states are those of HAProxy's management guide, 9.3 (`set server`); pools with the engine as a fallback
follow it. They are in the gateway's memory: a reload forgets them.
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
    answer = admin.command(path, f"set server engine_{engine}/{engine} state {state}")
    if answer:
        raise Failed(f"the gateway does not change the state of {engine}: {answer.splitlines()[0][:160]}")
