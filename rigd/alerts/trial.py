"""A message to one receiver, by the way that alerts take, and what became of it."""

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
"""By it Alertmanager knows whom the message is for; the deploy writes the same into its configuration."""
UNIT = "prometheus-alertmanager.service"
PATIENCE = 45.0
"""Seconds that a receiver may take: Alertmanager itself gives up on one after as many."""
POLL = 0.5
LASTS = timedelta(minutes=2)
"""How long the alert fires; its end is told, too."""


@dataclass(frozen=True)
class Verdict:
    """What became of one message."""

    receiver: str
    accepted: bool
    reason: str = ""


def alert(receiver: str, now: datetime) -> dict[str, Any]:
    """An alert for one receiver only; unlike every earlier one, or it would be held back as told already."""
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
    """Send it, and wait until it was taken or refused.

    Alertmanager counts by kind what was taken, and not by receiver. Who refuses is named in its log only: ``complaint``
    looks there, and comes first, as another receiver of the kind may take something at the same time.
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
    """The last thing that Alertmanager wrote of a failure with this receiver; None when it wrote nothing."""
    asked = ["journalctl", f"--unit={UNIT}", f"--since=@{since.timestamp():.0f}", "--output=cat", "--no-pager"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    lines = [line for line in shown.splitlines() if f" receiver={receiver} " in line or f'err="{receiver}/' in line]
    said = [match[1] for line in lines if (match := re.search(r'\berr="((?:[^"\\]|\\.)*)"', line))]
    return said[-1].replace('\\"', '"') if said else None
