"""How long a deploy takes that has nothing to change, next to an SSH login, measured in turns on the lab."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lab.machine import CHECKOUT, NAME, Lab, LabFailed, default_directory, program

AIM = 3.0
"""Seconds that a deploy without changes should stay under."""

BUSY = 0.5
"""Load average over a minute from which other programs are likely to show in the figures."""

# A round trip is a line of -vvv that begins with the machine's name and the prompt.
ROUND_TRIP = re.compile(r"^\[[^\]]+\] >>> ", re.MULTILINE)

# pyinfra, with the one call undone that makes the connection quick.
NAGLE = (
    "from rig.operator import connection; connection.tune = lambda host: None; "
    "from pyinfra_cli.main import cli; cli(prog_name='pyinfra')"
)


class CannotMeasure(Exception):
    """What is missing for a measurement; the message is for a person."""


@dataclass(frozen=True)
class Sample:
    """Wall times of one command, seconds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def as_json(self) -> dict[str, Any]:
        return {
            "median": round(self.median, 3),
            "min": round(min(self.seconds), 3),
            "max": round(max(self.seconds), 3),
            "all": [round(value, 3) for value in self.seconds],
        }

    def __str__(self) -> str:
        return f"{self.median:7.3f} s   {min(self.seconds):.3f} to {max(self.seconds):.3f}"


@dataclass(frozen=True)
class Environment:
    """What a figure depends on."""

    date: str
    processor: str
    cores: int
    load: float
    """Load average of the minute before."""
    debian: str
    python: str
    pyinfra: str
    paramiko: str


@dataclass(frozen=True)
class Report:
    """Everything that one run of this command found."""

    environment: Environment
    operations: int
    round_trips: int
    deploy: Sample
    login: Sample
    """`ssh rig-lab true` with a connection of its own, as a deploy has one: the reference."""
    shared: Sample
    """`ssh rig-lab true` over a connection that is already there."""
    nagle: Sample | None
    """The deploy without TCP_NODELAY, when it was asked for."""

    @property
    def ratio(self) -> float:
        return self.deploy.median / self.login.median

    def as_json(self) -> dict[str, Any]:
        return {
            "environment": asdict(self.environment),
            "operations": self.operations,
            "round_trips": self.round_trips,
            "deploy_seconds": self.deploy.as_json(),
            "ssh_login_seconds": self.login.as_json(),
            "ssh_shared_seconds": self.shared.as_json(),
            "deploy_without_nodelay_seconds": self.nagle.as_json() if self.nagle else None,
            "ratio_to_login": round(self.ratio, 1),
            "aim_seconds": AIM,
        }

    def __str__(self) -> str:
        about = self.environment
        lines = [
            f"{about.date}, {about.cores} cores ({about.processor}), load {about.load:.2f}",
            f"lab: Debian {about.debian}; Python {about.python}, pyinfra {about.pyinfra}, paramiko {about.paramiko}",
            "",
            f"median and range of {len(self.deploy.seconds)}, in turns",
            f"  deploy without changes          {self.deploy}",
            f"  ssh {NAME} true, own login     {self.login}   (the reference)",
            f"  ssh {NAME} true, shared        {self.shared}",
        ]
        if self.nagle:
            lines.append(f"  deploy without TCP_NODELAY      {self.nagle}")
        verdict = "under" if self.deploy.median < AIM else "NOT under"
        return "\n".join(
            [
                *lines,
                "",
                f"{self.operations} operations, {self.round_trips} commands over SSH; "
                f"{self.ratio:.1f} times a login; {verdict} the aim of {AIM:.0f} s",
            ]
        )


class Bench:
    """The commands that are measured, all against one lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.environment = {key: value for key, value in lab.environment().items() if not key.startswith("PYINFRA_")}

    def deploy(self) -> dict[str, Any]:
        return self._pyinfra(str(program("pyinfra")), "-y", "--json")

    def deploy_with_nagle(self) -> dict[str, Any]:
        return self._pyinfra(sys.executable, "-y", "--json", before=["-c", NAGLE])

    def login(self) -> None:
        self._ssh("-o", "ControlMaster=no", "-o", "ControlPath=none")

    def shared(self) -> None:
        self._ssh()

    def require_converged(self) -> None:
        """Raise CannotMeasure unless a deploy would change nothing; nothing is changed to find out."""
        plan = self._pyinfra(str(program("pyinfra")), "--dry", "--json")["plan"]
        changes = [entry["name"] for entry in plan if entry["hosts_with_change"]]
        if changes:
            raise CannotMeasure(
                f"the lab is not converged, a deploy would change {len(changes)} things ('{changes[0]}'); "
                f"deploy first: RIG_LAB={self.lab.directory} pyinfra inventory.py deploy.py -y"
            )

    def round_trips(self) -> int:
        """Commands that a deploy without changes runs on the machine."""
        done = self._run([str(program("pyinfra")), "-vvv", "inventory.py", "deploy.py", "-y"])
        return len(ROUND_TRIP.findall(done.stdout + done.stderr))

    def _pyinfra(self, executable: str, *options: str, before: list[str] | None = None) -> dict[str, Any]:
        done = self._run([executable, *(before or []), "inventory.py", "deploy.py", *options])
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _ssh(self, *options: str) -> None:
        self._run(["ssh", "-F", str(self.lab.ssh_config), *options, NAME, "true"])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise CannotMeasure(f"'{command[0]}' ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}")
        return done


def timed(what: Callable[[], object]) -> float:
    begin = time.perf_counter()
    what()
    return time.perf_counter() - begin


def measure(lab: Lab, repeat: int, nagle: bool, say: Callable[[str], object]) -> Report:
    """Time each command `repeat` times, in turns, so that a slow moment of this machine meets all of them."""
    environment = environment_of(lab)
    if environment.load > BUSY:
        say(f"the load of this machine is {environment.load:.2f}: the figures will be too high; better wait")
    bench = Bench(lab)
    say("is the lab converged?")
    bench.require_converged()
    round_trips = bench.round_trips()
    bench.shared()
    operations = 0
    times: dict[str, list[float]] = {"deploy": [], "login": [], "shared": [], "nagle": []}

    def deploy() -> None:
        nonlocal operations
        totals = bench.deploy()["results"]["totals"]
        if totals["no_change"] != totals["hosts"]:
            raise CannotMeasure("a run changed something; somebody else is at work on this lab: measure again")
        operations = totals["hosts"]

    for turn in range(1, repeat + 1):
        times["deploy"].append(timed(deploy))
        times["login"].append(timed(bench.login))
        times["shared"].append(timed(bench.shared))
        if nagle:
            times["nagle"].append(timed(bench.deploy_with_nagle))
        say(f"turn {turn} of {repeat}: {times['deploy'][-1]:.2f} s")
    samples = {name: Sample(tuple(values)) for name, values in times.items() if values}
    return Report(
        environment=environment,
        operations=operations,
        round_trips=round_trips,
        deploy=samples["deploy"],
        login=samples["login"],
        shared=samples["shared"],
        nagle=samples.get("nagle"),
    )


def environment_of(lab: Lab) -> Environment:
    """Where it was measured."""
    models = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return Environment(
        date=datetime.now(UTC).date().isoformat(),
        processor=models[0] if models else platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        load=os.getloadavg()[0],
        debian=lab.release,
        python=platform.python_version(),
        pyinfra=version("pyinfra"),
        paramiko=version("paramiko"),
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.noop", description=__doc__)
    parser.add_argument("--repeat", type=_positive, default=7, metavar="N", help="turns (default: 7)")
    parser.add_argument("--nagle", action="store_true", help="measure the deploy without TCP_NODELAY, too")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    try:
        lab = Lab.attach(default_directory())
        report = measure(lab, options.repeat, options.nagle, lambda line: print(line, file=sys.stderr, flush=True))
    except (LabFailed, CannotMeasure) as problem:
        print(f"benchmark: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(report.as_json(), indent=2) if options.json else report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
