"""The doctor names what is wrong with a gateway, with its evidence and what to do, and nothing else."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from rig.facts.gateway_doctor import look, script
from rig.gateway.doctor import Look, diagnose
from tests.unit.sample import settings

WELL = Look(
    service="active", reader="active", metrics_age=3, keys_code=0, door="401", engines={"one": True, "two": False}
)


def test_a_gateway_that_is_well_is_good_in_every_check() -> None:
    found = diagnose(settings(), WELL)
    assert [check.result for check in found] == ["good"] * 5
    assert len({check.name for check in found}) == 5


def test_without_a_gateway_nothing_is_examined() -> None:
    off = settings({"gateway/enabled": False})
    assert diagnose(off, Look()) == []
    assert script(off) == ""


@pytest.mark.parametrize(
    ("found", "name", "evidence"),
    [
        (replace(WELL, service="failed"), "gateway", "rig-gateway.service is failed"),
        (replace(WELL, service=""), "gateway", "rig-gateway.service is not there"),
        (replace(WELL, door="000"), "gateway door", "nobody answers at 127.0.0.1:8080"),
        (replace(WELL, door="200"), "gateway door", "with 200 instead of 401"),
        (
            replace(WELL, keys_code=1, keys_said="rig-keys: the records are gone"),
            "gateway keys",
            "the records are gone",
        ),
        (replace(WELL, keys_code=127), "gateway keys", "rig-keys ends with 127"),
        (replace(WELL, engines={"one": False, "two": False}), "gateway engines", "it reaches none of one, two"),
        (replace(WELL, reader="failed"), "gateway metrics", "rig-gateway-reader.service is failed"),
        (replace(WELL, metrics_age=300), "gateway metrics", "are 300 s old"),
        (replace(WELL, metrics_age=None), "gateway metrics", "are never written"),
    ],
)
def test_what_is_broken_is_named_with_a_remedy_and_nothing_else_is(found: Look, name: str, evidence: str) -> None:
    (check,) = [check for check in diagnose(settings(), found) if check.result == "bad"]
    assert check.name == name
    assert evidence in check.evidence
    assert check.remedy


METRICS = (
    'haproxy_backend_status{proxy="engine_one",state="DOWN"} 1\n'
    'haproxy_backend_status{proxy="engine_one",state="UP"} 0\n'
    'haproxy_backend_status{proxy="engine_two",state="UP"} 1\n'
    'haproxy_backend_status{proxy="fallback_one",state="UP"} 1\n'
)


@pytest.fixture
def port() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 401)
            self.end_headers()
            if self.path == "/metrics":
                self.wfile.write(METRICS.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def examined(tmp_path: Path, port: int, keys: str) -> Look:
    """The script's findings on this machine, with stand-ins for the programs of one with a gateway."""
    (tmp_path / "bin").mkdir()
    for name, text in {"systemctl": "echo active", "rig-keys": keys}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    made = settings({"gateway/port": 18080, "gateway/metrics/port": 18405})
    text = script(made).replace("/usr/local/bin/rig-keys", str(tmp_path / "bin/rig-keys"))
    text = text.replace(":18080/", f":{port}/").replace(":18405/", f":{port}/")
    words = ["sh", "-c", f"PATH={tmp_path}/bin:$PATH\n{text}"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return look(done.stdout.splitlines())


def test_the_script_finds_what_is_there(tmp_path: Path, port: int) -> None:
    assert examined(tmp_path, port, "exit 0") == replace(WELL, metrics_age=None, engines={"one": False, "two": True})


def test_an_error_of_rig_keys_is_shown_in_its_own_words(tmp_path: Path, port: int) -> None:
    found = examined(tmp_path, port, "echo table; echo 'rig-keys: they are\tgone' >&2; exit 1")
    assert (found.keys_code, found.keys_said) == (1, "rig-keys: they are gone")


def test_a_machine_without_anything_of_it_is_examined_to_the_end() -> None:
    found = look(["card\t0000:01:00.0"])
    assert {check.name for check in diagnose(settings(), found) if check.result == "bad"} >= {"gateway", "gateway door"}
