"""The kernel's rules, loaded from our file or removed."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import operation

from rig.facts.firewall import DROP_IN, RULES, Filter, FilterState
from rig.operations import Commands


@operation()
def loaded(unit: str) -> Commands:
    """Table `inet rig` in the kernel is exactly our file's; ``unit`` loads it now and at boot, in one transaction."""
    state: FilterState = host.get_fact(Filter, unit=unit)
    if state.reload_needed:
        yield "systemctl daemon-reload"
    if not state.enabled:
        yield f"systemctl enable {unit}"
    if not (state.current and state.active and state.loading):
        # The kernel's state counts: a unit emptied by a drop-in starts with success and loads nothing.
        yield f"systemctl restart {unit}; nft list table inet rig >/dev/null 2>&1 || nft -f {RULES}"


@operation()
def unloaded(unit: str) -> Commands:
    """Our table, its file and the unit that loads it are removed."""
    state: FilterState = host.get_fact(Filter, unit=unit)
    if state.enabled or state.active:
        yield f"systemctl disable --now {unit}"
    if state.loaded:
        yield "nft delete table inet rig"
    if state.written:
        yield f"rm -f {RULES} {DROP_IN} /etc/systemd/system/{unit} && systemctl daemon-reload"
