"""Alertmanager's settings: which receiver gets which alert, and its message."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from rig.settings import Settings
from rig.settings.monitoring import NOBODY, Email, Ntfy, Receiver

UNIT = "prometheus-alertmanager.service"
SECRETS = "/etc/rig/receivers"
"""The owner's secrets: a password or token for each receiver that needs one, in a file with its name."""
CREDENTIALS = f"/run/credentials/{UNIT}"
"""The copies of them that systemd gives to the program."""
TEST = "rig_test"
"""Label of a test alert, with the name of its receiver."""
SEVERITIES = ("info", "warning", "critical")

TITLE = "{{.status}}: {{.commonLabels.alertname}}"
LINES = "{{range .alerts}}{{.annotations.summary}} {{.annotations.description}}\n{{end}}"
"""Title and text of an ntfy message; ntfy fills them in from Alertmanager's JSON (from ntfy 2.10)."""

SUBJECT = "[{{ .Status }}] {{ .CommonLabels.alertname }}"
TEXT = """{{ range .Alerts }}{{ .Annotations.summary }}
{{ .Annotations.description }}
{{ .Status }}, severity {{ .Labels.severity }}, since {{ .StartsAt }}

{{ end }}"""
"""Subject and text of a mail, filled in by Alertmanager."""


def document(settings: Settings) -> dict[str, Any]:
    """The content of alertmanager.yml."""
    monitoring = settings.monitoring
    return {
        "route": {
            "receiver": NOBODY,
            "group_by": ["alertname"],
            "group_wait": monitoring.alertmanager.group_wait,
            "group_interval": monitoring.alertmanager.group_interval,
            "repeat_interval": monitoring.alertmanager.repeat_interval,
            "routes": list(_routes(settings)),
        },
        "receivers": [
            {"name": NOBODY},
            *({"name": name} | _receiver(name, receiver) for name, receiver in monitoring.receivers.items()),
        ],
        "inhibit_rules": [
            # One message for an engine that is gone.
            {
                "source_matchers": ['alertname="EngineDown"'],
                "target_matchers": ['alertname="EngineNotReady"'],
                "equal": ["engine"],
            }
        ],
    }


def loaded_as(text: str) -> int:
    """Alertmanager's hash of a loaded configuration, as in its metric alertmanager_config_hash.

    The first six bytes of its MD5 as a number, little end first (config/coordinator.go): a float holds that exactly.
    """
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[:6], "little")


def secrets(settings: Settings) -> dict[str, str]:
    """The secret's file of each receiver that has one, by the receiver's name."""
    receivers = settings.monitoring.receivers.items() if settings.monitoring.enabled else ()
    return {name: f"{SECRETS}/{name}" for name, receiver in receivers if receiver.secret}


def program(settings: Settings) -> list[str]:
    """Program and arguments. Its default address for finding other instances would face the network."""
    port = settings.monitoring.alertmanager.port
    return [
        "/usr/bin/prometheus-alertmanager",
        "--config.file=/etc/rig/prometheus/alertmanager.yml",
        "--storage.path=/var/lib/prometheus/alertmanager",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.external-url=http://127.0.0.1:{port}/",
        "--cluster.listen-address=",
    ]


def _routes(settings: Settings) -> Iterator[dict[str, Any]]:
    for name in settings.monitoring.receivers:
        # At once, and each on its own: somebody waits for it.
        yield {
            "matchers": [f'{TEST}="{name}"'],
            "receiver": name,
            "group_by": ["..."],
            "group_wait": "0s",
            "group_interval": "10s",
        }
    yield {"matchers": [f'{TEST}!=""'], "receiver": NOBODY}
    for name, receiver in settings.monitoring.receivers.items():
        least = SEVERITIES.index(receiver.severity)
        yield {
            "matchers": [f'severity=~"{"|".join(SEVERITIES[least:])}"'],
            "receiver": name,
            "continue": True,
        }


def _receiver(name: str, receiver: Receiver) -> dict[str, Any]:
    secret = f"{CREDENTIALS}/{name}" if receiver.secret else None
    if isinstance(receiver, Email):
        return {"email_configs": [_email(receiver, secret)]}
    url = f"{receiver.url}?tpl=1&t={quote(TITLE)}&m={quote(LINES)}" if isinstance(receiver, Ntfy) else receiver.url
    return {"webhook_configs": [{"url": url, "send_resolved": True} | _bearer(secret)]}


def _bearer(secret: str | None) -> dict[str, Any]:
    return {} if secret is None else {"http_config": {"authorization": {"credentials_file": secret}}}


def _email(receiver: Email, secret: str | None) -> dict[str, Any]:
    login = {} if receiver.user is None else {"auth_username": receiver.user}
    return {
        "to": receiver.to,
        "from": receiver.sender,
        "smarthost": receiver.server,
        "require_tls": receiver.tls,
        "send_resolved": True,
        "headers": {"Subject": SUBJECT},
        "text": TEXT,
        # Alertmanager's own page is forty times as long as the text.
        "html": "",
        **login,
        **({} if secret is None else {"auth_password_file": secret}),
    }
