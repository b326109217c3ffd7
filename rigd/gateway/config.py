"""The settings of the gateway's programs on the machine, from the concern `gateway`; the deploy writes the file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated

from rigd.base import configuration
from rigd.base.configuration import AtLeast
from rigd.gateway import rates

PATH = "/etc/rig/gateway.json"
HOME = "/var/lib/rig/gateway"
"""Folder of the records and the map; the gateway's group may read in it."""
RECORDS = "/var/lib/rig/gateway/keys.json"
"""One record per key, for root alone: all that is known of a key but the key itself."""
MAP = f"{HOME}/keys.map"
"""The records as HAProxy reads them."""
SOCKET = "/run/rig-gateway/admin.sock"
GROUP = "rig-gateway"
UNIT = "rig-gateway.service"
READER = "/var/lib/rig-gateway-reader/state.json"
"""The counters of rig-gateway-reader, and the place in the journal up to which they count."""
METRICS = "/run/rig-gateway-reader/rig_gateway.prom"
"""The file for node_exporter, linked from node_exporter's own folder."""


@dataclass(frozen=True)
class Limits:
    """Limits of a key that has none of its own."""

    rate: int = 60
    """Requests a minute; see rates.RATES."""
    burst: int = 10
    """Requests that may come at once."""
    concurrency: Annotated[int, AtLeast(1)] = 4
    """Requests under way at a time."""


TLS = "/etc/rig/gateway-tls"
"""Folder of the certificate for other machines, and of the CA that signs it."""


@dataclass(frozen=True)
class Remote:
    """The certificate for other machines."""

    names: tuple[str, ...] = ()
    """Host names and addresses in a certificate that is made here; the first one is its subject."""
    chain: str | None = None
    """The owner's own certificate with its intermediates, and its key; None: one is made here."""
    key: str | None = None
    folder: str = TLS


@dataclass(frozen=True)
class Config:
    """All settings."""

    engines: tuple[str, ...]
    """Names of the engines behind the gateway."""
    limits: Limits = Limits()
    remote: Remote | None = None
    """Access from other machines; None without."""
    socket: str = SOCKET
    map: str = MAP
    """Path of the map, which is also its name inside HAProxy."""
    records: str = RECORDS
    group: str = GROUP
    """Group that may read the map."""
    unit: str = UNIT
    """The unit whose log the reader follows."""
    reader: str = READER
    metrics: str = METRICS
    interval: Annotated[float, AtLeast(0.01)] = 10.0
    """Seconds between two writings of the reader."""


def dump(config: Config) -> str:
    """The settings as the file's text."""
    return json.dumps(asdict(config), indent=2) + "\n"


def parse(text: str) -> Config:
    """The settings in the file's text. Raises ValueError."""
    config = configuration.parse(Config, text)
    rates.window(config.limits.rate, config.limits.burst)
    return config
