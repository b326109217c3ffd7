"""Concern secrets: one key for each consumer; made on the machine, it never leaves it."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api.deploy import deploy as concern

from rig.engines import native
from rig.facts.secrets import KEYS
from rig.operations import secrets
from rig.settings import Settings
from rig.settings.secrets import key_variable


@concern("secrets")
def deploy(settings: Settings) -> None:
    """Write the key store, and each native engine's own copy of its key."""
    secrets.keys(
        name=f"Write {KEYS}",
        variables=[key_variable(consumer) for consumer in settings.consumers],
        native={name: key_variable(name) for name in native.engines(settings)},
        renew=host.data.get(secrets.RENEW) == "yes",
    )
