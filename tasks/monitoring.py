"""Concern monitoring: metrics of machine and engines, kept by the distribution's own programs, on loopback only."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern

from rig.monitoring import alertmanager, alerts, grafana
from rig.monitoring import prometheus as wanted
from rig.operations import engines, monitoring, units
from rig.operations.files import written_together
from rig.render import own_file, render
from rig.settings import Settings
from rig.settings.monitoring import seconds
from rig.settings.secrets import key_variable
from rigd.metrics import config
from tasks import thermal

SERVICE = "/etc/systemd/system/rig-metrics.service"
TIMER = "/etc/systemd/system/rig-metrics.timer"
OWN = "rig-metrics.timer"


@concern("monitoring")
def close(settings: Settings) -> None:
    """Write the drop-ins before the packages: these start their programs at once, and on every address."""
    if settings.monitoring.enabled:
        texts = {
            wanted.drop_in(unit): render(wanted.drop_in(unit), **values)
            for unit, values in wanted.drop_ins(settings).items()
        }
        written_together(name="Bind the monitoring programs to loopback", texts=texts)


@concern("monitoring")
def deploy(settings: Settings) -> None:
    """Every monitoring program runs with its settings; or, with monitoring disabled, none is installed."""
    thermal.deploy(settings)
    if not settings.monitoring.enabled:
        monitoring.without_grafana(name="Remove Grafana", unit=grafana.UNIT, home=grafana.HOME)
        _none()
        return
    drop_in = wanted.drop_in(wanted.NODE_EXPORTER)
    units.running(name="Run node_exporter", unit=wanted.NODE_EXPORTER, files=[drop_in])
    _machine(settings)
    _prometheus(settings)
    _grafana(settings)


def _machine(settings: Settings) -> None:
    texts = {
        config.PATH: config.dump(wanted.watched(settings)),
        SERVICE: own_file(SERVICE),
        TIMER: render(TIMER, seconds=seconds(settings.monitoring.state_interval)),
    }
    written_together(name="Write rig-metrics' settings", texts=texts)
    units.running(name="Run the rig-metrics timer", unit=OWN, files=[TIMER], starts=["rig-metrics.service"])


def _prometheus(settings: Settings) -> None:
    variables = {engine: key_variable(engine) for engine in wanted.scraped(settings)}
    monitoring.keys(name="Give Prometheus the keys of the engines", engines=variables)
    fingerprint = wanted.fingerprint(settings)
    documents = {
        "prometheus.yml": wanted.configuration(settings),
        "rules.yml": alerts.document(settings, fingerprint),
        "alertmanager.yml": alertmanager.document(settings),
    }
    texts = {name: render(f"{wanted.CONFIGURATION}/{name}", document=document) for name, document in documents.items()}
    monitoring.configured(
        name=f"Write {wanted.CONFIGURATION}",
        texts=texts,
        checks=["promtool check config prometheus.yml", "amtool check-config alertmanager.yml"],
    )
    monitoring.prometheus(
        name="Run Prometheus",
        unit=wanted.PROMETHEUS,
        drop_in=wanted.drop_in(wanted.PROMETHEUS),
        files=[f"{wanted.CONFIGURATION}/{name}" for name in ("prometheus.yml", "rules.yml")],
        port=settings.monitoring.prometheus.port,
        fingerprint=fingerprint,
    )
    monitoring.alertmanager(
        name="Run Alertmanager",
        unit=alertmanager.UNIT,
        drop_in=wanted.drop_in(alertmanager.UNIT),
        secrets=list(alertmanager.secrets(settings).values()),
        port=settings.monitoring.alertmanager.port,
        loaded_as=alertmanager.loaded_as(texts["alertmanager.yml"]),
    )


def _grafana(settings: Settings) -> None:
    wished = settings.monitoring.grafana
    if not wished.enabled:
        monitoring.without_grafana(name="Remove Grafana", unit=grafana.UNIT, home=grafana.HOME)
        return
    assert wished.image is not None
    unit = f"/etc/systemd/system/{grafana.UNIT}"
    texts = grafana.texts(settings) | {unit: own_file(unit)}
    written_together(name="Write Grafana's dashboards", texts=texts)
    engines.image(name="Pull the image of Grafana", reference=wished.image)
    monitoring.grafana(name="Run Grafana", unit=grafana.UNIT, files=list(texts), port=wished.port)


def _none() -> None:
    monitoring.retired(
        name="Remove the monitoring",
        services=list(wanted.UNITS),
        timer=OWN,
        files=[config.PATH, SERVICE, TIMER, *map(wanted.drop_in, wanted.UNITS)],
    )
