"""Prometheus asks exactly the engines that run, with their keys, and nothing that monitors faces a network."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from rig.monitoring import alerts, prometheus
from rig.render import render
from rig.settings import Settings
from rig.settings.monitoring import seconds
from rigd.metrics.config import parse
from tests.unit.sample import settings

EVERYWHERE = ("0.0.0.0", "[::]", "=:")


def jobs(made: Settings) -> dict[str, Any]:
    return {job["job_name"]: job for job in prometheus.configuration(made)["scrape_configs"]}


def test_every_enabled_engine_is_asked_with_its_own_key_and_no_other_is() -> None:
    made = settings({"engines/one/enabled": False, "engines/two/address": "127.0.0.3"})
    engines = {name: job for name, job in jobs(made).items() if name.startswith("engine-")}
    assert set(engines) == {"engine-two"}
    (target,) = engines["engine-two"]["static_configs"]
    assert target["targets"] == ["127.0.0.3:8003"]
    assert target["labels"] == {"job": "engine", "engine": "two", "model": "llama-3.1-8b-q4"}
    assert engines["engine-two"]["authorization"] == {"credentials_file": "/etc/rig/prometheus-keys/two"}


def test_programs_of_the_monitoring_are_asked_where_they_listen() -> None:
    made = settings({"monitoring/prometheus/port": 19090, "monitoring/node_exporter/port": 19100})
    asked = {name: job["static_configs"][0]["targets"] for name, job in jobs(made).items()}
    assert asked["prometheus"] == ["127.0.0.1:19090"]
    assert asked["node"] == ["127.0.0.1:19100"]


@pytest.mark.parametrize(("interval", "timeout"), [("1s", "1s"), ("15s", "10s"), ("1m", "10s")])
def test_no_answer_is_waited_for_longer_than_the_next_question(interval: str, timeout: str) -> None:
    """Prometheus refuses a timeout that is longer than the interval."""
    made = prometheus.configuration(settings({"monitoring/scrape_interval": interval}))
    assert made["global"] == {"scrape_interval": interval, "evaluation_interval": interval, "scrape_timeout": timeout}


@pytest.mark.parametrize("unit", prometheus.UNITS)
def test_no_program_listens_on_every_address_from_its_first_start(unit: str) -> None:
    text = render(prometheus.drop_in(unit), **prometheus.drop_ins(settings())[unit])
    lines = [line for line in text.splitlines() if line.startswith("ExecStart=")]
    assert lines[0] == "ExecStart=", "systemd would add ours to the distribution's"
    assert "listen-address=127.0.0.1:" in lines[1]
    assert not [word for word in EVERYWHERE if word in lines[1]]
    assert len(lines) == 2


def test_limits_are_those_of_the_settings_and_go_is_told_of_them_before_they_bite() -> None:
    made = settings({"monitoring/prometheus/memory": "2G", "monitoring/prometheus/retention_size": "7G"})
    values = prometheus.drop_ins(made)[prometheus.PROMETHEUS]
    text = render(prometheus.drop_in(prometheus.PROMETHEUS), **values)
    assert "\nMemoryMax=2G\n" in text
    soft = int(text.partition("GOMEMLIMIT=")[2].split()[0])
    assert (2 << 30) * 0.8 < soft < 2 << 30
    assert '"--storage.tsdb.retention.size=7GB"' in text


def test_the_fingerprint_follows_everything_that_is_loaded() -> None:
    before = prometheus.fingerprint(settings())
    assert prometheus.fingerprint(settings()) == before
    for changes in ({"monitoring/scrape_interval": "20s"}, {"engines/two/port": 8999}, {"engines/one/enabled": False}):
        assert prometheus.fingerprint(settings(changes)) != before


def test_the_fingerprint_can_be_read_from_the_running_program() -> None:
    (group,) = alerts.document(settings(), "abc")["groups"]
    assert {"record": "rig_settings_info", "expr": "vector(1)", "labels": {"fingerprint": "abc"}} in group["rules"]


def test_files_are_yaml_that_means_what_was_computed() -> None:
    document = prometheus.configuration(settings())
    text = render("/etc/rig/prometheus/prometheus.yml", document=document)
    assert yaml.safe_load(text) == document


def test_no_package_is_asked_for_without_the_monitoring() -> None:
    assert "prometheus" in prometheus.packages(settings())
    assert prometheus.packages(settings({"monitoring/enabled": False})) == ()
    assert settings({"monitoring/enabled": False}).monitoring.listeners == {}
    assert prometheus.scraped(settings({"monitoring/enabled": False})) == ()


def test_what_is_looked_at_is_what_the_settings_run() -> None:
    made = prometheus.watched(settings({"engines/one/enabled": False, "monitoring/certificates": ["/etc/a.pem"]}))
    assert [(engine.name, engine.unit, engine.port) for engine in made.engines] == [
        ("two", "rig-native@two.service", 8003)
    ]
    assert made.models == ("llama-3.1-8b-q4",)
    assert made.certificates == ("/etc/a.pem",)


def test_what_is_looked_at_is_read_as_it_was_written() -> None:
    from rigd.metrics.config import dump

    made = prometheus.watched(settings({"monitoring/certificates": ["/etc/a.pem"]}))
    assert parse(dump(made)) == made


def test_durations_are_seconds() -> None:
    assert [seconds(text) for text in ("15s", "2m", "3h", "90d", "1w")] == [15, 120, 10800, 7776000, 604800]
