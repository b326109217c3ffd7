"""Whether the kernel's firewall rules are those of our file."""

from __future__ import annotations

from pyinfra.api import FactBase

RULES = "/etc/rig/firewall.nft"


class RulesLoaded(FactBase[bool]):
    """Whether table `inet rig` in the kernel is what our file makes of an empty kernel.

    The file is loaded into a network namespace of its own and listed there: both listings come from nft, so they
    differ exactly when a rule was deleted, added or changed.
    """

    def command(self) -> str:
        return (
            "if command -v nft >/dev/null && "
            'live=$(nft list table inet rig 2>/dev/null) && [ -n "$live" ] && '
            f'[ "$live" = "$(unshare --net sh -c "nft -f {RULES} && nft list table inet rig" 2>/dev/null)" ]; '
            "then echo yes; else echo no; fi"
        )

    def process(self, output: list[str]) -> bool:
        return output == ["yes"]
