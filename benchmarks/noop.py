"""Duration of a deploy without changes, next to the minimum possible, in turns on the lab.

The floor is an SSH login and the import of pyinfra: no run of pyinfra can take less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.far import far
from lab.machine import CHECKOUT, NAME, Lab, LabFailed, default_directory, program

AIM_TRIPS = 8
"""Commands over SSH that a deploy without changes may run."""
AIM_FLOORS = 3.0
"""Multiple of the floor that it may take."""
AIM_FAR = 3.0
"""Seconds that it may take over a connection with `FAR` more delay."""
FAR = 0.050
AIM_FILE = 0.002
"""Seconds that each further file may take."""
FILES = 100
"""Number of further files."""

BUSY = 0.5
"""Load average over a minute above which other programs probably affect the figures."""

# A round trip is a line of -vvv that begins with the machine's name and the prompt.
ROUND_TRIP = re.compile(r"^\[[^\]]+\] >>> ", re.MULTILINE)

# pyinfra without the one call that makes the connection fast.
NAGLE = (
    "from rig.operator import connection; connection.tune = lambda host: None; "
    "from pyinfra_cli.main import cli; cli(prog_name='pyinfra')"
)


NOTHING: Mapping[str, str] = {}


class CannotMeasure(Exception):
    """The measurement lacks a condition; the message is shown to the owner."""


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
    """The conditions behind a figure."""

    date: str
    processor: str
    cores: int
    load: float
    """Load average of the preceding minute."""
    debian: str
    python: str
    pyinfra: str
    paramiko: str


@dataclass(frozen=True)
class Report:
    """All results of one run of this command."""

    environment: Environment
    operations: int
    round_trips: int
    deploy: Sample
    login: Sample
    """`ssh rig-lab true` with a connection of its own, like a deploy's."""
    load: Sample
    """The import of pyinfra."""
    floor: Sample
    """Login and import of the same turn: the reference."""
    further: Sample
    """The deploy with `FILES` further unchanged files."""
    far: Sample
    """The deploy over a longer connection."""
    single: Sample | None
    """The deploy with single reads, on request."""
    nagle: Sample | None
    """The deploy without TCP_NODELAY, on request."""

    @property
    def ratio(self) -> float:
        return self.deploy.median / self.floor.median

    @property
    def file(self) -> float:
        """Seconds of one further file."""
        turns = zip(self.further.seconds, self.deploy.seconds, strict=True)
        return statistics.median((more - less) / FILES for more, less in turns)

    @property
    def aims(self) -> list[tuple[str, bool]]:
        return [
            (f"{self.round_trips} commands over SSH (aim {AIM_TRIPS})", self.round_trips <= AIM_TRIPS),
            (f"{self.ratio:.1f} times the floor (aim {AIM_FLOORS:.0f})", self.ratio <= AIM_FLOORS),
            (
                f"{self.far.median:.2f} s with {FAR * 1e3:.0f} ms added to each round trip (aim {AIM_FAR:.0f} s)",
                self.far.median < AIM_FAR,
            ),
            (f"{self.file * 1e3:.1f} ms for each further file (aim {AIM_FILE * 1e3:.0f} ms)", self.file < AIM_FILE),
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "environment": asdict(self.environment),
            "operations": self.operations,
            "round_trips": self.round_trips,
            "deploy_seconds": self.deploy.as_json(),
            "ssh_login_seconds": self.login.as_json(),
            "import_seconds": self.load.as_json(),
            "floor_seconds": self.floor.as_json(),
            "deploy_with_further_files_seconds": self.further.as_json(),
            "deploy_far_seconds": self.far.as_json(),
            "deploy_one_by_one_seconds": self.single.as_json() if self.single else None,
            "deploy_without_nodelay_seconds": self.nagle.as_json() if self.nagle else None,
            "ratio_to_floor": round(self.ratio, 2),
            "seconds_per_further_file": round(self.file, 5),
            "aims": {text: met for text, met in self.aims},
        }

    def __str__(self) -> str:
        about = self.environment
        lines = [
            f"{about.date}, {about.cores} cores ({about.processor}), load {about.load:.2f}",
            f"lab: Debian {about.debian}; Python {about.python}, pyinfra {about.pyinfra}, paramiko {about.paramiko}",
            "",
            f"median and range of {len(self.deploy.seconds)}, in turns",
            f"  deploy without changes          {self.deploy}",
            f"  ssh {NAME} true, own login     {self.login}",
            f"  import of pyinfra               {self.load}",
            f"  both: the floor                 {self.floor}   (the reference)",
            f"  deploy with {FILES} further files    {self.further}",
            f"  deploy, {FAR * 1e3:.0f} ms further away      {self.far}",
        ]
        if self.single:
            lines.append(f"  deploy that reads one by one    {self.single}")
        if self.nagle:
            lines.append(f"  deploy without TCP_NODELAY      {self.nagle}")
        verdicts = [f"  {'met' if met else 'MISSED'}: {text}" for text, met in self.aims]
        return "\n".join([*lines, "", f"{self.operations} operations", *verdicts])


class Bench:
    """The measured commands, all against one lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.environment = {key: value for key, value in lab.environment().items() if not key.startswith("PYINFRA_")}

    def deploy(self, **environ: str) -> dict[str, Any]:
        return self._pyinfra(str(program("pyinfra")), "-y", "--json", environ=environ)

    def further(self) -> dict[str, Any]:
        return self._pyinfra(
            str(program("pyinfra")), "benchmarks/further.py", "-y", "--json", environ={"RIG_FURTHER": str(FILES)}
        )

    def load(self) -> None:
        self._run([sys.executable, "-c", "from pyinfra_cli.main import cli"])

    def deploy_with_nagle(self) -> dict[str, Any]:
        return self._pyinfra(sys.executable, "-y", "--json", before=["-c", NAGLE])

    def login(self) -> None:
        self._ssh("-o", "ControlMaster=no", "-o", "ControlPath=none")

    def require_converged(self) -> None:
        """Raise CannotMeasure unless a deploy would change nothing; the check itself changes nothing."""
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

    def _pyinfra(
        self, executable: str, *options: str, before: list[str] | None = None, environ: Mapping[str, str] = NOTHING
    ) -> dict[str, Any]:
        done = self._run([executable, *(before or []), "inventory.py", "deploy.py", *options], environ)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _ssh(self, *options: str) -> None:
        self._run(["ssh", "-F", str(self.lab.ssh_config), *options, NAME, "true"])

    def _run(self, command: list[str], environ: Mapping[str, str] = NOTHING) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env={**self.environment, **environ},
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


def measure(lab: Lab, repeat: int, single: bool, nagle: bool, say: Callable[[str], object]) -> Report:
    """Time each command `repeat` times, in turns, so that a slow moment of this machine affects all of them."""
    environment = environment_of(lab)
    if environment.load > BUSY:
        say(f"the load of this machine is {environment.load:.2f}: the figures will be too high; better wait")
    bench = Bench(lab)
    say("is the lab converged?")
    bench.require_converged()
    round_trips = bench.round_trips()
    operations = 0
    times: dict[str, list[float]] = {}

    def unchanged(what: Callable[[], dict[str, Any]]) -> None:
        nonlocal operations
        totals = what()["results"]["totals"]
        if totals["no_change"] != totals["hosts"]:
            raise CannotMeasure("a run changed something; somebody else is at work on this lab: measure again")
        operations = operations or totals["hosts"]

    with tempfile.TemporaryDirectory(prefix="rig-far-") as folder, far(lab.directory, Path(folder), FAR):
        what: dict[str, Callable[[], object]] = {
            "deploy": lambda: unchanged(bench.deploy),
            "login": bench.login,
            "load": bench.load,
            "further": lambda: unchanged(bench.further),
            "far": lambda: unchanged(lambda: bench.deploy(RIG_LAB=folder)),
        }
        if single:
            what["single"] = lambda: unchanged(lambda: bench.deploy(RIG_READS="single"))
        if nagle:
            what["nagle"] = lambda: unchanged(bench.deploy_with_nagle)
        for turn in range(1, repeat + 1):
            for name, run in what.items():
                times.setdefault(name, []).append(timed(run))
            say(f"turn {turn} of {repeat}: {times['deploy'][-1]:.2f} s")
    times["floor"] = [login + load for login, load in zip(times["login"], times["load"], strict=True)]
    samples = {name: Sample(tuple(values)) for name, values in times.items()}
    return Report(
        environment=environment,
        operations=operations,
        round_trips=round_trips,
        deploy=samples["deploy"],
        login=samples["login"],
        load=samples["load"],
        floor=samples["floor"],
        further=samples["further"],
        far=samples["far"],
        single=samples.get("single"),
        nagle=samples.get("nagle"),
    )


def environment_of(lab: Lab) -> Environment:
    """The environment of the measurement."""
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
    parser.add_argument("--single", action="store_true", help="measure the deploy that reads one by one, too")
    parser.add_argument("--nagle", action="store_true", help="measure the deploy without TCP_NODELAY, too")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    try:
        lab = Lab.attach(default_directory())
        report = measure(
            lab,
            options.repeat,
            options.single,
            options.nagle,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    except (LabFailed, CannotMeasure) as problem:
        print(f"benchmark: {problem}", file=sys.stderr)
        return 2
    print(json.dumps(report.as_json(), indent=2) if options.json else report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
