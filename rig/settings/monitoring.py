"""Settings of the concern `monitoring`: the machine's metrics, their retention, and alerts to the owner."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rig.settings.engines import Image
from rig.settings.problems import show
from rig.settings.thermal import Thermal
from rig.settings.types import (
    HOST,
    AbsolutePath,
    Duration,
    LocalPort,
    Name,
    Section,
    Shape,
    Size,
    Url,
    lasting,
    seconds_of,
    sized,
)


def _port_exists(value: str) -> str:
    """A server with a valid port."""
    if int(value.rpartition(":")[2]) > 65535:
        raise ValueError(f"{show(value)} has no usable port; write one of 1 to 65535, such as 587")
    return value


ForYears = Annotated[Duration, lasting("1h", "3650d")]
"""Ten years at most: Prometheus counts nanoseconds in 63 bits, and an alert that waits longer is useless."""
ForADay = Annotated[Duration, lasting("1s", "1d")]
"""A day at most."""

Mailbox = Annotated[str, Shape(r"[A-Za-z0-9._+-]+@[A-Za-z0-9.-]+", "a mail address", "one such as owner@example.org")]
HostAndPort = Annotated[
    str,
    Shape(rf"{HOST}:[1-9][0-9]{{0,4}}", "a server with its port", "one such as mail.example.org:587"),
    AfterValidator(_port_exists),
]
Account = Annotated[str, Shape(r"[A-Za-z0-9._+@-]+", "a name to log in with", "it without spaces or quotes")]
NOBODY = "nobody"
"""A receiver that gets nothing: Alertmanager requires one for alerts without another."""
Severity = Literal["info", "warning", "critical"]

seconds = seconds_of
"""A duration of the settings in seconds."""


class NodeExporter(Section):
    """The exporter of the machine's metrics."""

    port: LocalPort = Field(description="TCP port it listens on at 127.0.0.1, 1024 to 65535.")
    memory: Annotated[Size, sized("32M", "1T", "it takes about 20M")] = Field(
        description="Memory it may take before it is killed, as a size such as 128M."
    )


class Prometheus(Section):
    """The program that collects and keeps all metrics."""

    port: LocalPort = Field(description="TCP port it listens on at 127.0.0.1, 1024 to 65535.")
    memory: Annotated[Size, sized("128M", "1T", "it takes about 100M")] = Field(
        description="Memory it may take before it is killed, as a size such as 1G."
    )
    retention_time: Annotated[Duration, lasting("1d", "3650d", "Prometheus counts no further than some centuries")] = (
        Field(description="Age after which figures go, as a duration such as 90d.")
    )
    retention_size: Annotated[Size, sized("128M", "1000T", "a day takes about 10M")] = Field(
        description="Disk space that figures may take, as a size such as 4G."
    )


class Alertmanager(Section):
    """The program that sends alerts to receivers."""

    port: LocalPort = Field(description="TCP port it listens on at 127.0.0.1, 1024 to 65535.")
    memory: Annotated[Size, sized("64M", "1T", "it takes about 30M")] = Field(
        description="Memory it may take before it is killed, as a size such as 128M."
    )
    group_wait: ForADay = Field(
        description="How long a first alert waits for others of its kind, as a duration such as 30s."
    )
    group_interval: ForADay = Field(
        description="How long after a message others of its kind wait, as a duration such as 5m."
    )
    repeat_interval: Annotated[Duration, lasting("1m", "5d", "Alertmanager forgets after 5 days what it has sent")] = (
        Field(description="Time after which an alert that still fires is sent again, as a duration such as 1d.")
    )


class CommonReceiver(Section):
    """Settings of every receiver."""

    severity: Severity = Field(
        default="info", description="Least severity that it receives: info, warning or critical."
    )
    secret: bool = Field(
        default=False,
        description="Whether its password or token lies in /etc/rig/receivers/<its name> there, true or false.",
    )


class Webhook(CommonReceiver):
    """A web address that takes Alertmanager's JSON."""

    kind: Literal["webhook"] = Field(description="Kind of receiver: webhook.")
    url: Url = Field(description="Web address that is sent a POST with the alerts as JSON.")


class Ntfy(CommonReceiver):
    """A topic of an ntfy server, which shows it on a telephone."""

    kind: Literal["ntfy"] = Field(description="Kind of receiver: ntfy.")
    url: Url = Field(description="Web address of the topic, such as https://ntfy.sh/my-topic.")


class Email(CommonReceiver):
    """A mailbox."""

    kind: Literal["email"] = Field(description="Kind of receiver: email.")
    to: Mailbox = Field(description="Who gets it, a mail address.")
    sender: Mailbox = Field(description="Whom it comes from, a mail address.")
    server: HostAndPort = Field(description="Mail server that takes it, as host:port.")
    user: Account | None = Field(default=None, description="Name to log in with at the mail server; null for no login.")
    tls: bool = Field(default=True, description="Whether the mail server must offer TLS, true or false.")


Receiver = Annotated[Webhook | Ntfy | Email, Field(discriminator="kind")]


class Alerts(Section):
    """The conditions of alerts."""

    pending: ForADay = Field(
        description="How long a condition that may pass by itself must last, as a duration such as 5m."
    )
    engine_down: ForADay = Field(description="How long an engine may be gone, as a duration such as 2m.")
    queue: int = Field(
        ge=1, le=1_000_000, description="Requests that may wait at an engine for as long as `pending`, a number."
    )
    backup_age: ForYears = Field(
        description="How long ago the last backup that succeeded may be, as a duration such as 8d."
    )
    certificate_end: ForYears = Field(
        description="How long before the end of a certificate the alert fires, as a duration such as 14d."
    )
    reboot_pending: Annotated[Duration, lasting("1m", "365d")] = Field(
        description="How long a reboot may be due, as a duration such as 1d."
    )


class Grafana(Section):
    """Dashboards, in a container."""

    enabled: bool = Field(description="Whether there are dashboards, true or false.")
    image: Image = Field(description="Container image with tag and digest, repository:tag@sha256:....")
    port: LocalPort = Field(description="TCP port it listens on at 127.0.0.1, 1024 to 65535.")
    memory: Annotated[Size, sized("128M", "1T", "it takes about 150M")] = Field(
        description="Memory it may take before it is killed, as a size such as 512M."
    )


class Monitoring(Section):
    """Metrics, alerts and dashboards; everything listens on loopback only."""

    enabled: bool = Field(description="Whether the machine is monitored, true or false.")
    scrape_interval: Annotated[
        Duration, lasting("1s", "4m", "Prometheus looks back 5 minutes: alerts would find nothing in between")
    ] = Field(description="How often Prometheus scrapes every program, as a duration such as 15s.")
    state_interval: Annotated[Duration, lasting("1s", "1d")] = Field(
        description="How often rig-metrics looks at what no program shows, as a duration such as 1m."
    )
    certificates: tuple[AbsolutePath, ...] = Field(
        description="Certificates (PEM files on the machine) whose end is watched, absolute paths."
    )
    node_exporter: NodeExporter = Field(description="The machine's own figures.")
    thermal: Thermal = Field(description="The watch over the graphics card's temperature.")
    prometheus: Prometheus = Field(description="Where all figures are kept.")
    alertmanager: Alertmanager = Field(description="What tells the owner.")
    alerts: Alerts = Field(description="When alerts fire.")
    grafana: Grafana = Field(description="Dashboards.")
    receivers: dict[Name, Receiver] = Field(description="Receivers of alerts, by a name of your choice.")

    @property
    def listeners(self) -> dict[str, int]:
        """Loopback ports of an enabled monitoring, by their settings."""
        if not self.enabled:
            return {}
        dashboards = {"monitoring.grafana": self.grafana.port} if self.grafana.enabled else {}
        return dashboards | {
            "monitoring.node_exporter": self.node_exporter.port,
            "monitoring.prometheus": self.prometheus.port,
            "monitoring.alertmanager": self.alertmanager.port,
        }
