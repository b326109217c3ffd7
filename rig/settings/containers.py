"""Settings of the concern `containers`: the source of the container engine, and its daemon.json."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue

from rig.settings import daemon as daemon_json
from rig.settings.types import Section, Shape, Text, Url

Fingerprint = Annotated[
    str, Shape(r"[0-9A-F]{40}", "a key fingerprint", "its 40 upper-case hexadecimal digits without spaces")
]

EngineVersion = Annotated[
    str,
    Shape(
        r"(?=.{1,100}$)([0-9]+:)?[0-9]+([.+~-][0-9A-Za-z]+)*",
        "a version of the container engine",
        'the first of its numbers or all of them, in quotes, such as "29.1" or "26.1.5+dfsg1-9"',
    ),
]


class Vendor(Section):
    """The vendor's own apt repository."""

    repository: Url = Field(description="Web address of the repository, above the folders `debian` and `ubuntu`.")
    key_source: Url | None = Field(
        default=None,
        description="Web address of the same layout that its signing key is fetched from; null for `repository`.",
    )
    key_fingerprints: Annotated[tuple[Fingerprint, ...], Field(min_length=1)] = Field(
        description="Fingerprints of the signing keys that are accepted, 40 hexadecimal digits each."
    )

    @property
    def keys(self) -> str:
        """Address of the signing key, in the layout of the repository."""
        return self.key_source or self.repository


class Containers(Section):
    """The container engine."""

    source: Literal["vendor", "distribution"] = Field(
        description="Who supplies the container engine: its vendor or the distribution."
    )
    version: EngineVersion | None = Field(
        description="Version of the container engine, or how it begins, in quotes; null for the one that is there."
    )
    vendor: Vendor = Field(description="The vendor's apt repository; used when `source` is vendor.")
    daemon: dict[Text, Annotated[JsonValue, AfterValidator(daemon_json.visible)]] = Field(
        description="Keys merged into /etc/docker/daemon.json; other keys of that file stay as they are."
    )
