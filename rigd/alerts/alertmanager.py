"""The parts of Alertmanager's HTTP API that rig-alert uses."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 10
NOBODY = "nobody"
"""The receiver that notifies nobody."""


class Silent(Exception):
    """Alertmanager does not answer; the message is shown to the owner."""


@dataclass(frozen=True)
class Alertmanager:
    """This machine's Alertmanager."""

    port: int

    def receivers(self) -> list[str]:
        """Names of all receivers."""
        return sorted(entry["name"] for entry in self._json("api/v2/receivers") if entry["name"] != NOBODY)

    def alerts(self) -> list[dict[str, Any]]:
        """All firing alerts that are not silenced."""
        found: list[dict[str, Any]] = self._json("api/v2/alerts?silenced=false&inhibited=false")
        return found

    def send(self, alerts: Sequence[dict[str, Any]]) -> None:
        """Send alerts to Alertmanager, as Prometheus does."""
        body = json.dumps(alerts).encode()
        self._open(urllib.request.Request(self._url("api/v2/alerts"), body, {"Content-Type": "application/json"}))

    def kind(self, receiver: str) -> str:
        """A receiver's integration, in the word that Alertmanager counts by, such as webhook."""
        within = False
        for line in self._json("api/v2/status")["config"]["original"].splitlines():
            named = re.match(r" *- name: (.*)", line)
            within = named[1].strip("\"'") == receiver if named else within
            configured = re.match(r" +([a-z0-9]+)_configs:", line)
            if within and configured:
                return configured[1]
        return ""

    def taken(self, kind: str) -> float:
        """Number of messages that all receivers of this kind accepted since Alertmanager started."""
        asked = {"alertmanager_notification_requests_total": 1, "alertmanager_notification_requests_failed_total": -1}
        total = 0.0
        for line in self._open(urllib.request.Request(self._url("metrics"))).decode().splitlines():
            name, _, labels = line.partition("{")
            if name in asked and f'integration="{kind}"' in labels:
                total += asked[name] * float(line.rpartition(" ")[2])
        return total

    def _json(self, path: str) -> Any:
        return json.loads(self._open(urllib.request.Request(self._url(path))))

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def _open(self, request: urllib.request.Request) -> bytes:
        # Ignore proxies in the environment: Alertmanager is on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=SECONDS) as answer:
                content: bytes = answer.read()
                return content
        except (OSError, urllib.error.URLError) as error:
            raise Silent(
                f"Alertmanager does not answer on port {self.port} ({error}); look at: systemctl status "
                "prometheus-alertmanager"
            ) from error
