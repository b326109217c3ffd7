"""Concern monitoring: what is to be measured is measured, and nobody but the machine itself is told."""

from __future__ import annotations

import re

import pytest

from rig.settings import Settings, size_bytes
from tests.host.machine import Machine

PROGRAMS = ("prometheus-node-exporter",)
UNITS = {"monitoring.node_exporter": "prometheus-node-exporter.service"}


@pytest.fixture(scope="module", autouse=True)
def monitored(settings: Settings) -> bool:
    """Whether the settings want the machine to be monitored at all."""
    return settings.monitoring.enabled


@pytest.fixture(scope="module")
def metrics(machine: Machine, settings: Settings, monitored: bool) -> dict[str, float]:
    """What node_exporter shows, each sample by its name with labels."""
    if not monitored:
        return {}
    port = settings.monitoring.node_exporter.port
    lines = machine.lines(f"curl --silent --fail --max-time 20 http://127.0.0.1:{port}/metrics")
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_is_the_distributions_or_not_there_at_all(machine: Machine, monitored: bool, program: str) -> None:
    assert bool(machine.lines(f"dpkg-query -W -f '${{db:Status-Abbrev}}' {program} | grep '^ii' || true")) is monitored
    if monitored:
        assert machine.lines(f"dpkg --verify {program}") == []


@pytest.mark.parametrize("key", UNITS)
def test_program_runs_now_and_after_a_boot_from_its_current_file(
    machine: Machine, monitored: bool, key: str
) -> None:
    if monitored:
        shown = machine.unit(UNITS[key], "ActiveState", "UnitFileState", "NeedDaemonReload", "Restart")
        assert (shown["ActiveState"], shown["UnitFileState"], shown["NeedDaemonReload"]) == ("active", "enabled", "no")
        assert shown["Restart"] == "on-failure"


@pytest.mark.parametrize("key", UNITS)
def test_program_listens_on_loopback_and_nowhere_else(
    machine: Machine, settings: Settings, monitored: bool, key: str
) -> None:
    if monitored:
        pid = machine.unit(UNITS[key], "MainPID")["MainPID"]
        addresses = {line.split()[4] for line in machine.lines("ss -Hlntup") if f"pid={pid}," in line}
        assert addresses == {f"127.0.0.1:{settings.monitoring.listeners[key]}"}


@pytest.mark.parametrize("key", UNITS)
def test_program_is_nobody_in_particular_and_cannot_become_more(machine: Machine, monitored: bool, key: str) -> None:
    if monitored:
        process = machine.process(machine.unit(UNITS[key], "MainPID")["MainPID"])
        assert process["Uid"].split()[0] == machine.run("id -u prometheus")
        assert process["NoNewPrivs"] == "1"
        assert {int(process[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}


def test_node_exporter_has_the_limit_of_the_settings(machine: Machine, settings: Settings, monitored: bool) -> None:
    if monitored:
        shown = machine.unit(UNITS["monitoring.node_exporter"], "MemoryMax")["MemoryMax"]
        assert int(shown) == size_bytes(settings.monitoring.node_exporter.memory)


def test_node_exporter_measures_without_an_error(metrics: dict[str, float], monitored: bool) -> None:
    """Besides what this machine has no sensors for."""
    success = re.compile(r'node_scrape_collector_success{collector="(.*)"}')
    failed = {found[1] for name, value in metrics.items() if (found := success.match(name)) and not value}
    assert failed <= {"edac", "hwmon", "pressure", "cpufreq", "thermal_zone"}
    assert metrics.get("node_textfile_scrape_error", 0) == 0
    assert (metrics != {}) is monitored


def test_node_exporter_sees_the_mounts_as_they_are(
    machine: Machine, metrics: dict[str, float], monitored: bool
) -> None:
    """From a sandbox with mounts of its own, everything would seem to be read-only, or missing."""
    if monitored:
        (size,) = _of_root(metrics, "node_filesystem_size_bytes")
        assert size == float(machine.run("df -B1 --output=size / | tail -n 1"))
        assert _of_root(metrics, "node_filesystem_readonly") == [0]


def _of_root(metrics: dict[str, float], name: str) -> list[float]:
    return [value for sample, value in metrics.items() if re.match(rf'{name}{{.*mountpoint="/"', sample)]


def test_node_exporter_sees_every_disk_of_the_settings(
    metrics: dict[str, float], settings: Settings, monitored: bool
) -> None:
    if monitored:
        mounted = {found[1] for name in metrics if (found := re.match(r'node_filesystem_.*mountpoint="([^"]*)"', name))}
        folders = (settings.storage.models, settings.storage.backup)
        assert {folder.path for folder in folders if folder.mount is not None} <= mounted


def test_node_exporter_shows_the_state_of_every_unit_of_ours(
    machine: Machine, metrics: dict[str, float], monitored: bool
) -> None:
    if monitored:
        shown = {match[1] for name in metrics if (match := re.match(r'node_systemd_unit_state{name="([^"]+)"', name))}
        listed = machine.lines("systemctl list-units --plain --no-legend 'rig-*.service' 'rig-*.timer' | cut -d' ' -f1")
        assert listed
        assert set(listed) <= shown


def test_only_root_can_say_what_was_measured(machine: Machine, monitored: bool) -> None:
    if monitored:
        assert machine.stat("/var/lib/prometheus/node-exporter") == "755 root root"
