"""Cost of watching the GPU: the monitor's processor time a day, next to that of nvidia-smi alone.

A process of its own takes readings one after another, from the lab's stand-in for nvidia-smi and this machine's
journal. The kernel counts its processor time and that of its children (getrusage); the sum is divided by the readings
and multiplied by those of a day. The wake-up for each reading is not counted. The stand-in is a Python program; there
was no real nvidia-smi to measure.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rigd.thermal.config import Config
from rigd.thermal.monitor import Monitor
from rigd.thermal.places import Places

CHECKOUT = Path(__file__).resolve().parents[1]
SMI = CHECKOUT / "lab" / "standins" / "nvidia-smi"
DAY = 86400
AIM = 120.0
"""Seconds a day: a bit more than a thousandth of one core."""


def readings(count: int) -> dict[str, float]:
    """Processor seconds of one reading: the monitor's own, and its child programs'; in this process."""
    with tempfile.TemporaryDirectory(prefix="rig-thermal-") as folder:
        places = Places(Path(folder), Path(folder))
        begin = _used()
        monitor = Monitor(Config(smi=str(SMI)), places, tell=lambda *entry: None)
        # The first reading covers the whole log of this boot, as at a service's start.
        first = monitor.round()
        started = _used()
        if first.failure is not None:
            raise SystemExit(f"benchmark: a reading failed: {first.failure}")
        clock = time.perf_counter()
        for _ in range(count):
            monitor.round()
        wall, ended = time.perf_counter() - clock, _used()
    own, children = ((after - before) / count for before, after in zip(started, ended, strict=True))
    return {
        "start_seconds": sum(started) - sum(begin),
        "own_seconds": own,
        "programs_seconds": children,
        "wall_seconds": wall / count,
    }


def alone(count: int) -> float:
    """Processor seconds of the stand-in for one reading, and nothing around it."""
    words = [str(SMI), "--query-gpu=temperature.gpu", "--format=csv,noheader,nounits"]
    before = _used()
    for _ in range(count):
        subprocess.run(words, check=True, capture_output=True)
    return (_used()[1] - before[1]) / count


def _used() -> tuple[float, float]:
    """Processor seconds of this process, and of its finished children."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def measure(count: int, interval: int) -> dict[str, Any]:
    """Both figures, and the result for a day."""
    words = [sys.executable, "-m", "benchmarks.thermal", "--only-readings", "--readings", str(count)]
    # A process of its own, like the service: with nothing else in its memory.
    done = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    smi = alone(count)
    a_day = DAY / interval
    total = found["own_seconds"] + found["programs_seconds"]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "readings": count,
        "interval": interval,
        **{name: round(value, 5) for name, value in found.items()},
        "nvidia_smi_alone_seconds": round(smi, 5),
        "day_seconds": round(total * a_day, 1),
        "day_without_nvidia_smi_seconds": round((total - smi) * a_day, 1),
        "day_nvidia_smi_alone_seconds": round(smi * a_day, 1),
    }


def table(found: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{found['readings']} readings, {found['cores']} cores, load {found['load']}",
            f"processor time of a reading: {(found['own_seconds'] + found['programs_seconds']) * 1e3:.1f} ms, "
            f"{found['own_seconds'] * 1e3:.1f} ms of it the monitor's own; takes {found['wall_seconds'] * 1e3:.0f} ms",
            f"  one call of the stand-in for nvidia-smi alone: {found['nvidia_smi_alone_seconds'] * 1e3:.1f} ms",
            f"a day, with a reading every {found['interval']} s: {found['day_seconds']:.0f} s (aim {AIM:.0f} s), "
            f"{found['day_seconds'] / DAY * 100:.2f} % of one core",
            f"  the stand-in's part: {found['day_nvidia_smi_alone_seconds']:.0f} s; "
            f"all else: {found['day_without_nvidia_smi_seconds']:.0f} s",
            f"its first reading, with the kernel's log of this boot: {found['start_seconds'] * 1e3:.0f} ms",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.thermal", description=__doc__)
    parser.add_argument("--readings", type=int, default=100, metavar="N", help="how many (default: 100)")
    parser.add_argument("--interval", type=int, default=60, metavar="S", help="seconds between two (default: 60)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--only-readings", action="store_true", help="only the monitor's part, as JSON")
    options = parser.parse_args()
    if options.only_readings:
        print(json.dumps(readings(options.readings)))
        return 0
    found = measure(options.readings, options.interval)
    print(json.dumps(found, indent=2) if options.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
