"""Concern monitoring, its part thermal: the card is watched, by a service with only the configured rights."""

from __future__ import annotations

import re

import pytest

from rig.settings import Settings
from rig.settings.thermal import Thermal
from tests.host.machine import Machine

SERVICE = "rig-thermal.service"
EXPOSURE = {SERVICE: 0.5, "rig-thermal-cool.service": 1.2, "rig-thermal-notify.service": 1.4}
"""Maximum exposure of each, by `systemd-analyze security`; docs/thermal.md explains the rest."""


@pytest.fixture(scope="module")
def wanted(settings: Settings) -> Thermal:
    return settings.monitoring.thermal


@pytest.fixture(scope="module")
def watched(wanted: Thermal) -> Thermal:
    """Skip tests of the monitor on a machine without it."""
    if not wanted.enabled:
        pytest.skip("the settings want no card watched")
    return wanted


def _units(wanted: Thermal) -> dict[str, bool]:
    """All possible units; True for those with something to do."""
    cools = wanted.on_critical.power_limit is not None or wanted.on_critical.stop_engine is not None
    return {
        SERVICE: wanted.enabled,
        "rig-thermal-cool.path": wanted.enabled and cools,
        "rig-thermal-notify.path": wanted.enabled and wanted.notify,
    }


def test_unit_runs_now_and_after_a_boot_or_is_not_there_at_all(machine: Machine, wanted: Thermal) -> None:
    for unit, is_wanted in _units(wanted).items():
        state = machine.unit(unit, "LoadState", "ActiveState", "UnitFileState")
        if is_wanted:
            assert (state["ActiveState"], state["UnitFileState"]) == ("active", "enabled"), unit
        else:
            assert state["LoadState"] == "not-found", unit
            service = unit.replace(".path", ".service")
            assert machine.unit(service, "LoadState")["LoadState"] == "not-found", service


def test_nothing_of_it_has_more_rights_than_it_needs(machine: Machine, watched: Thermal) -> None:
    for unit, is_wanted in _units(watched).items():
        service = unit.replace(".path", ".service")
        if is_wanted:
            said = machine.run(f"systemd-analyze security --no-pager {service} | tail -n 1")
            found = re.search(r": (\d+\.\d)", said)
            assert found is not None and float(found[1]) <= EXPOSURE[service], said


def test_monitor_is_nobody_and_has_no_capability(machine: Machine, watched: Thermal) -> None:
    process = machine.process(machine.unit(SERVICE, "MainPID")["MainPID"])
    assert int(process["Uid"].split()[0]) > 60000
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(process[kind], 16) == 0, kind
    assert process["NoNewPrivs"] == "1"


def test_monitor_reads_the_card_as_often_as_the_settings_say(machine: Machine, watched: Thermal) -> None:
    last = machine.json("/usr/local/bin/rig-thermal status --json || true")
    assert last["interval"] == watched.interval
    age = float(machine.run("date +%s.%N")) - float(last["time"])
    assert age < 3 * watched.interval + watched.timeout, "the last reading is old"


def test_card_can_be_read(machine: Machine, watched: Thermal) -> None:
    last = machine.json("/usr/local/bin/rig-thermal status --json || true")
    assert last["problem"] is None
    assert len(last["cards"]) >= 1
    for card in last["cards"]:
        assert card["level"] != "critical", "the card is too hot"


def test_figures_are_where_they_are_looked_for(machine: Machine, settings: Settings, wanted: Thermal) -> None:
    path = "/var/lib/prometheus/node-exporter/rig_gpu.prom"
    if wanted.enabled and settings.monitoring.enabled:
        lines = machine.lines(f"runuser -u nobody -- cat {path}")
        assert "rig_gpu_reading_success 1.0" in lines
    else:
        assert machine.lines(f"ls {path} 2>/dev/null || true") == []


def test_what_it_is_told_is_roots_alone_to_change(machine: Machine, watched: Thermal) -> None:
    assert machine.stat("/etc/rig/thermal.json") == "644 root root"
    critical = watched.on_critical
    cooling = machine.json("cat /etc/rig/thermal.json")["on_critical"]
    assert cooling["power_limit"] == critical.power_limit
    assert (cooling["unit"] or "").endswith(f"@{critical.stop_engine}.service" if critical.stop_engine else "")
    assert cooling["restore"] is critical.restore
