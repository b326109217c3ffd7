"""Memory and processor time of the monitoring with everything scraped, next to the container engine, on a lab."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from benchmarks.noop import Environment, environment_of
from lab.machine import Lab, LabFailed, default_directory

PROGRAMS = {
    "prometheus": "prometheus.service",
    "alertmanager": "prometheus-alertmanager.service",
    "node_exporter": "prometheus-node-exporter.service",
    # The reference: it runs on every machine anyway.
    "docker": "docker.service",
    "containerd": "containerd.service",
}
REFERENCE = ("docker", "containerd")


class CannotMeasure(Exception):
    """The measurement lacks a condition; the message is shown to the owner."""


@dataclass(frozen=True)
class Usage:
    """One program during the measurement."""

    memory: float
    """Resident at its end, MiB."""
    processor: float
    """Part of one core, percent."""


@dataclass(frozen=True)
class Report:
    """All results of one run of this command."""

    environment: Environment
    interval: str
    """Between two scrapes of each target."""
    series: int
    """Kept in Prometheus' memory."""
    scraped: int
    """Samples of one round of scrapes, before and after dropping."""
    kept: int
    rules: int
    look_seconds: float
    """One run of rig-metrics."""
    usage: dict[str, Usage]

    @property
    def reference(self) -> float:
        return sum(self.usage[name].memory for name in REFERENCE)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"reference_mib": round(self.reference, 1)}

    def __str__(self) -> str:
        about = self.environment
        lines = [
            f"{about.date}, {about.cores} cores ({about.processor}), load {about.load:.2f}; lab: Debian {about.debian}",
            f"{self.series} series in memory; each {self.interval} {self.scraped} samples are read and "
            f"{self.kept} kept; {self.rules} rules",
            "",
        ]
        lines += [
            f"  {name:<14} {usage.memory:7.1f} MiB   {usage.processor:5.1f} % of a core"
            + ("   (reference)" if name in REFERENCE else "")
            for name, usage in self.usage.items()
        ]
        share = self.usage["prometheus"].memory / self.reference
        return "\n".join(
            [
                *lines,
                "",
                f"Prometheus takes {share:.2f} times the memory of the container engine; "
                f"one look of rig-metrics takes {self.look_seconds:.2f} s",
            ]
        )


def measure(lab: Lab, seconds: float) -> Report:
    """Read processor times twice, `seconds` apart, and everything else at the end."""
    environment = environment_of(lab)
    before = {name: _ticks(lab, unit) for name, unit in PROGRAMS.items()}
    began = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - began
    usage = {
        name: Usage(_resident(lab, unit), (_ticks(lab, unit) - before[name]) / elapsed)
        for name, unit in PROGRAMS.items()
    }
    rules = json.loads(_ask(lab, "rules"))["data"]["groups"]
    config = json.loads(_ask(lab, "status/config"))["data"]["yaml"]
    return Report(
        environment=environment,
        interval=config.partition("scrape_interval: ")[2].split()[0],
        series=int(_value(lab, "prometheus_tsdb_head_series")),
        scraped=int(_value(lab, "sum(scrape_samples_scraped)")),
        kept=int(_value(lab, "sum(scrape_samples_post_metric_relabeling)")),
        rules=sum(len(group["rules"]) for group in rules),
        look_seconds=float(lab.sudo("TIMEFORMAT=%R; time rig-metrics --print >/dev/null").stderr.strip()),
        usage=usage,
    )


def _pid(lab: Lab, unit: str) -> str:
    pid = lab.sudo(f"systemctl show --property=MainPID --value {unit}").stdout.strip()
    if pid in ("", "0"):
        raise CannotMeasure(f"{unit} does not run on the lab; deploy first")
    return pid


def _ticks(lab: Lab, unit: str) -> float:
    """Processor time so far, in hundredths of a second: a second is 100 percent of a core for a second."""
    fields = lab.sudo(f"cat /proc/{_pid(lab, unit)}/stat").stdout.rpartition(")")[2].split()
    return float(fields[11]) + float(fields[12])


def _resident(lab: Lab, unit: str) -> float:
    shown = lab.sudo(f"grep VmRSS /proc/{_pid(lab, unit)}/status").stdout.split()
    return int(shown[1]) / 1024


def _ask(lab: Lab, path: str) -> str:
    return lab.sudo(f"curl --silent --fail --globoff 'http://127.0.0.1:9090/api/v1/{path}'").stdout


def _value(lab: Lab, question: str) -> float:
    found = json.loads(_ask(lab, f"query?query={quote(question)}"))["data"]["result"]
    if not found:
        raise CannotMeasure(f"Prometheus has no answer to '{question}' yet; wait a minute")
    return float(found[0]["value"][1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitoring", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, metavar="N", help="length of it (default: 60)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    try:
        report = measure(Lab.attach(default_directory()), options.seconds)
    except (LabFailed, CannotMeasure) as problem:
        print(f"benchmark: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(report.as_json(), indent=2) if options.json else report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
