"""Openings of the packet filter, as a plain list computed from the settings."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass

from rig.engines.compose import BRIDGE
from rig.settings import Settings
from rig.settings.firewall import Firewall

BRIDGES = ("docker0", BRIDGE)
"""Interfaces of the networks that containers are on."""


@dataclass(frozen=True)
class Exposure:
    """A port of the machine that is open to networks of either address family."""

    name: str
    port: int
    networks: tuple[str, ...]
    protocol: str = "tcp"
    """``tcp`` or ``udp``."""
    interface: str | None = None
    """The one interface by which packets may come in, such as a VPN's; None for any."""


@dataclass(frozen=True)
class Opening:
    """One accept rule of one address family."""

    name: str
    family: str
    """``ip`` or ``ip6``, nft's names."""
    networks: tuple[str, ...]
    protocol: str
    port: int
    interface: str | None = None
    """The one interface by which packets may come in; None for any."""

    @property
    def conditions(self) -> str:
        """The packets that are accepted, in nft's language."""
        way = "" if self.interface is None else f"iifname {json.dumps(self.interface)} "
        return f"{way}{self.family} saddr {{ {', '.join(self.networks)} }} {self.protocol} dport {self.port}"


def openings(firewall: Firewall, exposures: Iterable[Exposure] = ()) -> list[Opening]:
    """Every opening, SSH first, split by address family as nft requires."""
    asked = [Exposure("ssh", firewall.ssh.port, firewall.ssh.networks)]
    asked += [Exposure(name, rule.port, rule.networks, rule.protocol) for name, rule in firewall.allow.items()]
    return [
        Opening(one.name, family, chosen, one.protocol, one.port, one.interface)
        for one in (*asked, *exposures)
        for family, version in (("ip", 4), ("ip6", 6))
        if (chosen := _of_version(one.networks, version))
    ]


def exposures(settings: Settings) -> list[Exposure]:
    """Ports that other concerns open to the network, each computed by the concern itself; none by default."""
    return []


def _of_version(networks: tuple[str, ...], version: int) -> tuple[str, ...]:
    """Networks of one address family, overlapping ones merged: nft refuses a set of intervals that overlap."""
    if version == 4:
        return tuple(map(str, ipaddress.collapse_addresses(map(ipaddress.IPv4Network, _like(networks, version)))))
    return tuple(map(str, ipaddress.collapse_addresses(map(ipaddress.IPv6Network, _like(networks, version)))))


def _like(networks: tuple[str, ...], version: int) -> list[str]:
    return [network for network in networks if ipaddress.ip_network(network).version == version]
