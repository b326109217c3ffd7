"""The kernel's rules brought in line with our file, or taken away."""

from __future__ import annotations

from collections.abc import Iterator

from pyinfra import host
from pyinfra.api import operation

from rig.facts.firewall import RulesLoaded


@operation()
def loaded(unit: str) -> Iterator[str]:
    """Table `inet rig` in the kernel is exactly our file's; ``unit`` loads it, in one transaction."""
    if not host.get_fact(RulesLoaded):
        yield f"systemctl daemon-reload && systemctl enable {unit} && systemctl restart {unit}"
