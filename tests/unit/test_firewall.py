"""The packet filter opens exactly what the settings say, and the kernel takes the file that says so."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.firewall import BRIDGES, Exposure, Opening, exposures, openings
from rig.render import render
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


def _firewall(ssh: list[str], allow: dict[str, Any] | None = None) -> Firewall:
    return settings({"firewall/ssh/networks": ssh, "firewall/allow": allow or {}}).firewall


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


def _loaded(path: Path, made: list[Opening]) -> list[dict[str, Any]]:
    """The kernel's rules after the file was loaded twice into a network namespace of its own: nothing outside
    changes."""
    path.write_text(render("/etc/rig/firewall.nft", openings=made, bridges=BRIDGES), encoding="utf-8")
    script = f"nft add table inet other && nft -f {path} && nft -f {path} && nft -j list ruleset"
    done = subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed: list[dict[str, Any]] = json.loads(done.stdout)["nftables"]
    return listed


WIDE = {
    "metrics": {"port": 9100, "networks": ["192.168.1.0/24", "fd00::/8"]},
    "dns": {"port": 53, "protocol": "udp", "networks": ["10.0.0.1"]},
}


@needs_root
@needs("nft", "unshare")
@pytest.mark.parametrize(
    "made",
    [
        openings(_firewall(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fe80::/10", "fd00::/8"])),
        openings(_firewall(["10.77.0.3"])),
        openings(_firewall(["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/9"], WIDE)),
        openings(_firewall(["10.0.0.0/8"]), [Exposure("vpn", 8443, ("10.0.0.0/8", "fd00::/8"), interface="a b'c")]),
    ],
    ids=["as shipped", "a single address", "overlapping networks and more ports", "a port on one interface"],
)
def test_the_kernel_takes_the_file_twice_and_leaves_other_tables_alone(tmp_path: Path, made: list[Opening]) -> None:
    listed = _loaded(tmp_path / "rules.nft", made)
    tables = {(entry["table"]["family"], entry["table"]["name"]) for entry in listed if "table" in entry}
    assert tables == {("inet", "rig"), ("inet", "other")}
    chains = {entry["chain"]["name"]: entry["chain"] for entry in listed if "chain" in entry}
    assert chains["input"]["policy"] == "drop"
    named = [entry["rule"]["comment"] for entry in listed if "comment" in entry.get("rule", {})]
    assert named == [opening.name for opening in made]
