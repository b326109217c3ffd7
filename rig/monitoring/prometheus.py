"""The settings' part of the distribution's monitoring programs, as plain values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from rig.gateway import haproxy
from rig.models.fetch import RECORDS
from rig.monitoring import alertmanager, alerts
from rig.settings import Settings, size_bytes
from rig.settings.engines import Engine, NativeEngine
from rig.settings.monitoring import seconds
from rig.systemd import units
from rigd.metrics.config import TEXTFILES, Config
from rigd.metrics.config import Engine as WatchedEngine

DATA = "/var/lib/prometheus/metrics2"
"""Data folder of the distribution's Prometheus."""
CONFIGURATION = "/etc/rig/prometheus"
"""A folder of our own: the packages' own files stay as they are."""
KEYS = "/etc/rig/prometheus-keys"
"""Prometheus' copy of each engine's key; the folder is closed to everybody else."""
SERIES = 50_000_000 // 16
"""Most samples in one query: 16 bytes each (promql), so at most 50 MB."""

_OF_THEMSELVES = "process|alertmanager_(alerts|config|notification)|prometheus_(build|config|notifications|rule|tsdb)"
_OF_THE_GATEWAY = (
    "haproxy_(process_(current|max)_connections|frontend_(current_sessions|http_responses_total)|"
    "backend_(current_sessions|http_responses_total|status|client_aborts_total)|server_(status|check_failures_total))"
)
KEPT = f"((node|rig|gen_ai|{_OF_THEMSELVES}).*|{_OF_THE_GATEWAY})"
"""Names of the metrics to keep: most of the programs' metrics of themselves help only their authors."""

NODE_EXPORTER = "prometheus-node-exporter.service"
PROMETHEUS = "prometheus.service"
UNIT_OF = {
    "monitoring.node_exporter": NODE_EXPORTER,
    "monitoring.prometheus": PROMETHEUS,
    "monitoring.alertmanager": alertmanager.UNIT,
}
"""The distribution's units with a drop-in of ours, by their key in the settings."""
UNITS = tuple(UNIT_OF.values())

COLLECTORS = (
    "cpu",
    "cpufreq",
    "diskstats",
    "edac",
    "filefd",
    "filesystem",
    "hwmon",
    "loadavg",
    "meminfo",
    "netdev",
    "pressure",
    "stat",
    "systemd",
    "textfile",
    "thermal_zone",
    "time",
    "uname",
    "vmstat",
)
"""Collectors of kernel metrics. The default is three times as long, with RAID, NFS, InfiniBand and the like."""

NO_DISKS = "^/(dev|proc|run|sys|var/lib/(containerd|containers|docker))(/|$)"
"""Mount points that are not disks. The distribution leaves out /mnt and /media, too, where the models are."""

WATCHED_UNITS = "(rig-.+|prometheus.*|docker|ssh|cron|nvidia-.+)[.](service|timer)"
"""Units whose state is recorded one by one; for all others only the number of failed ones is."""


def packages(settings: Settings) -> tuple[str, ...]:
    """The distribution's packages that the settings need."""
    return tuple(unit.removesuffix(".service") for unit in UNITS) if settings.monitoring.enabled else ()


def drop_in(unit: str) -> str:
    """Path of our drop-in for one of the distribution's units."""
    return f"/etc/systemd/system/{unit}.d/rig.conf"


def drop_ins(settings: Settings) -> dict[str, dict[str, object]]:
    """Values for the template of each unit's drop-in."""
    monitoring = settings.monitoring
    return {
        NODE_EXPORTER: {
            "exec_start": units.command_line(node_exporter(settings)),
            "memory": monitoring.node_exporter.memory,
        },
        PROMETHEUS: {
            "exec_start": units.command_line(prometheus(settings)),
            "memory": monitoring.prometheus.memory,
            "soft_memory": size_bytes(monitoring.prometheus.memory) * 9 // 10,
        },
        alertmanager.UNIT: {
            "exec_start": units.command_line(alertmanager.program(settings)),
            "memory": monitoring.alertmanager.memory,
            "secrets": alertmanager.secrets(settings),
        },
    }


def node_exporter(settings: Settings) -> list[str]:
    """Program and arguments; without an address it would listen on all of them."""
    return [
        "/usr/bin/prometheus-node-exporter",
        f"--web.listen-address=127.0.0.1:{settings.monitoring.node_exporter.port}",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in COLLECTORS),
        f"--collector.textfile.directory={TEXTFILES}",
        f"--collector.filesystem.mount-points-exclude={NO_DISKS}",
        f"--collector.systemd.unit-include={WATCHED_UNITS}",
    ]


def prometheus(settings: Settings) -> list[str]:
    """Program and arguments."""
    wanted = settings.monitoring.prometheus
    return [
        "/usr/bin/prometheus",
        f"--config.file={CONFIGURATION}/prometheus.yml",
        f"--storage.tsdb.path={DATA}",
        f"--storage.tsdb.retention.time={wanted.retention_time}",
        f"--storage.tsdb.retention.size={wanted.retention_size}B",
        f"--query.max-samples={SERIES}",
        f"--web.listen-address=127.0.0.1:{wanted.port}",
        f"--web.external-url=http://127.0.0.1:{wanted.port}/",
    ]


def configuration(settings: Settings) -> dict[str, Any]:
    """The content of prometheus.yml: the scrape targets. An engine's key is in a file, read again for each scrape."""
    monitoring = settings.monitoring
    own = {
        "prometheus": monitoring.prometheus.port,
        "node": monitoring.node_exporter.port,
        "alertmanager": monitoring.alertmanager.port,
    }
    if settings.gateway_wanted:
        own["gateway"] = settings.gateway.metrics.port
    return {
        "global": {
            "scrape_interval": monitoring.scrape_interval,
            "evaluation_interval": monitoring.scrape_interval,
            "scrape_timeout": min(monitoring.scrape_interval, "10s", key=seconds),
        },
        "rule_files": ["rules.yml"],
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{monitoring.alertmanager.port}"]}]}]
        },
        "scrape_configs": [
            *(_own(job, port) for job, port in own.items()),
            *(_engine(name, engine) for name, engine in settings.enabled_engines.items()),
        ],
    }


def fingerprint(settings: Settings) -> str:
    """SHA-256 over everything that Prometheus loads."""
    documents = [configuration(settings), alerts.document(settings, "")]
    return hashlib.sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()


def scraped(settings: Settings) -> tuple[str, ...]:
    """Engines to scrape, with their key."""
    return tuple(settings.enabled_engines) if settings.monitoring.enabled else ()


def watched(settings: Settings) -> Config:
    """rig-metrics' settings."""
    return Config(
        output=TEXTFILES,
        records=RECORDS,
        engines=tuple(
            WatchedEngine(
                name,
                settings.unit(name),
                str(engine.address),
                engine.port,
                container=None if isinstance(engine, NativeEngine) else f"rig-{name}",
                gpu=engine.on_card,
            )
            for name, engine in settings.enabled_engines.items()
        ),
        models=tuple(settings.needed_models),
        certificates=(*settings.monitoring.certificates, *haproxy.certificates(settings)),
        alertmanager=settings.monitoring.alertmanager.port,
    )


def _own(job: str, port: int) -> dict[str, Any]:
    keep = {"source_labels": ["__name__"], "regex": KEPT, "action": "keep"}
    return {
        "job_name": job,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
        "metric_relabel_configs": [keep],
    }


def _engine(name: str, engine: Engine) -> dict[str, Any]:
    return {
        "job_name": f"engine-{name}",
        "authorization": {"credentials_file": f"{KEYS}/{name}"},
        "static_configs": [
            {
                "targets": [f"{engine.address}:{engine.port}"],
                "labels": {"job": "engine", "engine": name, "model": engine.model},
            }
        ],
    }
