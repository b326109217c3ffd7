"""Concern gateway, its parts keys and reader: recorded keys are those in force, and clients' use is counted."""

from __future__ import annotations

import re

import pytest

from rig.settings import Settings
from tests.host.machine import Machine

SERVICE = "rig-gateway-reader.service"
METRICS = "/var/lib/prometheus/node-exporter/rig_gateway.prom"
RECORDS, MAP = "/var/lib/rig/gateway/keys.json", "/var/lib/rig/gateway/keys.map"
IN_MEMORY = f"""python3 - <<'END'
import socket
with socket.socket(socket.AF_UNIX) as line:
    line.connect("/run/rig-gateway/admin.sock")
    line.sendall(b"show map {MAP}\\n")
    told = b""
    while data := line.recv(65536):
        told += data
for entry in sorted(told.decode().split("\\n")):
    if entry:
        print(entry.split(" ", 1)[1])
END
"""
"""Prints the map of the running gateway, without rig-keys."""


@pytest.fixture(scope="module")
def wanted(settings: Settings) -> Settings:
    """Skip tests on a machine without a gateway."""
    if not settings.gateway_wanted:
        pytest.skip("the settings want no gateway")
    return settings


def test_reader_runs_now_and_after_a_boot_or_is_not_there_at_all(machine: Machine, settings: Settings) -> None:
    state = machine.unit(SERVICE, "LoadState", "ActiveState", "UnitFileState")
    if settings.gateway_wanted:
        assert (state["ActiveState"], state["UnitFileState"]) == ("active", "enabled")
    else:
        assert state["LoadState"] == "not-found"


def test_reader_has_no_more_rights_than_it_needs(machine: Machine, wanted: Settings) -> None:
    said = machine.run(f"systemd-analyze security --no-pager {SERVICE} | tail -n 1")
    found = re.search(r": (\d+\.\d)", said)
    assert found is not None and float(found[1]) <= 0.5, said
    process = machine.process(machine.unit(SERVICE, "MainPID")["MainPID"])
    assert int(process["Uid"].split()[0]) > 60000
    assert int(process["CapEff"], 16) == int(process["CapBnd"], 16) == 0


def test_metrics_are_where_they_are_looked_for(machine: Machine, settings: Settings) -> None:
    if settings.gateway_wanted and settings.monitoring.enabled:
        lines = machine.lines(f"runuser -u nobody -- cat {METRICS}")
        assert any(line.startswith("rig_gateway_log_gaps_total ") for line in lines)
        assert float(machine.run(f"echo $(($(date +%s) - $(stat --dereference -c %Y {METRICS})))")) < 60
    else:
        assert machine.lines(f"ls {METRICS} 2>/dev/null || true") == []


def test_records_are_roots_alone_and_nobody_but_the_gateway_reads_the_map(machine: Machine, wanted: Settings) -> None:
    assert machine.stat(RECORDS) in ("600 root root", "missing")
    assert machine.stat(MAP) == "640 root rig-gateway"


def test_keys_in_force_are_those_on_record(machine: Machine, wanted: Settings) -> None:
    in_memory = machine.lines(IN_MEMORY)
    assert in_memory == sorted(machine.lines(f"cat {MAP}"))
    recorded = machine.json(f"cat {RECORDS} 2>/dev/null || echo '{{\"keys\": []}}'")["keys"]
    named = {(key["sha256"], key["name"]) for key in recorded}
    assert {(line.split()[0], re.split("[ |]", line)[1]) for line in in_memory} == named
