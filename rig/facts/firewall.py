"""State of the packet filter: the kernel's rules against those of our file, and the unit that loads them."""

from __future__ import annotations

from dataclasses import dataclass

from pyinfra.api import FactBase

RULES = "/etc/rig/firewall.nft"

DROP_IN = "/etc/systemd/system/nftables.service.d/rig.conf"
"""Loads our table again after the distribution's service has flushed it."""


@dataclass(frozen=True)
class FilterState:
    """The state of our table, our file and our unit."""

    written: bool
    """Our file exists."""
    loaded: bool
    """The kernel has a table `inet rig`."""
    current: bool
    """It equals the table that our file makes in an empty kernel."""
    enabled: bool
    active: bool
    loading: bool
    """The unit starts nft with our file: no drop-in has changed its command."""
    reload_needed: bool
    """systemd has not read the current version of a unit or drop-in of ours."""


class Filter(FactBase[FilterState]):
    """State of the packet filter. The file is loaded into a network namespace of its own and listed there: both
    listings come from nft, so they differ exactly when a rule was deleted, added or changed."""

    def command(self, unit: str) -> str:
        return f"""
systemctl show --property=ActiveState,UnitFileState,NeedDaemonReload,LoadState {unit}
systemctl show --property=ExecStart {unit} | grep -qF " {RULES} " && echo Loading=yes
systemctl show --property=NeedDaemonReload nftables.service | sed s/^/Other/
[ -f {RULES} ] || [ -f {DROP_IN} ] && echo Written=yes
live=$(nft list table inet rig 2>/dev/null) && echo Loaded=yes
ours=$(unshare --net sh -c "nft -f {RULES} && nft list table inet rig" 2>/dev/null)
[ -n "$live" ] && [ "$live" = "$ours" ] && echo Current=yes
true
"""

    def process(self, output: list[str]) -> FilterState:
        values = dict(line.split("=", 1) for line in output)
        return FilterState(
            written="Written" in values,
            loaded="Loaded" in values,
            current="Current" in values,
            enabled=values["UnitFileState"] == "enabled",
            active=values["ActiveState"] == "active",
            loading="Loading" in values,
            reload_needed=values["LoadState"] == "not-found"
            or "yes" in (values["NeedDaemonReload"], values["OtherNeedDaemonReload"]),
        )
