"""The doctor of the gateway: checks from the service up to the metrics of its clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rig.doctor import Check
from rig.gateway.reader import UNIT as READER
from rig.settings import Settings
from rigd.gateway.config import UNIT, Config

STALE = 6 * Config.interval
"""Seconds after which the metrics of a reader that works are never as old."""
REFUSED = "401"
"""The right answer to a request without a key."""


@dataclass(frozen=True)
class Look:
    """Findings on a machine, from one round trip."""

    service: str = ""
    """State of the gateway's unit, such as active."""
    reader: str = ""
    metrics_age: float | None = None
    """Seconds since the reader wrote the metrics; None if there are none."""
    keys_code: int = 0
    """Exit status of `rig-keys list`."""
    keys_said: str = ""
    """Its error."""
    door: str = ""
    """Status of the answer to a request without a key; 000 if nobody answers."""
    engines: Mapping[str, bool] = field(default_factory=dict)
    """By name: whether the gateway reaches it."""


def diagnose(settings: Settings, look: Look) -> list[Check]:
    """Every check; none without a gateway."""
    if not settings.gateway_wanted:
        return []
    return [_service(look), _door(settings, look), _keys(look), _engines(look), _reader(settings, look)]


def _service(look: Look) -> Check:
    if look.service == "active":
        return Check("gateway", "good", f"{UNIT} runs")
    remedy = f"journalctl -u {UNIT} -n 20 shows why; a deploy writes all of its files again"
    return Check("gateway", "bad", f"{UNIT} is {look.service or 'not there'}", remedy)


def _door(settings: Settings, look: Look) -> Check:
    at = f"127.0.0.1:{settings.gateway.port}"
    if look.door == REFUSED:
        return Check("gateway door", "good", f"{at} refuses a request without a key")
    if look.door in ("", "000"):
        return Check("gateway door", "bad", f"nobody answers at {at}", "see the check 'gateway'")
    sentence = f"{at} answers a request without a key with {look.door} instead of {REFUSED}"
    return Check(
        "gateway door", "bad", sentence, f"another program may listen there: sudo ss -ltnp; then restart {UNIT}"
    )


def _keys(look: Look) -> Check:
    if look.keys_code == 0:
        return Check("gateway keys", "good", "the recorded keys are in force")
    said = look.keys_said.removeprefix("rig-keys: ") or f"rig-keys ends with {look.keys_code}"
    return Check("gateway keys", "bad", said, "do what it says; sudo rig-keys list says when all is well")


def _engines(look: Look) -> Check:
    if not look.engines:
        return Check("gateway engines", "unknown", "the gateway shows no engines", "see the check 'gateway'")
    up, down = ([name for name, is_up in look.engines.items() if is_up is wanted] for wanted in (True, False))
    if not up:
        remedy = "systemctl status 'rig-container@*' 'rig-native@*'; one that loads its model takes minutes"
        return Check("gateway engines", "bad", f"it reaches none of {', '.join(down)}", remedy)
    others = f"; not {', '.join(down)}" if down else ""
    return Check("gateway engines", "good", f"it reaches {', '.join(up)}{others}")


def _reader(settings: Settings, look: Look) -> Check:
    if look.reader != "active":
        remedy = f"journalctl -u {READER} -n 20 shows why"
        return Check("gateway metrics", "bad", f"{READER} is {look.reader or 'not there'}", remedy)
    if look.metrics_age is None or look.metrics_age > STALE:
        age = "never written" if look.metrics_age is None else f"{look.metrics_age:.0f} s old"
        return Check("gateway metrics", "bad", f"the metrics of clients are {age}", f"sudo systemctl restart {READER}")
    return Check("gateway metrics", "good", f"the metrics of clients are {look.metrics_age:.0f} s old")
