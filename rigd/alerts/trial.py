"""A test message to one receiver, by the same route as alerts, and its outcome."""

from __future__ import annotations

import re
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rigd.alerts.alertmanager import Alertmanager

LABEL = "rig_test"
"""Label that routes the message to its receiver; the deploy writes the same label into Alertmanager's configuration."""
UNIT = "prometheus-alertmanager.service"
PATIENCE = 45.0
"""Seconds that a receiver may take; Alertmanager itself gives up after the same time."""
POLL = 0.5
LASTS = timedelta(minutes=2)
"""Time for which the alert fires; the receiver is notified of its end, too."""


@dataclass(frozen=True)
class Verdict:
    """The outcome of one message."""

    receiver: str
    accepted: bool
    reason: str = ""


def alert(receiver: str, now: datetime) -> dict[str, Any]:
    """An alert for one receiver. It differs from every earlier one: Alertmanager would hold back a repetition."""
    return {
        "labels": {
            "alertname": "Test",
            "severity": "info",
            LABEL: receiver,
            "test": secrets.token_hex(4),
        },
        "annotations": {
            "summary": f"This is a test of the receiver {receiver}.",
            "description": "Nothing is wrong: somebody typed rig-alert test.",
        },
        "startsAt": now.isoformat(),
        "endsAt": (now + LASTS).isoformat(),
    }


def send(
    alertmanager: Alertmanager,
    receiver: str,
    complaint: Callable[[str, datetime], str | None],
    patience: float = PATIENCE,
) -> Verdict:
    """Send the message, and wait until the receiver accepts or refuses it.

    Alertmanager counts accepted messages by kind, not by receiver. A refusal names its receiver only in Alertmanager's
    log: ``complaint`` reads it first, because another receiver of the kind may accept something at the same time.
    """
    now = datetime.now(UTC)
    kind = alertmanager.kind(receiver)
    before = alertmanager.taken(kind)
    alertmanager.send([alert(receiver, now)])
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        reason = complaint(receiver, now)
        if reason is not None:
            return Verdict(receiver, False, reason)
        if alertmanager.taken(kind) > before:
            return Verdict(receiver, True)
        time.sleep(POLL)
    return Verdict(receiver, False, f"no answer within {patience:.0f} s")


def complaint(receiver: str, since: datetime) -> str | None:
    """The last failure of this receiver in Alertmanager's log; None without one."""
    asked = ["journalctl", f"--unit={UNIT}", f"--since=@{since.timestamp():.0f}", "--output=cat", "--no-pager"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    lines = [line for line in shown.splitlines() if f" receiver={receiver} " in line or f'err="{receiver}/' in line]
    said = [match[1] for line in lines if (match := re.search(r'\berr="((?:[^"\\]|\\.)*)"', line))]
    return said[-1].replace('\\"', '"') if said else None
