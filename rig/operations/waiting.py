"""Waiting for a program that starts, or loads its settings."""

from __future__ import annotations

import time
from collections.abc import Callable

from pyinfra import logger
from pyinfra.api import Host, State

from rig.operations import shell

POLL = 0.5
"""Seconds between two polls."""
PATIENCE = 180
"""Seconds until a program must be ready. Prometheus first replays its log: a minute for some gigabytes."""


def wait(
    state: State,
    host: Host,
    unit: str,
    ready: Callable[[Host], bool | None],
    otherwise: str = "did not load its settings",
) -> bool:
    """Poll until the program is ready, or never will be (None); show its last log lines if it does not get there."""
    begin = time.monotonic()
    found: bool | None = False
    while found is False and time.monotonic() - begin < PATIENCE:
        found = ready(host)
        if found:
            return True
        time.sleep(POLL)
    elapsed = time.monotonic() - begin
    logger.error(f"{host.print_prefix}{unit} {otherwise} after {elapsed:.0f} s; its last lines:")
    lines = f"journalctl --no-pager --output=cat --lines=20 --unit={unit}"
    for line in shell.run(state, host, lines)[1]:
        logger.error(f"{host.print_prefix}  {line}")
    return False
