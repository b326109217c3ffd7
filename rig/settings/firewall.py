"""Settings of the concern `firewall`: who may reach which port of the machine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rig.settings.types import Name, Network, Port, Section

SomeNetworks = Annotated[tuple[Network, ...], Field(min_length=1)]


class Ssh(Section):
    """Who may log in."""

    port: Port = Field(description="TCP port of the SSH server, 1 to 65535.")
    networks: SomeNetworks = Field(description="Networks that may reach it, such as 192.168.0.0/16; at least one.")


class Allowed(Section):
    """One further port that is open."""

    port: Port = Field(description="Port, 1 to 65535.")
    protocol: Literal["tcp", "udp"] = Field(default="tcp", description="Protocol of the port: tcp or udp.")
    networks: SomeNetworks = Field(description="Networks that may reach it, such as 192.168.0.0/16; at least one.")


class Published(Allowed):
    """One port that a container of the owner's publishes to the network."""

    port: Port = Field(description="Port of the machine at which the container is published, 1 to 65535.")


class Firewall(Section):
    """The packet filter; what is not allowed here is dropped."""

    enabled: bool = Field(description="Whether the packet filter is in force, true or false.")
    ssh: Ssh = Field(description="Access by SSH.")
    allow: dict[Name, Allowed] = Field(
        description="Further open ports of programs on the machine itself, by a name of your choice."
    )
    containers: dict[Name, Published] = Field(
        description="Open ports that your own containers publish, by a name of your choice."
    )

    @property
    def opened(self) -> dict[tuple[str, str], Allowed]:
        """Every open port but SSH's, by section and name."""
        return {
            (section, name): allowed
            for section, ports in (("allow", self.allow), ("containers", self.containers))
            for name, allowed in ports.items()
        }
