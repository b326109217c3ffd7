"""Openings of the packet filter, as a plain list computed from the settings."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from rig.engines.compose import BRIDGE
from rig.settings.firewall import Firewall

BRIDGES = ("docker0", BRIDGE)
"""Interfaces of the networks that containers are on."""


@dataclass(frozen=True)
class Opening:
    """One accept rule of one address family."""

    name: str
    family: str
    """``ip`` or ``ip6``, nft's names."""
    networks: tuple[str, ...]
    protocol: str
    port: int


def openings(firewall: Firewall) -> list[Opening]:
    """Every opening, SSH first, split by address family as nft requires."""
    asked = [("ssh", firewall.ssh.networks, "tcp", firewall.ssh.port)]
    asked += [(name, rule.networks, rule.protocol, rule.port) for name, rule in firewall.allow.items()]
    return [
        Opening(name, family, chosen, protocol, port)
        for name, networks, protocol, port in asked
        for family, version in (("ip", 4), ("ip6", 6))
        if (chosen := _of_version(networks, version))
    ]


def _of_version(networks: tuple[str, ...], version: int) -> tuple[str, ...]:
    """Networks of one address family, overlapping ones merged: nft refuses a set of intervals that overlap."""
    if version == 4:
        return tuple(map(str, ipaddress.collapse_addresses(map(ipaddress.IPv4Network, _like(networks, version)))))
    return tuple(map(str, ipaddress.collapse_addresses(map(ipaddress.IPv6Network, _like(networks, version)))))


def _like(networks: tuple[str, ...], version: int) -> list[str]:
    return [network for network in networks if ipaddress.ip_network(network).version == version]
