"""Concern gateway: it runs confined, with the settings' configuration, and lets nobody in without a key."""

from __future__ import annotations

import pytest

from rig.gateway import haproxy
from rig.settings import Settings, key_variable
from tests.host.machine import KEYS, Machine

UNIT = "rig-gateway.service"
EXPOSURE = 2.0
"""Most exposure by `systemd-analyze security`."""
CONFIGURATION = "/etc/rig/gateway"


@pytest.fixture(scope="module")
def gateway(settings: Settings) -> Settings:
    """Skip tests of a gateway on a machine without one."""
    if not settings.gateway_wanted:
        pytest.skip("the settings want no gateway")
    return settings


def curl(settings: Settings, path: str, more: str = "") -> str:
    """A command that prints the status and the body of an answer."""
    url = f"http://127.0.0.1:{settings.gateway.port}{path}"
    return f"curl --silent --max-time 20 --write-out ' %{{http_code}}' {more} {url}"


def test_gateway_runs_now_and_after_a_boot_or_not_at_all(machine: Machine, settings: Settings) -> None:
    unit = machine.unit(UNIT, "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload")
    if settings.gateway_wanted:
        assert (unit["ActiveState"], unit["UnitFileState"], unit["NeedDaemonReload"]) == ("active", "enabled", "no")
    else:
        assert unit["LoadState"] == "not-found"
        assert machine.stat(CONFIGURATION) == "missing"


def test_gateway_listens_only_where_the_settings_say(machine: Machine, gateway: Settings) -> None:
    own = {port: address for (address, port), users in machine.listeners.items() if users == "haproxy"}
    wanted = dict.fromkeys((gateway.gateway.port, gateway.gateway.metrics.port), "127.0.0.1")
    assert {port: address for port, address in own.items() if port in wanted} == wanted
    for port in wanted:
        assert {address for address, other in machine.listeners if other == port} == {"127.0.0.1"}


def test_gateway_has_no_privilege(machine: Machine, gateway: Settings) -> None:
    pid = machine.unit(UNIT, "MainPID")["MainPID"]
    status = machine.process(pid)
    account = machine.run("id -u rig-gateway")
    assert status["Uid"].split() == [account] * 4
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16), status["NoNewPrivs"]) == (0, 0, "1")
    shown = machine.run(f"systemd-analyze security --no-pager {UNIT} | tail -n 1")
    assert float(shown.split(":")[1].split()[0]) <= EXPOSURE


def test_configuration_in_force_is_that_of_the_settings(machine: Machine, gateway: Settings) -> None:
    texts = haproxy.texts(gateway)
    for name, text in texts.items():
        path = f"{CONFIGURATION}/{name}"
        assert machine.stat(path) == "644 root root"
        assert machine.run(f"cat {path}") == text.strip()
    metrics = f"http://127.0.0.1:{gateway.gateway.metrics.port}"
    assert machine.run(f"curl --silent --max-time 20 {metrics}/fingerprint") == haproxy.fingerprint(texts)
    assert "haproxy_process_" in machine.run(f"curl --silent --max-time 20 {metrics}/metrics")


def test_keys_of_engines_are_for_the_gateway_and_those_of_clients_for_nobody(
    machine: Machine, gateway: Settings
) -> None:
    assert machine.stat(f"{CONFIGURATION}/engines.map") == "640 root rig-gateway"
    for engine in gateway.enabled_engines:
        script = (
            f"[ \"$(sed -n 's/^{engine} //p' {CONFIGURATION}/engines.map)\" = "
            f"\"$(sed -n 's/^{key_variable(engine)}=//p' {KEYS})\" ] && echo same || echo different"
        )
        assert machine.run(script) == "same"
    assert machine.stat("/var/lib/rig/gateway") == "750 root rig-gateway"
    assert machine.stat("/var/lib/rig/gateway/keys.map") == "640 root rig-gateway"


def test_gateway_has_the_keys_of_the_file(machine: Machine, gateway: Settings) -> None:
    """What runs, by the admin socket, against what a start would read."""
    ask = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('/run/rig-gateway/admin.sock'); "
        "s.sendall(b'show map /var/lib/rig/gateway/keys.map\\n'); print(s.makefile().read())"
    )
    in_force = [line.split()[1:] for line in machine.lines(f'python3 -c "{ask}"') if line.strip()]
    in_file = [line.split() for line in machine.lines("cat /var/lib/rig/gateway/keys.map") if line.strip()]
    assert sorted(in_force) == sorted(in_file)


def test_nobody_gets_in_without_a_key(machine: Machine, gateway: Settings) -> None:
    for more in ("", "--header 'Authorization: Bearer wrong'", "--header 'Authorization: Basic eDp5'"):
        answer = machine.run(curl(gateway, "/v1/models", more))
        assert answer.endswith(" 401"), answer
        assert '"code": "invalid_api_key"' in answer
    for path in ("/", "/metrics", "/health", "/slots", "/v1/../metrics"):
        assert machine.run(curl(gateway, path, "--path-as-is")).endswith(" 404")


def test_key_of_an_engine_opens_no_door(machine: Machine, gateway: Settings) -> None:
    variable = key_variable(next(iter(gateway.enabled_engines)))
    header = f"--header @<(sed -n 's/^{variable}=/Authorization: Bearer /p' {KEYS})"
    ask = curl(gateway, "/v1/models", header).replace("'", "'\\''")
    assert machine.run(f"bash -c '{ask}'").endswith(" 401")


def test_distributions_own_service_was_not_started_by_us(machine: Machine, gateway: Settings) -> None:
    """It is masked, or its owner runs it with a configuration of his own."""
    unit = machine.unit("haproxy.service", "LoadState", "ActiveState")
    assert unit["LoadState"] == "masked" or unit["ActiveState"] == "active"
