"""The alerts: each one as a plain value, from which Prometheus' rules are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from rig.gateway import reader
from rig.monitoring import thermal
from rig.settings import Settings
from rig.settings.monitoring import seconds
from rigd.backup.schedule import EVERY
from rigd.gateway.config import Config
from rigd.metrics.config import FILE, TEXTFILES

Severity = Literal["critical", "warning", "info"]
"""critical: something does not work. warning: it soon will not, or works badly. info: there is something left to do."""

DAY = 86400


@dataclass(frozen=True)
class Alert:
    """One alerting rule."""

    name: str
    expression: str
    """PromQL; the alert fires for each of its results."""
    pending: int
    """Seconds that it must hold before the alert fires."""
    severity: Severity
    summary: str
    """A sentence; Prometheus fills in `{{ $labels.NAME }}`."""
    remedy: str
    """The next step for the owner."""


@dataclass(frozen=True)
class Figure:
    """A metric that is computed from others and recorded under its own name."""

    name: str
    expression: str


QUEUE = Figure(
    "rig:engine_queue",
    'max by (engine) ({__name__=~"llamacpp:requests_deferred|vllm:num_requests_waiting"})',
)
"""Waiting requests, under one name for every kind of engine."""

HELD_DOWN = "hw_slowdown|hw_thermal_slowdown|hw_power_brake_slowdown|sw_thermal_slowdown"
"""Unwanted reasons for lower clocks; a power limit and an idle card are wanted ones."""
DISKS = 'fstype!~"tmpfs|ramfs"'
FEW_ERRORS, MANY_ERRORS = 4, 0.1
"""Failed requests of a quarter of an hour that are not worth an alert: their number, and their part of all."""


def figures() -> tuple[Figure, ...]:
    """All recorded metrics besides the alerts."""
    return (QUEUE,)


def alerts(settings: Settings) -> tuple[Alert, ...]:
    """Every alert that the settings enable."""
    return (
        *_graphics_card(settings),
        *_engines(settings),
        *(_gateway(settings) if settings.gateway_wanted else ()),
        *_machine(settings),
        *_monitoring(settings),
    )


def document(settings: Settings, fingerprint: str) -> dict[str, Any]:
    """The content of rules.yml. Its fingerprint shows which settings the running program has loaded."""
    loaded = {"record": "rig_settings_info", "expr": "vector(1)", "labels": {"fingerprint": fingerprint}}
    recorded = [{"record": figure.name, "expr": figure.expression} for figure in figures()]
    return {"groups": [{"name": "rig", "rules": [loaded, *recorded, *map(_rule, alerts(settings))]}]}


def _rule(alert: Alert) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": f"{alert.pending}s",
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "description": alert.remedy},
    }


def _graphics_card(settings: Settings) -> Iterator[Alert]:
    pending = seconds(settings.monitoring.alerts.pending)
    for level, severity in ((1, "warning"), (2, "critical")):
        yield Alert(
            "GpuTooHot" if severity == "critical" else "GpuHot",
            f"rig_gpu_thermal_level == {level}",
            0,
            "critical" if severity == "critical" else "warning",
            "The GPU is {}hot.".format("critically " if severity == "critical" else ""),
            "Look at its fans and at what blows into the case; a lower power limit cools it, too.",
        )
    yield Alert(
        "GpuThrottled",
        f'rig_gpu_throttling{{reason=~"{HELD_DOWN}"}} == 1',
        pending,
        "warning",
        "The graphics card holds its clocks down ({{ $labels.reason }}).",
        "It is too hot or gets too little power; engines on it are slower for as long.",
    )
    xids = "rig_gpu_xid_errors_total"
    yield Alert(
        "GpuXid",
        # A new series has no earlier sample to have grown from.
        f"increase({xids}[1h]) > 0 or ({xids} > 0 unless {xids} offset 1h)",
        0,
        "critical",
        "The driver reported Xid {{ $labels.xid }} of the graphics card.",
        "journalctl -k shows the line; NVIDIA's list of Xid errors says what the number means.",
    )
    yield Alert(
        "GpuNotRead",
        "rig_gpu_reading_success == 0",
        pending,
        "warning",
        "The GPU's sensors cannot be read.",
        "nvidia-smi on the machine shows why; after a driver update it needs a reboot.",
    )


def _engines(settings: Settings) -> Iterator[Alert]:
    wanted = settings.monitoring.alerts
    down = 'up{job="engine"} == 0 and on (engine) rig_engine_wanted == 1'
    yield Alert(
        "EngineDown",
        f"{down} unless on (engine) rig_engine_loading == 1",
        seconds(wanted.engine_down),
        "critical",
        "Engine {{ $labels.engine }} does not run.",
        "systemctl status of its unit shows why. One that is off on purpose is disabled, not only stopped.",
    )
    for name, engine in settings.enabled_engines.items():
        yield Alert(
            "EngineNotReady",
            f'up{{job="engine",engine="{name}"}} == 0 and on (engine) rig_engine_wanted == 1',
            max(engine.health_timeout, seconds(wanted.engine_down)),
            "critical",
            "Engine {{ $labels.engine }} did not become ready in time.",
            "It loads for longer than its health_timeout, or crashes again and again: its log shows which.",
        )
    yield Alert(
        "EngineOnCpu",
        'rig_engine_on_gpu == 0 and on (engine) up{job="engine"} == 1',
        seconds(wanted.pending),
        "critical",
        "Engine {{ $labels.engine }} computes without the graphics card.",
        "Its log shows why CUDA did not start; nvidia-smi has to show the card. It answers, and slowly.",
    )
    yield Alert(
        "QueueGrowing",
        f"{QUEUE.name} > {QUEUE.name} offset {wanted.pending} "
        f"and min_over_time({QUEUE.name}[{wanted.pending}]) >= {wanted.queue}",
        0,
        "warning",
        "Requests to {{ $labels.engine }} come faster than they are answered; {{ $value }} wait.",
        "More sequences, a smaller model or fewer clients shorten the queue.",
    )


def _gateway(settings: Settings) -> Iterator[Alert]:
    wanted = settings.monitoring.alerts
    yield Alert(
        "GatewayDown",
        'up{job="gateway"} == 0',
        seconds(wanted.engine_down),
        "critical",
        "The gateway does not run.",
        "systemctl status rig-gateway shows why; engines go on, and nobody reaches them.",
    )
    yield Alert(
        "GatewayWithoutEngines",
        # One that loads, or that is off on purpose, is waited for.
        'max(haproxy_backend_status{proxy=~"engine_.+",state="UP"}) == 0 '
        "and on () max(rig_engine_wanted) == 1 unless on () max(rig_engine_loading) == 1",
        seconds(wanted.engine_down),
        "critical",
        "The gateway reaches no engine.",
        "Clients get 503 with a Retry-After. systemctl status 'rig-container@*' 'rig-native@*' shows the engines.",
    )
    failed, every = (
        f"sum by (engine) (increase(rig_gateway_requests_total{{{labels}}}[15m]))" for labels in ('status="5xx"', "")
    )
    yield Alert(
        "GatewayErrors",
        f"{failed} / {every} > {MANY_ERRORS} and {failed} > {FEW_ERRORS}",
        0,
        "warning",
        "{{ $value | humanizePercentage }} of the requests to {{ $labels.engine }} failed.",
        "These are of the last 15 minutes. journalctl -u rig-gateway shows which, and the engine's own log shows why.",
    )
    yield Alert(
        "ClientLimited",
        'sum by (client) (increase(rig_gateway_limited_requests_total{client!="unknown"}[1h])) > 0',
        DAY,
        "info",
        "Client {{ $labels.client }} has met its limits in every hour of a day.",
        "It asks for more than its key allows, or does not wait as the answer says: sudo rig-keys list.",
    )


def _machine(settings: Settings) -> Iterator[Alert]:
    wanted = settings.monitoring.alerts
    pending = seconds(wanted.pending)
    free = f"node_filesystem_avail_bytes{{{DISKS}}} / node_filesystem_size_bytes{{{DISKS}}}"
    yield Alert(
        "DiskFullInADay",
        f"predict_linear(node_filesystem_avail_bytes{{{DISKS}}}[6h], {DAY}) < 0 and {free} < 0.2",
        pending,
        "warning",
        "{{ $labels.mountpoint }} will be full within a day.",
        "sudo rig-models prune deletes what no engine uses; du -xh shows what else grew.",
    )
    yield Alert(
        "DiskNearlyFull",
        f"{free} < 0.05",
        pending,
        "critical",
        "{{ $labels.mountpoint }} has {{ $value | humanizePercentage }} left.",
        "sudo rig-models prune deletes what no engine uses; du -xh shows what else grew.",
    )
    yield Alert(
        "ModelChanged",
        "rig_model_changed == 1",
        0,
        "critical",
        "The file of model {{ $labels.model }} changed on the disk.",
        "Engines do not start with it; the next deploy fetches it again. Look after the disk.",
    )
    yield Alert(
        "ModelScrubFailed",
        'node_systemd_unit_state{name="rig-models-scrub.service",state="failed"} == 1',
        0,
        "warning",
        "The models could not all be read again and verified.",
        "journalctl -u rig-models-scrub tells which one, and why.",
    )
    if settings.backup.enabled:
        yield from _backup(settings)
    yield Alert(
        "CertificateEnds",
        f"rig_certificate_end_timestamp_seconds - time() < {seconds(wanted.certificate_end)}",
        0,
        "warning",
        "The certificate {{ $labels.path }} ends in {{ $value | humanizeDuration }}.",
        "Renew it. A time that has passed long ago says that it cannot be read.",
    )
    yield Alert(
        "RebootPending",
        "rig_reboot_pending == 1",
        seconds(wanted.reboot_pending),
        "info",
        "Updates are installed that only a reboot brings into force.",
        "Reboot the machine when nobody needs it.",
    )
    yield Alert(
        "GpuModuleMissing",
        "rig_gpu_module_missing == 1",
        pending,
        "warning",
        "The kernel of the next boot has no module for the graphics card.",
        "Do not reboot before a deploy, which builds it; dkms status shows why it was not built.",
    )
    yield Alert(
        "UnitFailed",
        'node_systemd_unit_state{state="failed",name!~"rig-models-scrub.service|rig-(container|native)@.+"} == 1',
        pending,
        "warning",
        "{{ $labels.name }} failed.",
        "systemctl status and journalctl -u tell why.",
    )


def _backup(settings: Settings) -> Iterator[Alert]:
    success = "rig_backup_last_success_timestamp_seconds"
    yield Alert(
        "BackupTooOld",
        f"time() - {success} > {seconds(settings.monitoring.alerts.backup_age)}",
        0,
        "warning",
        "No backup has succeeded for {{ $value | humanizeDuration }}.",
        "rig-backup status on the machine tells how the last one ended.",
    )
    yield Alert(
        "BackupFailed",
        # `pending` alone is not enough: during a backup there is no metric, and a machine may be off at night.
        "max_over_time(rig_backup_last_run_success[1d]) == 0",
        4 * EVERY * 60,
        "warning",
        "Every backup of the last day found something wrong.",
        "rig-backup status on the machine tells what; what it names does not mend itself.",
    )
    yield Alert(
        "BackupNeverAsked",
        # Written at every run of cron, whether a backup is due or not: a new machine has it after a quarter of an hour.
        f'absent({success}) and on () up{{job="node"}} == 1',
        4 * EVERY * 60,
        "warning",
        "Cron has never asked whether a backup is due.",
        "systemctl status cron tells whether it runs, and journalctl -t rig-backup what it was answered.",
    )


def _monitoring(settings: Settings) -> Iterator[Alert]:
    pending = seconds(settings.monitoring.alerts.pending)
    yield Alert(
        "NotMeasured",
        'up{job!~"engine|gateway"} == 0',
        pending,
        "warning",
        "{{ $labels.job }} does not answer Prometheus.",
        "systemctl status of its unit tells why.",
    )
    for path, interval in _written(settings).items():
        file = f'node_textfile_mtime_seconds{{file="{path}"}}'
        # Written and scraped in time, its age is both intervals together at most; at twice that, one was missed.
        oldest = 2 * (interval + seconds(settings.monitoring.scrape_interval))
        yield Alert(
            "FiguresTooOld",
            f"time() - {file} > {oldest} or absent({file})",
            pending,
            "warning",
            "{{ $labels.file }} is not there, or is not written any more.",
            "systemctl list-timers 'rig-*' and systemctl status 'rig-*' show what does not run.",
        )
    yield Alert(
        "SettingsNotLoaded",
        '{__name__=~"(prometheus|alertmanager)_config_last_reload_successful"} == 0',
        pending,
        "warning",
        "{{ $labels.job }} could not load its configuration.",
        "Its log tells the line. Deploy again: what was edited by hand is undone.",
    )


def _written(settings: Settings) -> dict[str, int]:
    """Files that are written periodically, by path: the interval in seconds."""
    files = {f"{TEXTFILES}/{FILE}": seconds(settings.monitoring.state_interval)}
    if thermal.linked(settings):
        files[thermal.LINK] = settings.monitoring.thermal.interval
    if reader.linked(settings):
        files[reader.LINK] = round(Config.interval)
    return files
