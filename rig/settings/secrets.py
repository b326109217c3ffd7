"""Settings of the concern `secrets`: who gets a key; the keys themselves never leave the machine."""

from __future__ import annotations

from pydantic import Field

from rig.settings.types import Name, Section


class Secrets(Section):
    """Who gets a key of their own."""

    consumers: tuple[Name, ...] = Field(
        description="Names that get a key besides the enabled engines, which always have one each."
    )


def key_variable(consumer: str) -> str:
    """The variable of /etc/rig/keys.env with a consumer's key: `llama-70b` has RIG_KEY_LLAMA_70B."""
    return f"RIG_KEY_{consumer.upper().replace('-', '_')}"
