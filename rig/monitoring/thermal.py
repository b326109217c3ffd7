"""The thermal monitor's settings and its units: plain functions of the settings."""

from __future__ import annotations

from rig.settings import Settings
from rigd.thermal.config import Config, OnCritical
from rigd.thermal.levels import Hot, Warm
from rigd.thermal.places import Places

MONITOR = "rig-thermal.service"
COOL = ("rig-thermal-cool.path", "rig-thermal-cool.service")
NOTIFY = ("rig-thermal-notify.path", "rig-thermal-notify.service")
UNITS = (MONITOR, *COOL, *NOTIFY)
LINK = "/var/lib/prometheus/node-exporter/rig_gpu.prom"
"""Link from node_exporter's folder to the monitor's own, so that the monitor needs no write access to the former."""
TARGET = str(Places().metrics)
APPLIED = str(Places().applied)


def unit_path(unit: str) -> str:
    """The file of one of the units."""
    return f"/etc/systemd/system/{unit}"


def units(settings: Settings) -> tuple[str, ...]:
    """The units that the settings need. A privileged unit exists only if it has something to do."""
    thermal = settings.monitoring.thermal
    if not thermal.enabled:
        return ()
    cool = COOL if config(settings).on_critical.wanted else ()
    return (MONITOR, *cool, *(NOTIFY if thermal.notify else ()))


def config(settings: Settings) -> Config:
    """The contents of /etc/rig/thermal.json."""
    thermal, critical = settings.monitoring.thermal, settings.monitoring.thermal.on_critical
    engine = settings.engines[critical.stop_engine] if critical.stop_engine is not None else None
    return Config(
        interval=thermal.interval,
        timeout=thermal.timeout,
        warning=Warm(thermal.warning.margin, thermal.warning.temperature, thermal.warning.after),
        critical=Hot(thermal.critical.margin, thermal.critical.temperature),
        band=thermal.band,
        settle=thermal.settle,
        on_critical=OnCritical(
            power_limit=critical.power_limit,
            unit=None if engine is None else settings.unit(str(critical.stop_engine)),
            restore=critical.restore,
        ),
    )


def linked(settings: Settings) -> bool:
    """Whether node_exporter is there to read the metrics."""
    return settings.monitoring.enabled and settings.monitoring.thermal.enabled

