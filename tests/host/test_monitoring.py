"""Concern monitoring: every wanted target is scraped, and the results stay on the machine."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from rig.settings import Settings, key_variable, size_bytes
from rig.settings.monitoring import Grafana, seconds
from tests.host.machine import KEYS, Machine

UNITS = {
    "monitoring.node_exporter": "prometheus-node-exporter.service",
    "monitoring.prometheus": "prometheus.service",
    "monitoring.alertmanager": "prometheus-alertmanager.service",
}
PROGRAMS = [unit.removesuffix(".service") for unit in UNITS.values()]
KEYS_OF_PROMETHEUS = "/etc/rig/prometheus-keys"


@pytest.fixture(scope="module")
def monitored(settings: Settings) -> None:
    """Skip tests of monitoring on a machine without it."""
    if not settings.monitoring.enabled:
        pytest.skip("the settings want nothing measured")


@pytest.fixture(scope="module")
def metrics(machine: Machine, settings: Settings, monitored: None) -> dict[str, float]:
    """node_exporter's metrics, each sample by its name with labels."""
    port = settings.monitoring.node_exporter.port
    lines = machine.lines(f"curl --silent --fail --max-time 20 http://127.0.0.1:{port}/metrics")
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_is_the_distributions_or_not_there_at_all(machine: Machine, settings: Settings, program: str) -> None:
    there = bool(machine.lines(f"dpkg-query -W -f '${{db:Status-Abbrev}}' {program} | grep '^ii' || true"))
    assert there is settings.monitoring.enabled
    assert not there or machine.lines(f"dpkg --verify {program}") == []


@pytest.mark.parametrize("key", UNITS)
def test_program_runs_now_and_after_a_boot_from_its_current_file(machine: Machine, monitored: None, key: str) -> None:
    shown = machine.unit(UNITS[key], "ActiveState", "UnitFileState", "NeedDaemonReload", "Restart")
    assert (shown["ActiveState"], shown["UnitFileState"], shown["NeedDaemonReload"]) == ("active", "enabled", "no")
    assert shown["Restart"] == "on-failure"


@pytest.mark.parametrize("key", UNITS)
def test_program_listens_on_loopback_and_nowhere_else(
    machine: Machine, settings: Settings, monitored: None, key: str
) -> None:
    pid = machine.unit(UNITS[key], "MainPID")["MainPID"]
    addresses = {line.split()[4] for line in machine.lines("ss -Hlntup") if f"pid={pid}," in line}
    assert addresses == {f"127.0.0.1:{settings.monitoring.listeners[key]}"}


@pytest.mark.parametrize("key", UNITS)
def test_program_is_nobody_in_particular_and_cannot_become_more(machine: Machine, monitored: None, key: str) -> None:
    process = machine.process(machine.unit(UNITS[key], "MainPID")["MainPID"])
    assert process["Uid"].split()[0] == machine.run("id -u prometheus")
    assert process["NoNewPrivs"] == "1"
    assert {int(process[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}


@pytest.mark.parametrize("key", UNITS)
def test_program_has_the_memory_of_the_settings(
    machine: Machine, settings: Settings, monitored: None, key: str
) -> None:
    wanted = size_bytes(getattr(settings.monitoring, key.partition(".")[2]).memory)
    assert machine.unit(UNITS[key], "MemoryMax", "MemorySwapMax") == {
        "MemoryMax": str(wanted),
        "MemorySwapMax": "0",
    }


def test_node_exporter_measures_without_an_error(metrics: dict[str, float]) -> None:
    """Except for collectors without sensors on this machine."""
    success = re.compile(r'node_scrape_collector_success{collector="(.*)"}')
    failed = {found[1] for name, value in metrics.items() if (found := success.match(name)) and not value}
    assert failed <= {"edac", "hwmon", "pressure", "cpufreq", "thermal_zone"}
    assert metrics["node_textfile_scrape_error"] == 0


def test_node_exporter_sees_the_mounts_as_they_are(
    machine: Machine, metrics: dict[str, float], monitored: None
) -> None:
    """In a sandbox with mounts of its own, everything would seem to be read-only, or missing."""
    (size,) = _of_root(metrics, "node_filesystem_size_bytes")
    assert size == float(machine.run("df -B1 --output=size / | tail -n 1"))
    assert _of_root(metrics, "node_filesystem_readonly") == [0]


def _of_root(metrics: dict[str, float], name: str) -> list[float]:
    return [value for sample, value in metrics.items() if re.match(rf'{name}{{.*mountpoint="/"', sample)]


def test_node_exporter_sees_every_disk_of_the_settings(
    metrics: dict[str, float], settings: Settings, monitored: None
) -> None:
    mounted = {found[1] for name in metrics if (found := re.match(r'node_filesystem_.*mountpoint="([^"]*)"', name))}
    folders = (settings.storage.models, settings.storage.backup)
    assert {folder.path for folder in folders if folder.mount is not None} <= mounted


def test_node_exporter_shows_the_state_of_every_unit_of_ours(
    machine: Machine, metrics: dict[str, float], monitored: None
) -> None:
    shown = {match[1] for name in metrics if (match := re.match(r'node_systemd_unit_state{name="([^"]+)"', name))}
    listed = machine.lines("systemctl list-units --plain --no-legend 'rig-*.service' 'rig-*.timer' | cut -d' ' -f1")
    assert listed
    assert set(listed) <= shown


def test_only_root_can_say_what_was_measured(machine: Machine, monitored: None) -> None:
    assert machine.stat("/var/lib/prometheus/node-exporter") == "755 root root"


# Prometheus


@pytest.fixture(scope="module")
def ask(machine: Machine, settings: Settings) -> Callable[[str], Any]:
    """Query Prometheus; return the data of its answer."""

    def asked(path: str) -> Any:
        url = f"http://127.0.0.1:{settings.monitoring.prometheus.port}/api/v1/{path}"
        answer = machine.json(f"curl --silent --globoff --max-time 20 {shlex.quote(url)}")
        assert answer["status"] == "success", answer
        return answer["data"]

    return asked


def _soon(settings: Settings, look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """Repeat `look` until its result is `wanted`; after a start Prometheus finds its targets only in its second round.

    That takes five seconds, and then each target is scraped within an interval.
    """
    end = time.monotonic() + 10 + 2 * seconds(settings.monitoring.scrape_interval)
    while not wanted(found := look()) and time.monotonic() < end:
        time.sleep(0.5)
    return found


def test_prometheus_asks_everybody_and_is_answered(
    machine: Machine, ask: Callable[[str], Any], settings: Settings, monitored: None
) -> None:
    """Except for engines that are stopped because the owner chose an alternative."""
    running = machine.running(settings)
    engines = {("engine", name, "up" if name in running else "down") for name in settings.enabled_engines}
    jobs = ["node", "prometheus", "alertmanager", *(["gateway"] if settings.gateway_wanted else [])]
    wanted = {(job, None, "up") for job in jobs} | engines

    def seen() -> set[tuple[str, str | None, str]]:
        targets = ask("targets?state=active")["activeTargets"]
        return {(target["labels"]["job"], target["labels"].get("engine"), target["health"]) for target in targets}

    assert _soon(settings, seen, lambda found: bool(found == wanted)) == wanted


def test_prometheus_asks_as_often_as_the_settings_say(
    ask: Callable[[str], Any], settings: Settings, monitored: None
) -> None:
    """By the running program, not only its file."""
    loaded = yaml.safe_load(ask("status/config")["yaml"])
    assert loaded["global"]["scrape_interval"] == settings.monitoring.scrape_interval
    assert loaded["global"]["evaluation_interval"] == settings.monitoring.scrape_interval
    own = {job.get("scrape_interval") for job in loaded["scrape_configs"]}
    assert own == {settings.monitoring.scrape_interval}


def test_prometheus_runs_with_what_its_files_say(machine: Machine, ask: Callable[[str], Any], monitored: None) -> None:
    assert "SUCCESS" in machine.run("promtool check config /etc/rig/prometheus/prometheus.yml")
    written = yaml.safe_load(machine.run("cat /etc/rig/prometheus/prometheus.yml"))
    loaded = yaml.safe_load(ask("status/config")["yaml"])
    assert [job["job_name"] for job in written["scrape_configs"]] == [
        job["job_name"] for job in loaded["scrape_configs"]
    ]
    rules = yaml.safe_load(machine.run("cat /etc/rig/prometheus/rules.yml"))
    names = [rule.get("alert", rule.get("record")) for group in rules["groups"] for rule in group["rules"]]
    assert [rule["name"] for group in ask("rules")["groups"] for rule in group["rules"]] == names


def test_prometheus_forgets_when_the_settings_say(
    ask: Callable[[str], Any], settings: Settings, monitored: None
) -> None:
    flags = ask("status/flags")
    wanted = settings.monitoring.prometheus
    assert flags["storage.tsdb.retention.size"] == f"{wanted.retention_size}iB"
    assert flags["storage.tsdb.retention.time"] == wanted.retention_time


def test_figures_of_an_engine_are_kept_under_its_name(
    ask: Callable[[str], Any], settings: Settings, monitored: None, engine: str
) -> None:
    name = "vllm:num_requests_running" if settings.engines[engine].runtime == "vllm" else "llamacpp:requests_processing"
    query = f"query?query={name}{{engine=%22{engine}%22}}"
    (found,) = _soon(settings, lambda: ask(query)["result"], bool)
    assert float(found["value"][1]) >= 0


def test_prometheus_reads_the_key_of_an_engine_and_others_do_not(
    machine: Machine, monitored: None, engine: str
) -> None:
    assert machine.stat(KEYS_OF_PROMETHEUS) == "750 root prometheus"
    assert machine.stat(f"{KEYS_OF_PROMETHEUS}/{engine}") == "640 root prometheus"
    held = machine.run(
        f"key=$(sed -n 's/^{key_variable(engine)}=//p' {KEYS}); "
        f'[ -n "$key" ] && [ "$key" = "$(cat {KEYS_OF_PROMETHEUS}/{engine})" ] && echo same || echo different'
    )
    assert held == "same"


def test_prometheus_has_no_key_of_anybody_else(machine: Machine, settings: Settings, monitored: None) -> None:
    assert set(machine.lines(f"ls -A {KEYS_OF_PROMETHEUS}")) == set(settings.enabled_engines)


def test_configuration_can_be_changed_by_root_alone_and_holds_no_key(machine: Machine, monitored: None) -> None:
    assert machine.lines("find /etc/rig/prometheus /etc/rig/metrics.json ! -user root -o -perm /022") == []
    assert machine.keys_in("cat /etc/rig/prometheus/*") == 0


def test_every_rule_can_be_computed(ask: Callable[[str], Any], monitored: None) -> None:
    rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    assert "EngineDown" in {rule["name"] for rule in rules}


# Alertmanager


def test_prometheus_knows_alertmanager(ask: Callable[[str], Any], settings: Settings, monitored: None) -> None:
    port = settings.monitoring.alertmanager.port
    assert ask("alertmanagers") == {
        "activeAlertmanagers": [{"url": f"http://127.0.0.1:{port}/api/v2/alerts"}],
        "droppedAlertmanagers": [],
    }


def test_alertmanager_has_loaded_its_file(machine: Machine, settings: Settings, monitored: None) -> None:
    url = f"http://127.0.0.1:{settings.monitoring.alertmanager.port}"
    loaded = yaml.safe_load(machine.json(f"curl --silent --max-time 20 {url}/api/v2/status")["config"]["original"])
    written = yaml.safe_load(machine.run("cat /etc/rig/prometheus/alertmanager.yml"))
    names = {receiver["name"] for receiver in written["receivers"]}
    assert {receiver["name"] for receiver in loaded["receivers"]} == names
    assert names - {"nobody"} == set(settings.monitoring.receivers)
    assert loaded["route"]["group_wait"] == settings.monitoring.alertmanager.group_wait
    assert "SUCCESS" in machine.run("amtool check-config /etc/rig/prometheus/alertmanager.yml")


def test_alertmanager_looks_for_no_others(machine: Machine, settings: Settings, monitored: None) -> None:
    url = f"http://127.0.0.1:{settings.monitoring.alertmanager.port}"
    status = machine.json(f"curl --silent --max-time 20 {url}/api/v2/status")
    assert status["cluster"] == {"status": "disabled", "peers": []}


def test_secrets_of_receivers_are_roots_alone_and_in_no_configuration(
    machine: Machine, settings: Settings, monitored: None
) -> None:
    secret = [name for name, receiver in settings.monitoring.receivers.items() if receiver.secret]
    if not secret:
        pytest.skip("no receiver of the settings has a secret")
    for path in (f"/etc/rig/receivers/{name}" for name in secret):
        assert machine.stat(path) == "600 root root"
        found = machine.run(f"grep -rlF -f {path} /etc/rig/prometheus /etc/systemd/system || true")
        assert found == ""


# Metrics of rig-metrics


def test_what_no_program_shows_is_looked_up_as_often_as_the_settings_say(
    machine: Machine, settings: Settings, monitored: None
) -> None:
    timer = machine.unit("rig-metrics.timer", "ActiveState", "UnitFileState", "TimersMonotonic")
    assert (timer["ActiveState"], timer["UnitFileState"]) == ("active", "enabled")
    age = machine.run("echo $(($(date +%s) - $(stat -c %Y /var/lib/prometheus/node-exporter/rig_machine.prom)))")
    assert int(age) <= seconds(settings.monitoring.state_interval) + 10


def test_every_engine_that_starts_at_boot_is_wanted(metrics: dict[str, float], monitored: None, engine: str) -> None:
    assert metrics[f'rig_engine_wanted{{engine="{engine}"}}'] == 1


def test_no_model_is_said_to_have_changed(metrics: dict[str, float], monitored: None, model: str) -> None:
    assert metrics[f'rig_model_changed{{model="{model}"}}'] == 0


def test_end_of_every_certificate_of_the_settings_is_known(
    machine: Machine, metrics: dict[str, float], settings: Settings, monitored: None
) -> None:
    if not settings.monitoring.certificates:
        pytest.skip("the settings name no certificate")
    for path in settings.monitoring.certificates:
        end = machine.run(f'date +%s -d "$(openssl x509 -noout -enddate -in {path} | cut -d= -f2)"')
        assert metrics[f'rig_certificate_end_timestamp_seconds{{path="{path}"}}'] == float(end)


def test_only_what_is_whole_lies_where_figures_are_read(machine: Machine, monitored: None) -> None:
    folder = "/var/lib/prometheus/node-exporter"
    assert machine.stat(f"{folder}/rig_machine.prom") == "644 root root"
    assert machine.run(f"cat {folder}/*.prom | promtool check metrics") == ""


# Grafana

GRAFANA = "rig-grafana"


@pytest.fixture(scope="module")
def shown(settings: Settings) -> Grafana:
    """Skip tests of dashboards on a machine without them."""
    if not (settings.monitoring.enabled and settings.monitoring.grafana.enabled):
        pytest.skip("the settings want no dashboards")
    return settings.monitoring.grafana


def test_dashboards_are_there_now_and_after_a_boot_or_not_at_all(machine: Machine, settings: Settings) -> None:
    unit = machine.unit(f"{GRAFANA}.service", "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload")
    container = machine.run(f"docker ps --all --filter name=^{GRAFANA}$ --format '{{{{.State}}}}'")
    if settings.monitoring.enabled and settings.monitoring.grafana.enabled:
        assert (unit["ActiveState"], unit["UnitFileState"], unit["NeedDaemonReload"]) == ("active", "enabled", "no")
        assert container == "running"
    else:
        assert (unit["LoadState"], container) == ("not-found", "")
        assert machine.stat("/etc/rig/grafana") == "missing"


def test_dashboards_come_from_the_pinned_image(machine: Machine, shown: Grafana) -> None:
    image = machine.run(f"docker inspect --format '{{{{.Image}}}}' {GRAFANA}")
    digests = machine.json(f"docker image inspect --format '{{{{json .RepoDigests}}}}' {image}")
    assert str(shown.image).partition("@")[2] in [known.partition("@")[2] for known in digests]


def test_dashboards_are_shown_on_loopback_and_nowhere_else(machine: Machine, shown: Grafana) -> None:
    pids = machine.lines(f"docker top {GRAFANA} -o pid | tail -n +2")
    listening = machine.lines("ss -Hlntup")
    assert pids
    addresses = {line.split()[4] for line in listening if any(f"pid={pid.strip()}," in line for pid in pids)}
    assert addresses == {f"127.0.0.1:{shown.port}"}


def test_dashboards_are_said_to_be_well(machine: Machine, shown: Grafana) -> None:
    url = f"http://127.0.0.1:{shown.port}/api/health"
    assert machine.json(f"curl --silent --fail --max-time 20 {url}")["database"] == "ok"
