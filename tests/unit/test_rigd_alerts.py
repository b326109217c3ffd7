"""rig-alert reports for each receiver whether it accepted a message, and relies only on Alertmanager."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from rigd.alerts import cli, trial
from rigd.alerts.alertmanager import Alertmanager, Silent
from rigd.metrics.config import Config, dump


@dataclass
class Standin:
    """The parts of Alertmanager's interface that rig-alert uses; ``takes`` decides for its receivers."""

    port: int = 0
    receivers: tuple[str, ...] = ("nobody", "chat", "box")
    takes: bool = True
    firing: list[dict[str, Any]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)
    others: int = 0

    def metrics(self) -> str:
        """Other receivers accept and refuse messages, too, all the time."""
        self.others += 1
        taken = len(self.sent) if self.takes else 0
        return (
            "# TYPE alertmanager_notification_requests_total counter\n"
            f'alertmanager_notification_requests_total{{integration="email"}} {self.others}\n'
            f'alertmanager_notification_requests_total{{integration="webhook"}} {self.others + taken}\n'
            f'alertmanager_notification_requests_failed_total{{integration="email"}} 0\n'
            f'alertmanager_notification_requests_failed_total{{integration="webhook"}} {self.others}\n'
        )


def status(receivers: tuple[str, ...]) -> dict[str, Any]:
    """The configuration in Alertmanager's form."""
    listed = "".join(f"- name: {name}\n  webhook_configs:\n  - send_resolved: true\n" for name in receivers[1:])
    return {"config": {"original": f"route:\n  receiver: nobody\nreceivers:\n- name: nobody\n{listed}templates: []\n"}}


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    monkeypatch.setattr(trial, "POLL", 0.01)
    found = Standin()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers: dict[str, Any] = {
                "/api/v2/receivers": [{"name": name} for name in found.receivers],
                "/api/v2/alerts?silenced=false&inhibited=false": found.firing,
                "/api/v2/status": status(found.receivers),
            }
            text = found.metrics() if self.path == "/metrics" else json.dumps(answers[self.path])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_POST(self) -> None:
            found.sent += json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_port
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def config(standin: Standin, tmp_path: Path) -> str:
    path = tmp_path / "metrics.json"
    path.write_text(dump(Config("", "", (), (), (), standin.port)))
    return str(path)


def _silence(receiver: str, since: datetime) -> str | None:
    return None


def test_a_receiver_whose_kind_took_one_more_accepted(standin: Standin) -> None:
    verdict = trial.send(Alertmanager(standin.port), "chat", _silence)
    assert verdict == trial.Verdict("chat", True)
    (alert,) = standin.sent
    assert alert["labels"]["rig_test"] == "chat"
    assert alert["startsAt"] < alert["endsAt"]


def test_a_receiver_that_the_log_complains_of_did_not_whatever_others_took(standin: Standin) -> None:
    verdict = trial.send(Alertmanager(standin.port), "chat", lambda receiver, since: f"{receiver} said no")
    assert verdict == trial.Verdict("chat", False, "chat said no")


def test_a_receiver_that_takes_nothing_did_not(standin: Standin) -> None:
    standin.takes = False
    verdict = trial.send(Alertmanager(standin.port), "chat", _silence, patience=1)
    assert not verdict.accepted
    assert "no answer" in verdict.reason


def test_what_other_kinds_take_is_not_counted(standin: Standin) -> None:
    alertmanager = Alertmanager(standin.port)
    assert alertmanager.kind("chat") == "webhook"
    assert alertmanager.kind("nosuch") == ""
    assert alertmanager.taken("webhook") == alertmanager.taken("webhook") == 0
    assert alertmanager.taken("email") < alertmanager.taken("email")


def test_two_tests_are_two_alerts() -> None:
    first, second = (trial.alert("chat", datetime(2026, 1, 1, tzinfo=UTC)) for _ in range(2))
    assert first["labels"] != second["labels"]


@pytest.mark.parametrize(
    "line",
    [
        'level=warn component=dispatcher receiver=chat integration=webhook[0] attempts=1 err="no \\"way\\" in"',
        'level=error msg="Notify for alerts failed" num_alerts=1 err="chat/webhook[0]: no \\"way\\" in"',
    ],
)
def test_the_reason_is_what_alertmanager_wrote_last_about_that_receiver(
    line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ['x receiver=chat err="older"', line, 'x receiver=box err="of another"', 'x receiver=chatter err="no"']
    done = subprocess.CompletedProcess([], 0, "\n".join(lines), "")
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: done)
    assert (trial.complaint("chat", datetime.now(UTC)) or "").endswith('no "way" in')
    assert trial.complaint("phone", datetime.now(UTC)) is None


def test_all_are_tried_when_none_is_named(standin: Standin, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--config", config, "test"]) == 0
    assert capsys.readouterr().out == "box: accepted\nchat: accepted\n"
    assert cli.main(["--config", config, "test", "chat"]) == 0
    assert [alert["labels"]["rig_test"] for alert in standin.sent] == ["box", "chat", "chat"]


def test_one_that_refuses_is_told_by_the_exit_status(
    standin: Standin, config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "complaint", lambda receiver, since: "no")
    assert cli.main(["--config", config, "test"]) == 1


@pytest.mark.parametrize(
    ("receivers", "asked", "said"),
    [
        (("nobody",), [], "no receiver is set; write one into monitoring.receivers"),
        (("nobody", "chat"), ["chta"], "no receiver is called chta; there are: chat"),
    ],
)
def test_who_cannot_be_tried_is_told_in_a_sentence(
    standin: Standin, config: str, capsys: pytest.CaptureFixture[str], receivers: Any, asked: list[str], said: str
) -> None:
    standin.receivers = receivers
    assert cli.main(["--config", config, "test", *asked]) == 2
    assert capsys.readouterr().err == f"rig-alert: {said}\n"
    assert standin.sent == []


def test_what_fires_is_listed_the_oldest_first_and_tests_are_not(
    standin: Standin, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--config", config, "list"]) == 0
    assert capsys.readouterr().out == "nothing fires\n"
    standin.firing = [
        {
            "labels": {"severity": severity} | ({"rig_test": "chat"} if summary == "test" else {}),
            "annotations": {"summary": summary, "description": "Do this."},
            "startsAt": f"2026-11-2{day}T05:00:00Z",
        }
        for severity, summary, day in (("info", "Second.", 2), ("critical", "First.", 1), ("info", "test", 3))
    ]
    assert cli.main(["--config", config, "list"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "critical since 2026-11-21T05:00  First."
    assert [line.strip() for line in shown[1::2]] == ["Do this.", "Do this."]
    assert len(shown) == 4


def test_an_alertmanager_that_is_not_there_is_told_in_a_sentence(
    standin: Standin, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Silent, match="systemctl status prometheus-alertmanager"):
        Alertmanager(1).receivers()
    path = tmp_path / "other.json"
    path.write_text(dump(Config("", "", (), (), (), 1)))
    assert cli.main(["--config", str(path), "list"]) == 2
    assert cli.main(["--config", str(tmp_path / "missing"), "list"]) == 2
    assert "Traceback" not in capsys.readouterr().err
