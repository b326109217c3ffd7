"""Settings of the concern `monitoring`: what is measured on the machine, kept, and told to its owner."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rig.settings.thermal import Thermal
from rig.settings.types import Section, Size

LocalPort = Annotated[int, Field(ge=1024, le=65535)]
"""A port on 127.0.0.1: nothing of the monitoring faces a network."""


class NodeExporter(Section):
    """The program that shows the machine's own figures."""

    port: LocalPort = Field(description="TCP port it listens on at 127.0.0.1, 1024 to 65535.")
    memory: Size = Field(description="Memory it may take before it is killed, as a size such as 128M.")


class Monitoring(Section):
    """What is measured; everything listens on loopback only."""

    enabled: bool = Field(description="Whether the machine is monitored, true or false.")
    node_exporter: NodeExporter = Field(description="The machine's own figures.")
    thermal: Thermal = Field(description="The watch over the graphics card's temperature.")

    @property
    def listeners(self) -> dict[str, int]:
        """Ports on loopback that are taken when the machine is monitored, by the setting that says so."""
        return {"monitoring.node_exporter": self.node_exporter.port} if self.enabled else {}
