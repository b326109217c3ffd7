"""For every alert: metrics that make it fire, and metrics that do not, in promtool's notation.

Settings are those of all.yml with an engine `one` (container) and `two`, as in tests/unit/sample.py; a few cases change
some of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rig.monitoring.alerts import Alert

MACHINE_FILE, GPU_FILE, GATEWAY_FILE = (
    f"/var/lib/prometheus/node-exporter/rig_{name}.prom" for name in ("machine", "gpu", "gateway")
)
SUCCESS = "rig_backup_last_success_timestamp_seconds"
GIB = 1 << 30

Changes = tuple[tuple[str, object], ...]
HOURLY: Changes = (("monitoring/state_interval", "1h"), ("monitoring/thermal/interval", 3600))
UNWATCHED: Changes = (("monitoring/thermal/enabled", False),)


@dataclass(frozen=True)
class Case:
    """The outcome of one alert for some metrics at a time."""

    alert: str
    figures: Mapping[str, str]
    """Samples of each series, a minute apart: `0+1x5` is 0 to 5."""
    at: str
    fires: tuple[tuple[Mapping[str, str], str], ...] = ()
    """Labels and summary of each firing alert; none if it must not fire."""
    settings: Changes = ()
    """Changed settings, as in tests/unit/sample.py."""


def disk(alert: str, free: str, at: str, fires: str = "", size: int = 100 * GIB, kind: str = "ext4") -> Case:
    labels = {"device": "/dev/x", "fstype": kind, "mountpoint": "/mnt/models"}
    written = ",".join(f'{name}="{value}"' for name, value in labels.items())
    figures = {
        f"node_filesystem_avail_bytes{{{written}}}": free,
        f"node_filesystem_size_bytes{{{written}}}": f"{size}x1000",
    }
    return Case(alert, figures, at, ((labels, fires),) if fires else ())


def engine(alert: str, up: str, wanted: str, loading: str, at: str, fires: str = "") -> Case:
    labels = {"job": "engine", "engine": "two"}
    figures = {
        'up{job="engine",engine="two"}': up,
        'rig_engine_wanted{job="node",engine="two"}': wanted,
        'rig_engine_loading{job="node",engine="two"}': loading,
    }
    return Case(alert, figures, at, ((labels, fires),) if fires else ())


def mtime(file: str) -> str:
    return f'node_textfile_mtime_seconds{{file="{file}"}}'


def figures(machine: str, gpu: str, at: str, *fires: str, settings: Changes = ()) -> Case:
    """FiguresTooOld for two files' times of writing, and a third that is new; `fires`: the files that it reports."""
    told = tuple(({"file": file}, f"{file} is not there, or is not written any more.") for file in fires)
    written = {mtime(MACHINE_FILE): machine, mtime(GPU_FILE): gpu, mtime(GATEWAY_FILE): "0+60x400", "up": "1x400"}
    return Case("FiguresTooOld", written, at, told, settings)


def reached(one: str, two: str, wanted: str, loading: str, at: str, fires: str = "") -> Case:
    """GatewayWithoutEngines for two engines, of which the second is wanted and loads as given."""
    figures = {
        'haproxy_backend_status{proxy="engine_one",state="UP"}': one,
        'haproxy_backend_status{proxy="engine_two",state="UP"}': two,
        'haproxy_backend_status{proxy="engine_two",state="DOWN"}': "1x30",
        'haproxy_backend_status{proxy="batch",state="UP"}': "1x30",
        'rig_engine_wanted{engine="one"}': "0x30",
        'rig_engine_wanted{engine="two"}': wanted,
        'rig_engine_loading{engine="two"}': loading,
    }
    return Case("GatewayWithoutEngines", figures, at, (({}, fires),) if fires else ())


def answers(failed: str, good: str, at: str, fires: str = "") -> Case:
    """GatewayErrors for the requests of two clients to an engine."""
    figures = {
        'rig_gateway_requests_total{client="anna",engine="one",status="5xx"}': failed,
        'rig_gateway_requests_total{client="ben",engine="one",status="2xx"}': good,
        'rig_gateway_requests_total{client="ben",engine="two",status="2xx"}': "0+60x100",
    }
    return Case("GatewayErrors", figures, at, (({"engine": "one"}, fires),) if fires else ())


def limited(count: str, at: str, fires: str = "", client: str = "anna") -> Case:
    """ClientLimited for the number of refused requests."""
    figures = {f'rig_gateway_limited_requests_total{{client="{client}",limit="rate"}}': count}
    return Case("ClientLimited", figures, at, (({"client": client}, fires),) if fires else ())


UNREACHED = "The gateway reaches no engine."
DOWN = "Engine two does not run."
UNREADY = "Engine two did not become ready in time."

CASES = (
    Case(
        "GpuHot", {'rig_gpu_thermal_level{gpu="G"}': "0 1"}, "1m", (({"gpu": "G"}, "The GPU is hot."),)
    ),
    Case("GpuHot", {'rig_gpu_thermal_level{gpu="G"}': "1 0"}, "1m"),
    Case("GpuHot", {'rig_gpu_thermal_level{gpu="G"}': "1 2"}, "1m"),
    Case(
        "GpuTooHot",
        {'rig_gpu_thermal_level{gpu="G"}': "1 2"},
        "1m",
        (({"gpu": "G"}, "The GPU is critically hot."),),
    ),
    Case("GpuTooHot", {'rig_gpu_thermal_level{gpu="G"}': "2 1"}, "1m"),
    Case(
        "GpuThrottled",
        {'rig_gpu_throttling{reason="hw_thermal_slowdown"}': "1x10"},
        "5m",
        (({"reason": "hw_thermal_slowdown"}, "The graphics card holds its clocks down (hw_thermal_slowdown)."),),
    ),
    Case("GpuThrottled", {'rig_gpu_throttling{reason="hw_thermal_slowdown"}': "1 1 0 1 1 1 1"}, "6m"),
    Case("GpuThrottled", {'rig_gpu_throttling{reason="sw_power_cap"}': "1x10"}, "10m"),
    Case(
        "GpuXid",
        {'rig_gpu_xid_errors_total{xid="79"}': "_ _ 1"},
        "2m",
        (({"xid": "79"}, "The driver reported Xid 79 of the graphics card."),),
    ),
    Case(
        "GpuXid",
        {'rig_gpu_xid_errors_total{xid="79"}': "1x120 2x10"},
        "125m",
        (({"xid": "79"}, "The driver reported Xid 79 of the graphics card."),),
    ),
    Case("GpuXid", {'rig_gpu_xid_errors_total{xid="79"}': "1x120"}, "70m"),
    Case("GpuXid", {'rig_gpu_xid_errors_total{xid="79"}': "0x120"}, "10m"),
    Case(
        "GpuNotRead", {"rig_gpu_reading_success": "0x10"}, "5m", (({}, "The GPU's sensors cannot be read."),)
    ),
    Case("GpuNotRead", {"rig_gpu_reading_success": "0 0 0 1 0 0 0"}, "6m"),
    engine("EngineDown", up="1 0x10", wanted="1x20", loading="0x20", at="3m", fires=DOWN),
    engine("EngineDown", up="1 0x10", wanted="1x20", loading="0x20", at="2m"),
    engine("EngineDown", up="1x20", wanted="1x20", loading="0x20", at="10m"),
    # Off on purpose: its unit does not start at boot.
    engine("EngineDown", up="0x20", wanted="0x20", loading="0x20", at="15m"),
    engine("EngineDown", up="0x20", wanted="1x20", loading="1x20", at="15m"),
    # It was loading, and then disappeared.
    engine("EngineDown", up="0x20", wanted="1x20", loading="1x5 0x20", at="8m", fires=DOWN),
    # It loads, or crashes again and again, for longer than its health_timeout of 15 minutes.
    engine("EngineNotReady", up="0x30", wanted="1x30", loading="1x30", at="15m", fires=UNREADY),
    engine(
        "EngineNotReady", up="0x30", wanted="1x30", loading="1 0 1 0 1 0 1 0 1 0 1 0 1 0 1 0 1", at="15m", fires=UNREADY
    ),
    engine("EngineNotReady", up="0x13 1 0x20", wanted="1x40", loading="1x40", at="16m"),
    engine("EngineNotReady", up="0x30", wanted="0x30", loading="0x30", at="29m"),
    Case(
        "EngineOnCpu",
        {'rig_engine_on_gpu{engine="two"}': "1 0x10", 'up{job="engine",engine="two"}': "1x20"},
        "6m",
        (({"engine": "two"}, "Engine two computes without the graphics card."),),
    ),
    Case("EngineOnCpu", {'rig_engine_on_gpu{engine="two"}': "1x20", 'up{job="engine",engine="two"}': "1x20"}, "9m"),
    # Stopped, which another alert covers.
    Case("EngineOnCpu", {'rig_engine_on_gpu{engine="two"}': "0x20", 'up{job="engine",engine="two"}': "0x20"}, "9m"),
    Case(
        "QueueGrowing",
        {'llamacpp:requests_deferred{engine="one",job="engine"}': "8+1x10"},
        "6m",
        (({"engine": "one"}, "Requests to one come faster than they are answered; 14 wait."),),
    ),
    Case(
        "QueueGrowing",
        {'vllm:num_requests_waiting{engine="one",job="engine"}': "8+1x10"},
        "6m",
        (({"engine": "one"}, "Requests to one come faster than they are answered; 14 wait."),),
    ),
    # Long, and no longer than before.
    Case("QueueGrowing", {'llamacpp:requests_deferred{engine="one"}': "20x10"}, "9m"),
    # Growing, and short.
    Case("QueueGrowing", {'llamacpp:requests_deferred{engine="one"}': "0+1x7"}, "7m"),
    # 15 GiB left, one less each hour.
    disk("DiskFullInADay", f"{21 * GIB}-{GIB // 60}x360", "6h", "/mnt/models will be full within a day."),
    # So slowly that it takes longer than a day.
    disk("DiskFullInADay", f"{19 * GIB}-{GIB // 240}x360", "6h"),
    # A download, and much left after it.
    disk("DiskFullInADay", f"{90 * GIB}-{GIB // 6}x300", "5h"),
    disk("DiskFullInADay", f"{21 * GIB}-{GIB // 60}x360", "6h", kind="tmpfs"),
    disk("DiskNearlyFull", f"{4 * GIB}x10", "5m", "/mnt/models has 4% left."),
    disk("DiskNearlyFull", f"{4 * GIB}x10", "4m"),
    disk("DiskNearlyFull", f"{6 * GIB}x10", "9m"),
    Case(
        "ModelChanged",
        {'rig_model_changed{model="m"}': "0 1"},
        "1m",
        (({"model": "m"}, "The file of model m changed on the disk."),),
    ),
    Case("ModelChanged", {'rig_model_changed{model="m"}': "1 0"}, "1m"),
    Case(
        "ModelScrubFailed",
        {'node_systemd_unit_state{name="rig-models-scrub.service",state="failed"}': "1"},
        "0m",
        (
            (
                {"name": "rig-models-scrub.service", "state": "failed"},
                "The models could not all be read again and verified.",
            ),
        ),
    ),
    Case("ModelScrubFailed", {'node_systemd_unit_state{name="rig-models-scrub.service",state="failed"}': "0"}, "0m"),
    Case("ModelScrubFailed", {'node_systemd_unit_state{name="rig-models-scrub.service",state="active"}': "1"}, "0m"),
    Case(
        "BackupTooOld",
        {SUCCESS: "0x12000"},
        "192h1m",
        (({}, "No backup has succeeded for 8d 0h 1m 0s."),),
    ),
    Case("BackupTooOld", {SUCCESS: "0x12000"}, "192h"),
    # A day after the last good one, and an hour of grace for problems that pass by themselves.
    Case(
        "BackupFailed",
        {"rig_backup_last_run_success": "1x10 0x1600"},
        "25h30m",
        (({}, "Every backup of the last day found something wrong."),),
    ),
    Case("BackupFailed", {"rig_backup_last_run_success": "1x10 0x1600"}, "25h"),
    Case("BackupFailed", {"rig_backup_last_run_success": "0x1000 1 0x1000"}, "33h"),
    # A running backup has no metric.
    Case(
        "BackupFailed",
        {"rig_backup_last_run_success": "0x100 _x200 0x100"},
        "6h",
        (({}, "Every backup of the last day found something wrong."),),
    ),
    Case(
        "BackupNeverAsked",
        {'up{job="node"}': "1x100"},
        "60m",
        (({}, "Cron has never asked whether a backup is due."),),
    ),
    # A new machine: cron checks within a quarter of an hour, and the file has the machine's time of creation.
    Case("BackupNeverAsked", {'up{job="node"}': "1x100", SUCCESS: "_x15 0x85"}, "99m"),
    # Checked, but long ago: BackupTooOld reports that.
    Case("BackupNeverAsked", {'up{job="node"}': "1x12000", SUCCESS: "0x12000"}, "199h"),
    # The machine's own metrics are unknown: NotMeasured reports that.
    Case("BackupNeverAsked", {'up{job="node"}': "0x100"}, "99m"),
    # Time begins at 0 in these tests: the certificate ends after 14 days and an hour.
    Case(
        "CertificateEnds",
        {'rig_certificate_end_timestamp_seconds{path="/c"}': f"{14 * 86400 + 3600}x100"},
        "61m",
        (({"path": "/c"}, "The certificate /c ends in 13d 23h 59m 0s."),),
    ),
    Case("CertificateEnds", {'rig_certificate_end_timestamp_seconds{path="/c"}': f"{14 * 86400 + 3600}x100"}, "60m"),
    Case(
        "RebootPending",
        {"rig_reboot_pending": "1x1500"},
        "24h",
        (({}, "Updates are installed that only a reboot brings into force."),),
    ),
    Case("RebootPending", {"rig_reboot_pending": "1x1430 0 1x100"}, "24h"),
    Case(
        "GpuModuleMissing",
        {"rig_gpu_module_missing": "1x10"},
        "6m",
        (({}, "The kernel of the next boot has no module for the graphics card."),),
    ),
    Case("GpuModuleMissing", {"rig_gpu_module_missing": "0x10"}, "9m"),
    Case(
        "UnitFailed",
        {'node_systemd_unit_state{name="rig-x.service",state="failed"}': "1x10"},
        "5m",
        (({"name": "rig-x.service", "state": "failed"}, "rig-x.service failed."),),
    ),
    Case("UnitFailed", {'node_systemd_unit_state{name="rig-x.service",state="active"}': "1x10"}, "9m"),
    # Reported by alerts of their own.
    Case("UnitFailed", {'node_systemd_unit_state{name="rig-native@two.service",state="failed"}': "1x10"}, "9m"),
    Case("UnitFailed", {'node_systemd_unit_state{name="rig-models-scrub.service",state="failed"}': "1x10"}, "9m"),
    Case("NotMeasured", {'up{job="node"}': "1 0x10"}, "6m", (({"job": "node"}, "node does not answer Prometheus."),)),
    Case("NotMeasured", {'up{job="node"}': "0 0 1 0 0 0"}, "5m"),
    Case("NotMeasured", {'up{job="engine",engine="two"}': "0x10"}, "9m"),
    # Reported by an alert of its own.
    Case("NotMeasured", {'up{job="gateway"}': "0x10"}, "9m"),
    Case("GatewayDown", {'up{job="gateway"}': "1 0x10"}, "3m", (({"job": "gateway"}, "The gateway does not run."),)),
    Case("GatewayDown", {'up{job="gateway"}': "1 0x10"}, "2m"),
    Case("GatewayDown", {'up{job="gateway"}': "1x10"}, "9m"),
    reached(one="0x20", two="1x5 0x20", wanted="1x30", loading="0x30", at="8m", fires=UNREACHED),
    reached(one="0x20", two="1x5 0x20", wanted="1x30", loading="0x30", at="7m"),
    # The other one answers.
    reached(one="0x20", two="1x20", wanted="1x20", loading="0x20", at="15m"),
    # All are off on purpose.
    reached(one="0x20", two="0x20", wanted="0x20", loading="0x20", at="15m"),
    reached(one="0x20", two="0x20", wanted="1x20", loading="1x20", at="15m"),
    answers("0+6x30", "0+30x30", "20m", "16.67% of the requests to one failed."),
    # Few of many, and few at all.
    answers("0+1x30", "0+30x30", "20m"),
    answers("0x10 4x20", "0x10 1x20", "20m"),
    # Not any more.
    answers("0+6x20 120x60", "0+30x90", "50m"),
    limited("0+1x1600", "1443m", "Client anna has met its limits in every hour of a day."),
    limited("0+1x1400", "23h"),
    # It had some hours of peace.
    limited("0+1x700 700x200 700+1x900", "24h"),
    # Strangers are limited by their addresses.
    limited("0+1x1600", "24h", client="unknown"),
    # With the shipped settings: once a minute each, and scraped every quarter of a minute.
    figures("0+60x3 180x30", "0+60x30", "10m"),
    figures("0+60x3 180x30", "0+60x30", "11m", MACHINE_FILE),
    figures("0+60x30", "0+60x3 180x30", "11m", GPU_FILE),
    figures("0+60x30", "0+60x30", "29m"),
    figures("_x10", "_x10", "5m", MACHINE_FILE, GPU_FILE),
    figures("_x10", "_x10", "4m"),
    figures("0+60x30", "_x30", "29m", settings=UNWATCHED),
    # Once an hour: a single missed run is reported.
    figures("0x59 3600x59 7200x200", "0+60x320", "179m", settings=HOURLY),
    figures("0+60x320", "0x59 3600x59 7200x200", "179m", settings=HOURLY),
    figures("0x59 3600x200", "0x59 3600x200", "185m", settings=HOURLY),
    figures("0x59 3600x200", "0x59 3600x200", "186m", MACHINE_FILE, GPU_FILE, settings=HOURLY),
    # Written once a week: nobody waits for it.
    Case(
        "FiguresTooOld",
        {mtime("/x/rig_backup.prom"): "0x30"}
        | {mtime(file): "0+60x30" for file in (MACHINE_FILE, GPU_FILE, GATEWAY_FILE)},
        "29m",
    ),
    Case(
        "SettingsNotLoaded",
        {'alertmanager_config_last_reload_successful{job="alertmanager"}': "0x10"},
        "5m",
        (({"job": "alertmanager"}, "alertmanager could not load its configuration."),),
    ),
    Case("SettingsNotLoaded", {'prometheus_config_last_reload_successful{job="prometheus"}': "1x10"}, "9m"),
)


def promtool_test(case: Case, alerts: tuple[Alert, ...]) -> dict[str, Any]:
    """One test in promtool's format: all labels and both annotations must be exactly these."""
    alert = next(alert for alert in alerts if alert.name == case.alert)
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in case.figures.items()],
        "alert_rule_test": [
            {
                "eval_time": case.at,
                "alertname": case.alert,
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": alert.severity, **labels},
                        "exp_annotations": {"summary": summary, "description": alert.remedy},
                    }
                    for labels, summary in case.fires
                ],
            }
        ],
    }
