"""The clients' keys of a running gateway."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import operation

from rig.facts.gateway_keys import PROGRAM, KeysInForce
from rig.operations import Commands


@operation()
def in_force() -> Commands:
    """The recorded keys are in force: also records that were restored from a backup, or that a killed run changed."""
    if not host.get_fact(KeysInForce):
        yield f"{PROGRAM} apply"
