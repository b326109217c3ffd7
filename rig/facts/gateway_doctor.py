"""The doctor's facts of the gateway, read from a machine with one script; no key is read for that."""

from __future__ import annotations

from rig.facts.gateway_keys import PROGRAM
from rig.gateway.doctor import Look
from rig.gateway.reader import TARGET
from rig.gateway.reader import UNIT as READER
from rig.settings import Settings
from rigd.gateway.config import UNIT

BACKEND = "engine_"
"""In front of an engine's name in HAProxy's own metrics."""


def script(settings: Settings) -> str:
    """Examine the gateway; prints rows of a key, a tab and a value. Nothing without a gateway."""
    if not settings.gateway_wanted:
        return ""
    gateway = settings.gateway
    return rf"""
fetch() {{ curl --silent --max-time 5 "$@"; }}
printf "gateway\t%s\n" "$(systemctl is-active {UNIT})"
printf "gateway_reader\t%s\n" "$(systemctl is-active {READER})"
[ ! -e {TARGET} ] || printf "gateway_age\t%s\n" "$(($(date +%s) - $(stat -c %Y {TARGET})))"
said=$({PROGRAM} list 2>&1 >/dev/null)
printf "gateway_keys\t%s\t%s\n" $? "$(printf %s "$said" | tr "\n\t" "  ")"
printf "gateway_door\t%s\n" "$(fetch --output /dev/null --write-out "%{{http_code}}" http://127.0.0.1:{gateway.port}/v1/models)"
fetch http://127.0.0.1:{gateway.metrics.port}/metrics |
  sed -n 's/^haproxy_backend_status{{proxy="{BACKEND}\([^"]*\)",state="UP"}} \([01]\)$/gateway_engine\t\1\t\2/p'
true
"""


def look(output: list[str]) -> Look:
    """The script's output as a value."""
    rows = [line.split("\t") for line in output if line.startswith("gateway")]
    first = {row[0]: row[1] for row in rows}
    code, said = next((row[1:3] for row in rows if row[0] == "gateway_keys"), ("0", ""))
    return Look(
        service=first.get("gateway", ""),
        reader=first.get("gateway_reader", ""),
        metrics_age=float(first["gateway_age"]) if "gateway_age" in first else None,
        keys_code=int(code),
        keys_said=said,
        door=first.get("gateway_door", ""),
        engines={row[1]: row[2] == "1" for row in rows if row[0] == "gateway_engine"},
    )
