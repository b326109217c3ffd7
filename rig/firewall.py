"""Openings of the packet filter, as a plain list computed from the settings."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rig.engines.compose import BRIDGE
from rig.settings import Settings
from rig.settings.firewall import Allowed, Firewall

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
        """The packets to the machine itself that are accepted, in nft's language."""
        way = "" if self.interface is None else f"iifname {json.dumps(self.interface)} "
        return f"{way}{self.family} saddr {{ {', '.join(self.networks)} }} {self.protocol} dport {self.port}"

    @property
    def forwarded(self) -> str:
        """The packets to a container that are accepted, in nft's language.

        They have the container's address and port by then; the port that they were sent to is the connection's. Without
        the translation, a neighbour that routes to a container's own address would get in, too.
        """
        sent = f"meta l4proto {self.protocol} ct original proto-dst {self.port}"
        return f"ct status dnat {self.family} saddr {{ {', '.join(self.networks)} }} {sent}"


def openings(firewall: Firewall, exposures: Iterable[Exposure] = ()) -> list[Opening]:
    """Every opening, SSH first, split by address family as nft requires."""
    ports = [Exposure("ssh", firewall.ssh.port, firewall.ssh.networks)]
    ports += [_exposure(name, rule) for name, rule in firewall.allow.items()]
    return [*_by_family([*ports, *exposures]), *published(firewall)]


def published(firewall: Firewall) -> list[Opening]:
    """Ports that containers of the owner's publish.

    They are open in both chains: Docker translates the address of most packets and forwards them, and what it does not
    translate (IPv6 to a network without it) goes to a program of Docker's on the machine itself.
    """
    return _by_family([_exposure(name, rule) for name, rule in firewall.containers.items()])


def values(firewall: Firewall, exposures: Iterable[Exposure] = ()) -> dict[str, Any]:
    """The values of the rules' template."""
    return {
        "openings": openings(firewall, exposures),
        "published": published(firewall),
        "bridges": BRIDGES,
    }


def exposures(settings: Settings) -> list[Exposure]:
    """Ports that other concerns open to the network: the gateway's, where other machines use it."""
    remote = settings.gateway.remote
    if not (settings.gateway_wanted and remote.enabled):
        return []
    return [Exposure("gateway", remote.port, remote.networks, interface=remote.interface)]


def _exposure(name: str, rule: Allowed) -> Exposure:
    return Exposure(name, rule.port, rule.networks, rule.protocol)


def _by_family(exposures: Iterable[Exposure]) -> list[Opening]:
    return [
        Opening(one.name, family, chosen, one.protocol, one.port, one.interface)
        for one in exposures
        for family, version in (("ip", 4), ("ip6", 6))
        if (chosen := _of_version(one.networks, version))
    ]


def _of_version(networks: tuple[str, ...], version: int) -> tuple[str, ...]:
    """Networks of one address family, overlapping ones merged: nft refuses a set of intervals that overlap."""
    if version == 4:
        return tuple(map(str, ipaddress.collapse_addresses(map(ipaddress.IPv4Network, _like(networks, version)))))
    return tuple(map(str, ipaddress.collapse_addresses(map(ipaddress.IPv6Network, _like(networks, version)))))


def _like(networks: tuple[str, ...], version: int) -> list[str]:
    return [network for network in networks if ipaddress.ip_network(network).version == version]
