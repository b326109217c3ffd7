"""Cost of the gateway: added latency, processor time and memory for a request, against the engine itself.

The real HAProxy runs on loopback with the configuration of the settings (tests/gateway), before an engine that follows
a script, in a process of its own. One client sends one request after the other, in turn to the engine and through the
gateway, each on a new connection: with the same load on the machine for both. Processor time is the gateway's own, by
/proc/PID/stat; resident memory is read at the beginning and at the end.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.gateway.door import CHAT, Door, free_ports
from tests.gateway.scripted import Engine
from tests.unit.sample import settings

BODY = json.dumps({"messages": [{"role": "user", "content": "x" * 2000}], "model": "llama-3.3-70b-q4"})
AIMS = {"p50_ms": 0.3, "cpu_ms": 0.1}
"""Milliseconds that the gateway may add to a request: of its time, at the median, and of the processor's."""
WARM = 200
"""Requests before the measurement."""


def measure(count: int) -> dict[str, Any]:
    """All figures; times in milliseconds, memory in KiB."""
    ports, child = multiprocessing.Pipe()
    serving = multiprocessing.Process(target=_serve, args=(child,), daemon=True)
    serving.start()
    engine = ports.recv()
    port, metrics = free_ports(2)
    changes = {"gateway/port": port, "gateway/metrics/port": metrics, "engines/one/port": engine}
    gate = Door(Path(tempfile.mkdtemp(prefix="rig-gw-")), settings(changes))
    try:
        gate.start()
        key = gate.key("benchmark")
        # Without waiting between requests; the arithmetic of the limit is done all the same.
        gate.keys = {digest: f"benchmark|0|0|500|0|0|{record.split('|')[6]}" for digest, record in gate.keys.items()}
        gate.load_keys()
        for _ in range(WARM):
            _ask(port, key)
        worker = next(line.split()[1] for line in gate.tell("show info").splitlines() if line.startswith("Pid:"))
        before, memory = _cpu(worker), _rss(worker)
        direct, through = [], []
        for _ in range(count):
            direct.append(_ask(engine, key))
            through.append(_ask(port, key))
        return {
            "requests": count,
            "direct_ms": _spread(direct),
            "through_ms": _spread(through),
            "added_ms": {name: _spread(through)[name] - _spread(direct)[name] for name in ("p50", "p99")},
            "cpu_ms": (_cpu(worker) - before) * 1000 / count,
            "rss_kib": {"begin": memory, "end": _rss(worker)},
        }
    finally:
        gate.stop()
        serving.kill()
        shutil.rmtree(gate.folder, ignore_errors=True)


def _serve(ports: Connection) -> None:
    engine = Engine("one")
    engine.start()
    ports.send(engine.port)
    # Until it is killed.
    threading.Event().wait()


def _ask(port: int, key: str) -> float:
    """Milliseconds of one request."""
    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", CHAT, BODY, {"Authorization": f"Bearer {key}"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"benchmark: a request got {answer.status}")
    return (time.perf_counter() - begin) * 1000


def _spread(times: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(times, n=100)
    return {"p50": cuts[49], "p99": cuts[98]}


def _cpu(pid: str) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss(pid: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


def main() -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000, help="requests to either, 5000 by default")
    found = measure(parser.parse_args().requests)
    found["aims"] = AIMS
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
