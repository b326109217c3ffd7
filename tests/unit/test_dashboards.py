"""Dashboards are what Grafana reads, and what they ask for has a name that somebody writes."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from rig.monitoring import dashboards, grafana
from rig.monitoring.dashboards import ALL, Dashboard
from rig.monitoring.prometheus import KEPT
from rigd.gateway.metrics import METRICS as CLIENTS
from rigd.thermal.metrics import METRICS
from tests.lab.promql import names
from tests.unit.project import WORKSTATION, Project
from tests.unit.sample import IMAGE, settings

each = pytest.mark.parametrize("dashboard", ALL, ids=lambda dashboard: dashboard.name)


def asked(dashboard: Dashboard) -> set[str]:
    return {name for panel in dashboard.panels for line in panel.lines for name in names(line.expression)}


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("up", {"up"}),
        ('1 - avg(rate(node_cpu_seconds_total{mode="idle"}[5m]))', {"node_cpu_seconds_total"}),
        ("a / on (x) group_left (y) b offset 5m > 3", {"a", "b"}),
        ("sum by (device) (rate(a_total[$__rate_interval]))", {"a_total"}),
        ('max by (engine) ({__name__=~"a:b|c:d"})', {"a:b", "c:d"}),
        ("rig:engine_queue + llamacpp:requests_processing", {"rig:engine_queue", "llamacpp:requests_processing"}),
    ],
)
def test_names_are_found_in_questions(expression: str, found: set[str]) -> None:
    assert names(expression) == found


@each
def test_no_panel_is_without_a_question_and_none_lies_on_another(dashboard: Dashboard) -> None:
    drawn = dashboards.document(dashboard)["panels"]
    assert all(panel["targets"] for panel in drawn)
    places = [panel["gridPos"] for panel in drawn]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    assert len({panel["id"] for panel in drawn}) == len(drawn)


def test_every_dashboard_has_a_name_of_its_own() -> None:
    assert len({dashboards.document(dashboard)["uid"] for dashboard in ALL}) == len(ALL)


def test_what_is_asked_of_the_graphics_card_is_what_its_monitor_writes() -> None:
    assert asked(dashboards.GPU) <= METRICS.keys()
    assert len(asked(dashboards.GPU)) > 10


def test_what_is_asked_of_the_gateways_clients_is_what_its_reader_writes() -> None:
    # A summary's names end in its two parts.
    parts = {f"{name}{part}" for name, (kind, _) in CLIENTS.items() if kind == "summary" for part in ("_sum", "_count")}
    own = {name for name in asked(dashboards.GATEWAY) if not name.startswith("haproxy_")}
    assert own <= CLIENTS.keys() | parts
    assert len(own) > 5
    assert [name for name in asked(dashboards.GATEWAY) if not re.fullmatch(KEPT, name)] == []


def _compose(**changes: Any) -> dict[str, Any]:
    made = settings({"monitoring/grafana/enabled": True, "monitoring/grafana/image": IMAGE, **changes})
    service: dict[str, Any] = grafana.compose(made)["services"]["grafana"]
    return service


def test_grafana_is_on_loopback_although_it_shares_the_machines_network() -> None:
    service = _compose(**{"monitoring/grafana/port": 3999})
    assert service["network_mode"] == "host"
    assert service["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert service["environment"]["GF_SERVER_HTTP_PORT"] == "3999"
    assert "ports" not in service


def test_grafana_fetches_nothing_that_is_not_pinned() -> None:
    environment = _compose()["environment"]
    assert environment["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert {environment[f"GF_ANALYTICS_CHECK_FOR_{what}UPDATES"] for what in ("", "PLUGIN_")} == {"false"}


def test_grafana_is_held_as_tight_as_engines_are() -> None:
    service = _compose(**{"monitoring/grafana/memory": "1G"})
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges=true"]
    assert not service["user"].startswith("0")
    assert service["mem_limit"] == service["memswap_limit"] == "1g"
    assert all(volume["read_only"] for volume in service["volumes"])
    assert service["image"] == IMAGE


def test_everything_that_grafana_reads_lies_where_it_is_told_to_look() -> None:
    made = settings({"monitoring/grafana/enabled": True, "monitoring/grafana/image": IMAGE})
    texts = grafana.texts(made)
    assert f"{grafana.HOME}/provisioning/datasources/prometheus.yaml" in texts
    (provider,) = yaml.safe_load(texts[f"{grafana.HOME}/provisioning/dashboards/rig.yaml"])["providers"]
    folder = provider["options"]["path"].replace(grafana.SEEN_AS, grafana.HOME)
    drawn = [json.loads(text) for path, text in texts.items() if path.startswith(f"{folder}/")]
    assert [document["title"] for document in drawn] == [dashboard.title for dashboard in ALL]
    (source,) = yaml.safe_load(texts[f"{grafana.HOME}/provisioning/datasources/prometheus.yaml"])["datasources"]
    used = {
        target["datasource"]["uid"] for document in drawn for panel in document["panels"] for target in panel["targets"]
    }
    assert used == {source["uid"]}
    assert source["url"] == "http://127.0.0.1:9090"


def test_grafana_without_a_pinned_image_is_refused(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    project.write("workstation.yml", "monitoring:\n  grafana: {enabled: true, image: grafana/grafana}\n")
    (told,) = project.problems()
    assert "monitoring.grafana.image: " in told
