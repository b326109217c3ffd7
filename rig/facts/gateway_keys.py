"""Whether the clients' keys of a machine are in force, by its own rig-keys; no key is read for that."""

from __future__ import annotations

from pyinfra.api import FactBase

from rig.facts.models import LINKS

PROGRAM = f"{LINKS}/rig-keys"


class KeysInForce(FactBase[bool]):
    """True if the records can be used, and a running gateway has exactly the keys in them."""

    def command(self) -> str:
        return f"{PROGRAM} list >/dev/null 2>&1 && echo yes || echo no"

    def process(self, output: list[str]) -> bool:
        return output == ["yes"]
