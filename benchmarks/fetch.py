"""Cost of rig-models next to comparable programs: curl for the network, sha256sum for hashing.

Everything runs on loopback against the lab's hub; every figure has its reference from the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import requests

from rigd.models import manifest, records, registry
from rigd.models.manifest import File, Limits, Manifest, Model
from rigd.models.records import Stamp

CHECKOUT = Path(__file__).resolve().parents[1]
REVISION = "a" * 40
GIGABIT = 118_000_000
"""Bytes a second that 1 Gbit/s Ethernet carries over TCP."""
AIM_RATE = 0.95
AIM_CHECK = 0.050
VERIFIED = 20
VERIFIED_SIZE = 10**9


class CannotMeasure(Exception):
    """The measurement lacks a condition; the message is shown to the owner."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one command."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Bench:
    """A hub with one file of random bytes, and a destination folder."""

    root: Path
    hub: str
    size: int
    sha256: str

    @property
    def whole(self) -> Manifest:
        model = Model("big", "made/up", REVISION, (File("big.bin", self.size, self.sha256),), ("engine",))
        return Manifest(self.hub, str(self.root / "models"), str(self.root / "records"), (model,), limits=Limits())

    @property
    def part(self) -> Path:
        (model,) = self.whole.models
        return Path(self.whole.folder(model)) / "big.bin.part"

    def manifest(self) -> Path:
        path = self.root / "models.json"
        path.write_text(manifest.dump(self.whole), encoding="utf-8")
        return path

    def fetch_command(self) -> list[str]:
        return [sys.executable, "-m", "rigd.models", "fetch", "--manifest", str(self.manifest())]

    def clear(self) -> None:
        for folder in ("models", "records"):
            shutil.rmtree(self.root / folder, ignore_errors=True)

    def fetch(self) -> Cost:
        self.clear()
        return cost(self.fetch_command())

    def curl(self) -> Cost:
        url = f"{self.hub}/made/up/resolve/{REVISION}/big.bin"
        return cost(["curl", "--fail", "--silent", "--location", "--output", str(self.root / "curled"), url])

    def sync_and_hash(self) -> Cost:
        curled = shlex.quote(str(self.root / "curled"))
        return cost(["sh", "-c", f"sync {curled} && sha256sum {curled} && rm {curled}"])

    def sha256sum(self) -> Cost:
        return cost(["sha256sum", str(self.root / "big.bin")])

    def fault(self, **fault: Any) -> None:
        requests.post(f"{self.hub}/admin/faults", json=fault, timeout=5).raise_for_status()

    def reset(self) -> None:
        requests.post(f"{self.hub}/admin/reset", timeout=5).raise_for_status()

    def sent(self) -> int:
        """Bytes that the hub sent since its reset, once it has stopped sending."""
        before = -1
        while before != (now := self._sent()):
            before = now
            time.sleep(0.2)
        return now

    def _sent(self) -> int:
        counters = requests.get(f"{self.hub}/admin/counters", timeout=5).json()
        return int(counters.get("big.bin", {"bytes": 0})["bytes"])


def cost(command: list[str]) -> Cost:
    """Wall and processor seconds of a command that must succeed."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise CannotMeasure(f"'{command[0]}' ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return Cost(wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


@contextmanager
def bench(size: int) -> Iterator[Bench]:
    """The hub in a process of its own, so that it does not share an interpreter with the measured code."""
    with tempfile.TemporaryDirectory(prefix="rig-fetch-") as folder, socket.socket() as free:
        root = Path(folder)
        source = root / "big.bin"
        with source.open("wb") as file:
            for _ in range(size >> 20):
                file.write(os.urandom(1 << 20))
        with source.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        published = ["--publish", "made/up", REVISION, "big.bin", str(source)]
        command = [sys.executable, "-m", "lab.hub", "--address", "127.0.0.1", "--port", str(port), *published]
        with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.DEVNULL) as hub:
            try:
                made = Bench(root, f"http://127.0.0.1:{port}", source.stat().st_size, digest)
                _until(lambda: _answers(made), "the hub did not start")
                yield made
            finally:
                hub.terminate()


def _answers(made: Bench) -> bool:
    try:
        made.reset()
    except requests.RequestException:
        return False
    return True


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        if time.monotonic() > end:
            raise CannotMeasure(otherwise)
        time.sleep(0.005)


def rate(made: Bench, turns: int, limit: int | None) -> dict[str, float]:
    """Bytes a second, in turns; `limit`: the hub's rate, None for no limit.

    curl neither hashes nor waits for the disk; the third figure is of a curl whose file is then synced and hashed.
    """
    fetched, curled, completed = [], [], []
    for _ in range(turns):
        if limit is not None:
            made.fault(bytes_per_second=limit)
        curled.append(made.curl())
        completed.append(Cost(curled[-1].wall + made.sync_and_hash().wall, 0))
        fetched.append(made.fetch())
        made.reset()
    ours, theirs, same = (median(cost.wall for cost in costs) for costs in (fetched, curled, completed))
    return {
        "fetch_bytes_per_second": round(made.size / ours),
        "curl_bytes_per_second": round(made.size / theirs),
        "curl_sync_sha256sum_bytes_per_second": round(made.size / same),
        "ratio_to_curl": round(theirs / ours, 3),
        "ratio_to_curl_sync_sha256sum": round(same / ours, 3),
        "fetch_cpu_seconds": round(median(cost.cpu for cost in fetched), 2),
    }


def hashing(made: Bench, turns: int, fetch_cpu: float) -> dict[str, float]:
    """Processor time of a fetch next to hashing alone."""
    alone = median(made.sha256sum().cpu for _ in range(turns))
    return {
        "fetch_cpu_seconds": fetch_cpu,
        "sha256sum_cpu_seconds": round(alone, 2),
        "ratio": round(fetch_cpu / alone, 2),
    }


def constant_time(turns: int) -> dict[str, float]:
    """The check of 20 verified files of 1 GB: in this process, as a program, and the time to read them instead.

    The files are sparse; the check reads none, so this makes no difference to it, and zeros take as long to hash as
    anything.
    """
    with tempfile.TemporaryDirectory(prefix="rig-check-") as folder:
        root = Path(folder)
        names = [f"model{number}" for number in range(VERIFIED)]
        file = File("x.bin", VERIFIED_SIZE, "0" * 64)
        models = tuple(Model(name, "made/up", REVISION, (file,), ("engine",)) for name in names)
        whole = Manifest("http://127.0.0.1", str(root / "models"), str(root / "records"), models)
        written = records.make(root / "records")
        for model in models:
            final = Path(whole.path(model, file))
            final.parent.mkdir(parents=True)
            final.touch()
            os.truncate(final, VERIFIED_SIZE)
            stamp = Stamp.of(final)
            assert stamp is not None
            written.write(whole, model, file, stamp)
        path = root / "models.json"
        path.write_text(manifest.dump(whole), encoding="utf-8")
        inside = median(_timed(lambda: _all_verified(path)) for _ in range(turns))
        command = [sys.executable, "-m", "rigd.models", "status", "--json", "--manifest", str(path)]
        program = median(cost(command).wall for _ in range(turns))
        nothing = median(cost([sys.executable, "-c", "pass"]).wall for _ in range(turns))
        one = cost(["sha256sum", str(Path(whole.path(models[0], file)))]).wall
    return {
        "check_seconds": round(inside, 4),
        "program_seconds": round(program, 3),
        "empty_python_seconds": round(nothing, 3),
        "sha256sum_of_all_seconds": round(one * VERIFIED, 1),
    }


def _all_verified(path: Path) -> None:
    whole = manifest.parse(path.read_text(encoding="utf-8"))
    found = registry.status(whole, records.Records(Path(whole.records)))
    if not all(model["verified"] for model in found["models"].values()):
        raise CannotMeasure("a file that was just recorded is not verified")


def _timed(what: Callable[[], object]) -> float:
    begin = time.perf_counter()
    what()
    return time.perf_counter() - begin


def refetched(made: Bench) -> dict[str, int]:
    """Bytes that are sent twice if a fetch is killed at 90 %."""
    made.clear()
    made.reset()
    # Slow enough to be killed there.
    made.fault(bytes_per_second=GIGABIT)
    with subprocess.Popen(made.fetch_command(), cwd=CHECKOUT, stderr=subprocess.DEVNULL) as fetcher:
        _until(
            lambda: made.part.exists() and made.part.stat().st_size >= made.size * 9 // 10, "it did not come to 90 %"
        )
        fetcher.send_signal(signal.SIGKILL)
    there, sent = made.part.stat().st_size, made.sent()
    cost(made.fetch_command())
    return {
        "size": made.size,
        "written_when_killed": there,
        "fetched_after_it": made.sent() - sent,
        "written_bytes_fetched_twice": made.sent() - sent - (made.size - there),
        "lost_between_hub_and_disk": sent - there,
    }


def measure(size: int, turns: int, say: Callable[[str], object]) -> dict[str, Any]:
    with bench(size) as made:
        made.curl()
        say("fetch and curl, as fast as the hub sends")
        fast = rate(made, turns, None)
        say("fetch and curl, at 1 Gbit/s")
        gigabit = rate(made, turns, GIGABIT)
        say("hashing alone")
        cpu = hashing(made, turns, fast["fetch_cpu_seconds"])
        say("a kill at 90 %")
        killed = refetched(made)
    say(f"the check of {VERIFIED} verified files")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "size": size,
        "as_fast_as_the_hub_sends": fast,
        "at_1_gbit": gigabit,
        "hashing": cpu,
        "check": constant_time(turns),
        "killed_at_90_percent": killed,
    }


def table(found: dict[str, Any]) -> str:
    cpu, check, killed = found["hashing"], found["check"], found["killed_at_90_percent"]
    lines = [f"{found['size'] / 1e6:.0f} MB over loopback, {found['cores']} cores, load {found['load']}"]
    for name, key in (("as fast as the hub sends", "as_fast_as_the_hub_sends"), ("hub at 1 Gbit/s", "at_1_gbit")):
        each = found[key]
        lines += [
            f"fetch, {name}: {each['fetch_bytes_per_second'] / 1e6:.0f} MB/s",
            f"  curl: {each['curl_bytes_per_second'] / 1e6:.0f} MB/s, ratio {each['ratio_to_curl']:.2f} "
            f"(aim {AIM_RATE})",
            f"  curl, then sync and sha256sum: {each['curl_sync_sha256sum_bytes_per_second'] / 1e6:.0f} MB/s, "
            f"ratio {each['ratio_to_curl_sync_sha256sum']:.2f}",
        ]
    lines += [
        f"processor time of a fetch: {cpu['fetch_cpu_seconds']:.2f} s",
        f"  sha256sum alone: {cpu['sha256sum_cpu_seconds']:.2f} s, ratio {cpu['ratio']:.2f}",
        f"check of {VERIFIED} verified files of 1 GB (sparse): {check['check_seconds'] * 1e3:.1f} ms "
        f"(aim {AIM_CHECK * 1e3:.0f} ms)",
        f"  as a program {check['program_seconds'] * 1e3:.0f} ms, an empty Python "
        f"{check['empty_python_seconds'] * 1e3:.0f} ms; reading them all: {check['sha256sum_of_all_seconds']:.0f} s",
        f"written bytes fetched twice after a kill at 90 % of {killed['size']}: "
        f"{killed['written_bytes_fetched_twice']}",
        f"  on their way from hub to disk when it came: {killed['lost_between_hub_and_disk']}",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fetch", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024, metavar="N", help="size of the file (default: 1024)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="turns (default: 3)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    try:
        found = measure(options.megabytes << 20, options.repeat, lambda line: print(line, file=sys.stderr, flush=True))
    except (CannotMeasure, OSError) as problem:
        print(f"benchmark: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(found, indent=2) if options.json else table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
