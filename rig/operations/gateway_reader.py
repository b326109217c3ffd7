"""The reader of the gateway's log: the way of its metrics to node_exporter, and its end with the gateway."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import operation

from rig.facts.gateway_reader import Reader, ReaderState
from rig.gateway.reader import FILE, LINK, TARGET, UNIT
from rig.operations import Commands, programs


@operation()
def settled(wanted: bool, linked: bool) -> Commands:
    """Unless ``wanted``, there is no reader; ``linked``: node_exporter finds the metrics. What it counted stays."""
    seen: ReaderState = host.get_fact(Reader)
    if seen.unit and not wanted:
        yield from programs.remove(UNIT, [FILE])
    if linked and seen.link != TARGET:
        yield f"ln -sfn {TARGET} {LINK}"
    elif not linked and seen.link:
        yield f"rm -f {LINK}"
