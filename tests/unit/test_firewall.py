"""The packet filter opens exactly what the settings say, and the kernel takes the file that says so."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.firewall import Exposure, Opening, exposures, openings, published, values
from rig.render import own_file, render
from rig.settings.firewall import Firewall
from tests.unit.sample import examples, needs, needs_root, settings

NETWORK = st.builds(
    lambda first, length: str(ipaddress.ip_network((first << 24, length), strict=False)),
    st.sampled_from([10, 10, 172, 192]),
    st.integers(6, 32),
) | st.builds(
    lambda tail, length: str(ipaddress.ip_network(((0xFD00 << 112) + tail, length), strict=False)),
    st.integers(0, 3),
    st.integers(8, 128),
)


def _firewall(
    ssh: list[str], allow: dict[str, Any] | None = None, containers: dict[str, Any] | None = None
) -> Firewall:
    changes = {"firewall/ssh/networks": ssh, "firewall/allow": allow or {}, "firewall/containers": containers or {}}
    return settings(changes).firewall


def test_networks_are_sorted_by_family_as_one_rule_can_hold_only_one() -> None:
    made = openings(_firewall(["10.0.0.0/8", "fd00::/8", "192.168.0.0/16"]))
    assert made == [
        Opening("ssh", "ip", ("10.0.0.0/8", "192.168.0.0/16"), "tcp", 22),
        Opening("ssh", "ip6", ("fd00::/8",), "tcp", 22),
    ]


def test_a_family_without_a_network_has_no_rule() -> None:
    assert [opening.family for opening in openings(_firewall(["fd00::/8"]))] == ["ip6"]


def test_every_allowed_port_is_opened_to_its_own_networks() -> None:
    allow = {
        "metrics": {"port": 9100, "networks": ["192.168.1.0/24"]},
        "dns": {"port": 53, "protocol": "udp", "networks": ["10.0.0.1"]},
    }
    assert openings(_firewall(["10.0.0.0/8"], allow))[1:] == [
        Opening("metrics", "ip", ("192.168.1.0/24",), "tcp", 9100),
        Opening("dns", "ip", ("10.0.0.1/32",), "udp", 53),
    ]


def test_a_port_of_another_concern_is_opened_for_both_families_and_by_its_interface_alone() -> None:
    vpn = Exposure("gateway", 8443, ("100.64.0.0/10", "fd7a::/16"), interface="tailscale0")
    made = openings(_firewall(["10.0.0.0/8"]), [vpn])[1:]
    assert [opening.conditions for opening in made] == [
        'iifname "tailscale0" ip saddr { 100.64.0.0/10 } tcp dport 8443',
        'iifname "tailscale0" ip6 saddr { fd7a::/16 } tcp dport 8443',
    ]


def test_a_published_port_is_open_as_sent_to_the_machine_and_only_where_its_address_was_translated() -> None:
    web = {"port": 3001, "networks": ["192.168.1.0/24", "fd00::/8"]}
    made = published(_firewall(["10.0.0.0/8"], containers={"web-ui": web}))
    assert [opening.forwarded for opening in made] == [
        "ct status dnat ip saddr { 192.168.1.0/24 } meta l4proto tcp ct original proto-dst 3001",
        "ct status dnat ip6 saddr { fd00::/8 } meta l4proto tcp ct original proto-dst 3001",
    ]


def test_a_published_port_is_open_to_the_machine_itself_too_where_a_program_of_dockers_answers() -> None:
    firewall = _firewall(["10.0.0.0/8"], containers={"web-ui": {"port": 3001, "networks": ["fd00::/8"]}})
    assert openings(firewall)[1:] == published(firewall) == [Opening("web-ui", "ip6", ("fd00::/8",), "tcp", 3001)]


def test_an_allowed_port_is_none_of_a_container() -> None:
    assert published(_firewall(["10.0.0.0/8"], {"metrics": {"port": 9100, "networks": ["10.0.0.0/8"]}})) == []


def test_no_other_concern_opens_a_port_by_default() -> None:
    assert exposures(settings()) == []


@examples
@given(networks=st.lists(NETWORK, min_size=1, max_size=6))
def test_an_address_gets_in_exactly_when_a_network_of_the_settings_holds_it(networks: list[str]) -> None:
    asked = [ipaddress.ip_network(network) for network in networks]
    opened = [ipaddress.ip_network(n) for opening in openings(_firewall(networks)) for n in opening.networks]
    for network in [*asked, *opened]:
        for address in (network[0], network[-1], network[0] - 1 if int(network[0]) else network[0], network[-1] + 1):
            assert any(address in one for one in asked) == any(address in one for one in opened), address


@examples
@given(networks=st.lists(NETWORK, min_size=1, max_size=6))
def test_no_two_networks_of_a_rule_overlap_as_nft_refuses_those(networks: list[str]) -> None:
    for opening in openings(_firewall(networks)):
        made = [ipaddress.ip_network(network) for network in opening.networks]
        assert not [(a, b) for a in made for b in made if a is not b and a.overlaps(b)]


def _loaded(path: Path, firewall: Firewall, others: list[Exposure]) -> list[dict[str, Any]]:
    """The kernel's rules after the file was loaded twice into a network namespace of its own: nothing outside
    changes."""
    path.write_text(render("/etc/rig/firewall.nft", **values(firewall, others)), encoding="utf-8")
    script = f"nft add table inet other && nft -f {path} && nft -f {path} && nft -j list ruleset"
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    return listed


WIDE = {
    "metrics": {"port": 9100, "networks": ["192.168.1.0/24", "fd00::/8"]},
    "dns": {"port": 53, "protocol": "udp", "networks": ["10.0.0.1"]},
}


VPN = Exposure("vpn", 8443, ("10.0.0.0/8", "fd00::/8"), interface="a b'c")
CONTAINERS = {
    "web-ui": {"port": 3001, "networks": ["192.168.1.0/24", "192.168.0.0/16", "fd00::/8"]},
    "game": {"port": 3001, "protocol": "udp", "networks": ["10.0.0.1"]},
}


@needs_root
@needs("nft", "unshare")
@pytest.mark.parametrize(
    ("firewall", "others"),
    [
        (_firewall(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fe80::/10", "fd00::/8"]), []),
        (_firewall(["10.77.0.3"]), []),
        (_firewall(["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/9"], WIDE), []),
        (_firewall(["10.0.0.0/8"], WIDE, CONTAINERS), []),
        (_firewall(["10.0.0.0/8"]), [VPN]),
    ],
    ids=["as shipped", "a single address", "overlapping networks and more ports", "containers", "one interface"],
)
def test_the_kernel_takes_the_file_twice_and_leaves_other_tables_alone(
    tmp_path: Path, firewall: Firewall, others: list[Exposure]
) -> None:
    listed = _loaded(tmp_path / "rules.nft", firewall, others)
    tables = {(entry["table"]["family"], entry["table"]["name"]) for entry in listed if "table" in entry}
    assert tables == {("inet", "rig"), ("inet", "other")}
    chains = {entry["chain"]["name"]: entry["chain"] for entry in listed if "chain" in entry}
    assert chains["input"]["policy"] == "drop"
    named = [
        (entry["rule"]["chain"], entry["rule"]["comment"]) for entry in listed if "comment" in entry.get("rule", {})
    ]
    assert named == [
        *(("input", opening.name) for opening in openings(firewall, others)),
        *(("forward", opening.name) for opening in published(firewall)),
    ]


@needs_root
@needs("nft", "unshare")
def test_a_published_port_is_accepted_before_its_bridge_is_closed(tmp_path: Path) -> None:
    listed = _loaded(tmp_path / "rules.nft", _firewall(["10.0.0.0/8"], containers=CONTAINERS), [])
    forward = [entry["rule"] for entry in listed if entry.get("rule", {}).get("chain") == "forward"]
    verdicts = ["accept" if any("accept" in part for part in rule["expr"]) else "drop" for rule in forward]
    assert verdicts == sorted(verdicts)


CLOSED = re.compile(r"^Environment='CLOSED=(.*?)'$", re.MULTILINE | re.DOTALL)


@needs_root
@needs("nft", "unshare")
def test_the_rules_in_place_of_broken_ones_let_nobody_in() -> None:
    found = CLOSED.search(own_file("/etc/systemd/system/rig-firewall.service"))
    assert found, "the unit has no such rules"
    closed = re.sub(r"\\\n *", " ", found[1])
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", 'nft "$1" && nft -j list ruleset', "sh", closed],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    chains = {entry["chain"]["name"]: entry["chain"] for entry in listed if "chain" in entry}
    assert chains["input"]["policy"] == "drop"
    rules = [entry["rule"] for entry in listed if "rule" in entry]
    assert not [rule for rule in rules if "tcp" in json.dumps(rule["expr"])]
    last = [rule for rule in rules if rule["chain"] == "forward"][-1]
    assert "bridge" in json.dumps(last["expr"]) and "drop" in json.dumps(last["expr"])
