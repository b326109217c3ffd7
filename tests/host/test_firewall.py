"""Concern firewall: the kernel drops everything that the settings do not open, and no program listens where it should
not."""

from __future__ import annotations

import fnmatch
import ipaddress
from typing import Any

import pytest

from rig.firewall import exposures
from rig.settings import Settings
from tests.host.machine import Machine

Rule = dict[str, Any]
Door = tuple[str, int, str | None]
"""Protocol, port, and the one interface by which it is open; None for any."""


@pytest.fixture(scope="module", autouse=True)
def filtering(settings: Settings) -> bool:
    """Whether the settings want a packet filter."""
    return settings.firewall.enabled


@pytest.fixture(scope="module")
def table(machine: Machine, filtering: bool) -> list[dict[str, Any]]:
    """Chains and rules of our table in the kernel; empty if the settings want none."""
    if not filtering:
        return []
    found: list[dict[str, Any]] = machine.json("nft -j list table inet rig")["nftables"]
    return found


def _rules(table: list[dict[str, Any]], chain: str) -> list[Rule]:
    return [entry["rule"] for entry in table if "rule" in entry and entry["rule"]["chain"] == chain]


def _accepts(rule: Rule) -> bool:
    return any("accept" in part for part in rule["expr"])


def _matches(rule: Rule) -> dict[str, Any]:
    """A rule's conditions by name: ``tcp dport``, ``ip saddr``, ``meta iifname``, ``ct state``."""
    conditions = {}
    for part in rule["expr"]:
        if "match" in part:
            left = part["match"]["left"]
            ((kind, field),) = left.items()
            name = f"{field['protocol']} {field['field']}" if kind == "payload" else f"{kind} {field['key']}"
            operator = part["match"]["op"]
            conditions[name if operator in ("==", "in") else f"{name} {operator}"] = part["match"]["right"]
    return conditions


def _networks(right: Any) -> list[str]:
    """Networks of a match: one address, one prefix, or a set of both."""
    if isinstance(right, dict) and "set" in right:
        return [network for element in right["set"] for network in _networks(element)]
    if isinstance(right, dict) and "prefix" in right:
        return [f"{right['prefix']['addr']}/{right['prefix']['len']}"]
    return [str(ipaddress.ip_network(right))]


def _merged(networks: list[str]) -> frozenset[str]:
    v4 = [ipaddress.IPv4Network(network) for network in networks if ":" not in network]
    v6 = [ipaddress.IPv6Network(network) for network in networks if ":" in network]
    merged = [*ipaddress.collapse_addresses(v4), *ipaddress.collapse_addresses(v6)]
    return frozenset(map(str, merged))


def _wanted(settings: Settings) -> dict[Door, frozenset[str]]:
    """Networks that may come in by each door."""
    firewall = settings.firewall
    found: dict[Door, list[str]] = {("tcp", firewall.ssh.port, None): list(firewall.ssh.networks)}
    for allowed in firewall.opened.values():
        found.setdefault((allowed.protocol, allowed.port, None), []).extend(allowed.networks)
    for exposure in exposures(settings):
        found.setdefault((exposure.protocol, exposure.port, exposure.interface), []).extend(exposure.networks)
    return {door: _merged(networks) for door, networks in found.items()}


def test_what_is_not_opened_is_dropped(table: list[dict[str, Any]], filtering: bool) -> None:
    if filtering:
        (chain,) = [entry["chain"] for entry in table if entry.get("chain", {}).get("name") == "input"]
        assert (chain["hook"], chain["type"], chain["policy"]) == ("input", "filter", "drop")


def test_exactly_the_ports_of_the_settings_are_open(
    table: list[dict[str, Any]], settings: Settings, filtering: bool
) -> None:
    found: dict[Door, list[str]] = {}
    for rule in _rules(table, "input"):
        conditions = _matches(rule)
        for protocol in ("tcp", "udp"):
            port = conditions.get(f"{protocol} dport")
            if _accepts(rule) and port is not None and f"{protocol} sport" not in conditions:
                sources = conditions.get("ip saddr") or conditions.get("ip6 saddr")
                assert sources is not None, f"port {port} is open to everyone"
                found.setdefault((protocol, port, conditions.get("meta iifname")), []).extend(_networks(sources))
    opened = {door: _merged(networks) for door, networks in found.items()}
    assert opened == (_wanted(settings) if filtering else {})


def test_nothing_else_is_let_in_but_answers_and_what_networks_need(table: list[dict[str, Any]]) -> None:
    """Loopback, answers, ICMP, and the answers of DHCP servers."""
    harmless = [
        {"meta iifname": "lo"},
        {"ct state": ["established", "related"]},
        {"meta l4proto": {"set": ["icmp", "ipv6-icmp"]}},
        {"udp sport": 67, "udp dport": 68},
        {"ip6 saddr": {"prefix": {"addr": "fe80::", "len": 10}}, "udp sport": 547, "udp dport": 546},
    ]
    others = [
        conditions
        for conditions in (_matches(rule) for rule in _rules(table, "input") if _accepts(rule))
        if conditions not in harmless and not {"tcp dport", "udp dport"} & set(conditions)
    ]
    assert others == []


def test_every_network_of_containers_is_closed_to_neighbours(
    machine: Machine, table: list[dict[str, Any]], filtering: bool
) -> None:
    """A neighbour that routes to a container's own address would reach it past the published port."""
    if not filtering:
        return
    (chain,) = [entry["chain"] for entry in table if entry.get("chain", {}).get("name") == "forward"]
    assert (chain["hook"], chain["type"]) == ("forward", "filter")
    closed: set[str] = set()
    dropping = [_matches(rule) for rule in _rules(table, "forward") if any("drop" in part for part in rule["expr"])]
    assert {"meta oifkind": "bridge", "meta iifkind !=": "bridge"} in dropping
    for conditions in dropping:
        if set(conditions) == {"meta oifname", "meta iifname !="}:
            assert conditions["meta oifname"] == conditions["meta iifname !="]
            names = conditions["meta oifname"]
            closed |= set(names["set"] if isinstance(names, dict) else [names])
    assert closed >= {"docker0", "rig0", "br-*"}
    # A bridge by which the machine itself is reached lets its neighbours through to those of other names.
    uplinks = machine.lines("ip route show default | sed -n 's/.* dev \\([^ ]*\\).*/\\1/p'")
    bridges = machine.lines('ip -json link show type bridge | grep -o \'"ifname":"[^"]*"\' | cut -d\'"\' -f4')
    assert "docker0" in bridges
    others = [bridge for bridge in bridges if not any(fnmatch.fnmatch(bridge, pattern) for pattern in closed)]
    assert not set(uplinks) & set(bridges) or others == uplinks


def test_only_answers_are_forwarded_to_containers_before_they_are_closed(table: list[dict[str, Any]]) -> None:
    accepting = [_matches(rule) for rule in _rules(table, "forward") if _accepts(rule)]
    others = [conditions for conditions in accepting if conditions != {"ct state": ["established", "related"]}]
    assert [conditions for conditions in others if "ct original proto-dst" not in conditions] == []


def test_exactly_the_published_ports_of_the_settings_are_forwarded(
    table: list[dict[str, Any]], settings: Settings, filtering: bool
) -> None:
    found: dict[tuple[str, int], list[str]] = {}
    for rule in _rules(table, "forward"):
        conditions = _matches(rule)
        if _accepts(rule) and "ct original proto-dst" in conditions:
            assert conditions["ct status"] == "dnat", "a neighbour with a route gets in, too"
            sources = conditions.get("ip saddr") or conditions.get("ip6 saddr")
            assert sources is not None, f"port {conditions['ct original proto-dst']} is open to everyone"
            door = (str(conditions["meta l4proto"]), conditions["ct original proto-dst"])
            found.setdefault(door, []).extend(_networks(sources))
    wanted: dict[tuple[str, int], list[str]] = {}
    for allowed in settings.firewall.containers.values() if filtering else ():
        wanted.setdefault((allowed.protocol, allowed.port), []).extend(allowed.networks)
    assert {door: _merged(each) for door, each in found.items()} == {
        door: _merged(each) for door, each in wanted.items()
    }


def test_rules_come_back_after_a_boot(machine: Machine, filtering: bool) -> None:
    shown = machine.unit("rig-firewall.service", "ActiveState", "UnitFileState", "NeedDaemonReload")
    if filtering:
        assert shown == {"ActiveState": "active", "UnitFileState": "enabled", "NeedDaemonReload": "no"}
        assert machine.run("nft --check --file /etc/rig/firewall.nft") == ""
        assert machine.stat("/etc/rig/firewall.nft") == "644 root root"
    else:
        assert shown["ActiveState"] == "inactive"


def test_rules_of_the_next_boot_are_those_of_now(machine: Machine, filtering: bool) -> None:
    """The file is loaded into an empty network namespace."""
    if filtering:
        shown = "nft list table inet rig"
        assert machine.run(f"unshare --net sh -c 'nft -f /etc/rig/firewall.nft && {shown}'") == machine.run(shown)


def test_our_table_is_there_exactly_when_the_settings_want_one(machine: Machine, filtering: bool) -> None:
    assert ("table inet rig" in machine.lines("nft list tables")) is filtering


def test_other_tables_are_left_to_their_owners(machine: Machine) -> None:
    """If someone flushed all tables, Docker's own address translation would be gone, and every container cut off."""
    if not machine.run("nft list table ip docker-bridges 2>/dev/null || true"):
        for table in ("nat", "filter"):
            assert "-j DOCKER" in machine.run(f"iptables-save -t {table}"), table


def test_nothing_but_what_the_settings_open_listens_to_the_network(machine: Machine, settings: Settings) -> None:
    opened = {settings.firewall.ssh.port} | {
        allowed.port for allowed in settings.firewall.opened.values() if allowed.protocol == "tcp"
    }
    opened |= {exposure.port for exposure in exposures(settings)}
    strangers = {
        f"{address}:{port} {process}"
        for (address, port), process in machine.listeners.items()
        if port not in opened and not _is_loopback(address)
    }
    assert strangers == set()


def _is_loopback(address: str) -> bool:
    return address != "*" and ipaddress.ip_address(address).is_loopback


def test_ssh_listens_on_the_port_of_the_settings(machine: Machine, settings: Settings) -> None:
    holders = {process for (_, port), process in machine.listeners.items() if port == settings.firewall.ssh.port}
    assert holders
    assert all("sshd" in process or "systemd" in process for process in holders)
