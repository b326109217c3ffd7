"""The kernel's rules, loaded from our file or removed."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import operation

from rig.confirmation import Change
from rig.facts.firewall import DROP_IN, RULES, Filter, FilterState
from rig.operations import Commands, files
from rig.operations.confirmation import confirmed

NEW = files.beside(RULES)
CHANGE = Change(
    name="firewall",
    keep='{ echo "table inet rig"; echo "delete table inet rig"; nft list table inet rig 2>/dev/null || true; } '
    '>"$kept/rules.nft"',
    apply=f"nft -f {NEW}",
    undo='nft -f "$kept/rules.nft"',
    commit=files.replace(RULES),
)
"""The kernel has the new rules, and the boot's file is replaced only when they are confirmed."""
REMEDY = "correct firewall.ssh, and deploy again"


@operation()
def loaded(unit: str, text: str) -> Commands:
    """Table `inet rig` in the kernel is exactly ``text``'s, and ``unit`` loads it at boot, in one transaction.

    Rules are on trial first: a new SSH connection must get in with them before they are written to the boot's file.
    """
    state: FilterState = host.get_fact(Filter, unit=unit)
    current = state.current and files.holds(RULES, text)
    if state.reload_needed:
        yield "systemctl daemon-reload"
    if not current:
        yield from files.prepared(RULES, text)
        yield from confirmed(CHANGE, REMEDY)
    if not state.enabled:
        yield f"systemctl enable {unit}"
    if not (current and state.active and state.loading):
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
