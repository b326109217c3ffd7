"""Settings of the concern `gpu`: NVIDIA's driver and container toolkit, and the deploy's right to reboot for them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rig.settings.containers import Fingerprint
from rig.settings.types import Section, Shape, Url

DriverVersion = Annotated[
    str,
    Shape(
        r"[1-9][0-9]{2}(\.[0-9]{2,3}(\.[0-9]{2})?)?",
        "a branch or a version of the driver",
        "a branch such as 595, or a version such as 595.91.07",
    ),
]
ToolkitVersion = Annotated[
    str, Shape(r"[1-9][0-9]*\.[0-9]+\.[0-9]+-[0-9]+", "a version of the toolkit's packages", "one such as 1.20.0-1")
]
Fingerprints = Annotated[tuple[Fingerprint, ...], Field(min_length=1)]


class Driver(Section):
    """NVIDIA's driver."""

    source: Literal["vendor", "distribution"] = Field(
        description="Who supplies the driver: NVIDIA's repository, or Ubuntu with modules that are built and signed."
    )
    version: DriverVersion = Field(description="Branch of the driver, such as 595, or one version of it, in quotes.")
    modules: Literal["auto", "open", "proprietary"] = Field(
        description="Which kernel modules: `auto` takes those that the card needs."
    )
    repository: Url = Field(description="Web address of NVIDIA's repository, above the folders of the distributions.")
    key_source: Url | None = Field(
        default=None,
        description="Web address of the same layout that its signing key is fetched from; null for `repository`.",
    )
    key_fingerprints: Fingerprints = Field(
        description="Fingerprints of the signing keys that are accepted, 40 hexadecimal digits each."
    )

    @property
    def keys(self) -> str:
        """Address of the signing key, in the layout of the repository."""
        return self.key_source or self.repository


class Toolkit(Section):
    """NVIDIA's container toolkit."""

    version: ToolkitVersion = Field(description="Version of its four packages, such as 1.20.0-1.")
    repository: Url = Field(description="Web address of its repository, above the folder `stable`.")
    key_source: Url | None = Field(
        default=None,
        description="Web address of the same layout that its signing key is fetched from; null for `repository`.",
    )
    key_fingerprints: Fingerprints = Field(
        description="Fingerprints of the signing keys that are accepted, 40 hexadecimal digits each."
    )

    @property
    def keys(self) -> str:
        """Address of the signing key, in the layout of the repository."""
        return self.key_source or self.repository


class Gpu(Section):
    """The graphics card: NVIDIA's driver, and the card in containers."""

    enabled: bool = Field(description="Whether the driver is installed where a card is found, true or false.")
    driver: Driver = Field(description="NVIDIA's driver.")
    toolkit: Toolkit = Field(description="NVIDIA's container toolkit.")
    reboot: Literal["once", "never"] = Field(
        description="Whether the deploy reboots the machine when the driver needs it: once a run, or never."
    )
    reboot_timeout: int = Field(ge=30, le=3600, description="Seconds that a reboot may take.")
