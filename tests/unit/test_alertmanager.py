"""Whoever is to be told is told, of what he asked for, with a secret that stands in no file of ours."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from rig.monitoring import alertmanager
from rig.render import render
from rig.settings import Settings
from rigd.alerts import trial
from rigd.alerts.alertmanager import NOBODY
from tests.unit.project import WORKSTATION, Project
from tests.unit.sample import settings

CHAT = {"kind": "webhook", "url": "https://example.org/hook"}
PHONE = {"kind": "ntfy", "url": "https://ntfy.sh/my-topic", "severity": "warning"}
BOX = {"kind": "email", "to": "a@example.org", "sender": "b@example.org", "server": "mail.example.org:587"}


def made(**receivers: dict[str, Any]) -> dict[str, Any]:
    return alertmanager.document(_settings(**receivers))


def _settings(**receivers: dict[str, Any]) -> Settings:
    return settings({"monitoring/receivers": receivers})


def receiver(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [entry for entry in document["receivers"] if entry["name"] == name]
    return {key: value for key, value in found.items() if key != "name"}


def test_without_receivers_everything_is_told_to_nobody() -> None:
    document = made()
    assert document["route"]["receiver"] == NOBODY
    assert [entry["name"] for entry in document["receivers"]] == [NOBODY]
    assert {route["receiver"] for route in document["route"]["routes"]} == {NOBODY}


@pytest.mark.parametrize(
    ("severity", "told"), [("info", "info|warning|critical"), ("warning", "warning|critical"), ("critical", "critical")]
)
def test_a_receiver_is_told_of_what_is_as_severe_as_it_wants_or_more(severity: str, told: str) -> None:
    routes = made(chat={**CHAT, "severity": severity})["route"]["routes"]
    assert {"matchers": [f'severity=~"{told}"'], "receiver": "chat", "continue": True} in routes


def test_every_receiver_is_told_and_not_only_the_first() -> None:
    routes = made(chat=CHAT, phone=PHONE, box=BOX)["route"]["routes"]
    own = [route for route in routes if "severity" in route["matchers"][0]]
    assert [route["receiver"] for route in own] == ["chat", "phone", "box"]
    assert all(route["continue"] for route in own)


def test_a_test_goes_at_once_to_the_one_that_it_is_for_and_to_nobody_else() -> None:
    routes = made(chat=CHAT, phone=PHONE)["route"]["routes"]
    assert trial.LABEL == alertmanager.TEST
    assert [route["receiver"] for route in routes[:3]] == ["chat", "phone", NOBODY]
    assert [route["matchers"] for route in routes[:3]] == [['rig_test="chat"'], ['rig_test="phone"'], ['rig_test!=""']]
    assert not any("continue" in route for route in routes[:3])
    assert routes[0]["group_wait"] == "0s"
    assert routes[0]["group_by"] == ["..."], "the second test of a day would be held back as told already"


def test_a_webhook_gets_alertmanagers_own_json() -> None:
    assert receiver(made(chat=CHAT), "chat") == {
        "webhook_configs": [{"url": "https://example.org/hook", "send_resolved": True}]
    }


def test_a_topic_of_ntfy_is_told_how_to_read_it() -> None:
    (made_of,) = receiver(made(phone=PHONE), "phone")["webhook_configs"]
    parts = urlsplit(made_of["url"])
    assert (parts.netloc, parts.path) == ("ntfy.sh", "/my-topic")
    query = parse_qs(parts.query)
    assert query["tpl"] == ["1"]
    assert "{{.commonLabels.alertname}}" in query["t"][0]
    assert "{{.annotations.summary}}" in query["m"][0]


def test_a_mail_is_text_and_says_what_is_wrong_and_what_to_do() -> None:
    (made_of,) = receiver(made(box=BOX), "box")["email_configs"]
    assert (made_of["to"], made_of["from"], made_of["smarthost"]) == (BOX["to"], BOX["sender"], BOX["server"])
    assert made_of["require_tls"] is True
    assert made_of["html"] == ""
    assert ".Annotations.summary" in made_of["text"] and ".Annotations.description" in made_of["text"]
    assert not [key for key in made_of if key.startswith("auth")]


def test_secrets_come_from_credentials_that_systemd_hands_over() -> None:
    document = made(
        chat={**CHAT, "secret": True}, phone={**PHONE, "secret": True}, box={**BOX, "user": "me", "secret": True}
    )
    folder = "/run/credentials/prometheus-alertmanager.service"
    for name in ("chat", "phone"):
        (hook,) = receiver(document, name)["webhook_configs"]
        assert hook["http_config"] == {"authorization": {"credentials_file": f"{folder}/{name}"}}
    (mail,) = receiver(document, "box")["email_configs"]
    assert (mail["auth_username"], mail["auth_password_file"]) == ("me", f"{folder}/box")


def test_each_secret_is_handed_over_from_its_own_file() -> None:
    wanted = _settings(chat={**CHAT, "secret": True}, phone=PHONE)
    assert alertmanager.secrets(wanted) == {"chat": "/etc/rig/receivers/chat"}
    text = render(
        f"/etc/systemd/system/{alertmanager.UNIT}.d/rig.conf",
        exec_start="x",
        memory="1G",
        secrets=alertmanager.secrets(wanted),
    )
    assert "\nLoadCredential=chat:/etc/rig/receivers/chat\n" in text


def test_it_does_not_look_for_others_of_its_kind() -> None:
    assert "--cluster.listen-address=" in alertmanager.program(settings())


def test_a_configuration_is_known_by_the_number_that_alertmanager_shows() -> None:
    """MD5 of nothing begins d4 1d 8c d9 8f 00, and the last of these counts most."""
    assert alertmanager.loaded_as("") == 0x008FD98C1DD4


def test_a_login_without_a_password_is_refused(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    box = "{kind: email, to: a@b.c, sender: a@b.c, server: 'b.c:25', user: me}"
    project.write("workstation.yml", f"monitoring:\n  receivers:\n    box: {box}\n")
    assert project.problems() == [
        "group_data/workstation.yml:3: monitoring.receivers.box.user: has no password to log in with; "
        "write secret: true, or user: null"
    ]


def test_a_login_in_the_clear_is_refused(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    box = "{kind: email, to: a@b.c, sender: a@b.c, server: 'b.c:25', user: me, secret: true, tls: false}"
    project.write("workstation.yml", f"monitoring:\n  receivers:\n    box: {box}\n")
    (told,) = project.problems()
    assert told.startswith("group_data/workstation.yml:3: monitoring.receivers.box.tls: must be true for a login")


@pytest.mark.parametrize(
    ("wrong", "path", "sentence"),
    [
        ("{kind: fax}", "kind", "'fax'"),
        ("{kind: webhook}", "url", "missing"),
        ("{kind: email, to: me, sender: a@b.c, server: 'b.c:25'}", "to", "is not a mail address"),
        ("{kind: email, to: a@b.c, sender: a@b.c, server: b.c}", "server", "is not a server with its port"),
    ],
)
def test_a_receiver_that_cannot_be_told_is_refused_where_it_stands(
    project: Project, wrong: str, path: str, sentence: str
) -> None:
    project.write("hosts.yml", WORKSTATION)
    project.write("workstation.yml", f"monitoring:\n  receivers:\n    box: {wrong}\n")
    (told,) = project.problems()
    assert told.startswith("group_data/workstation.yml:3: monitoring.receivers.box")
    assert path in told and sentence in told
