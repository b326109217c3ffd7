"""The stand-in for nvidia-smi answers in the forms of the real one, as seen with drivers 550 to 595."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.project import ROOT
from tests.unit.sample import needs_root

PROGRAM = ROOT / "lab" / "standins" / "nvidia-smi"
BUS = "00000000:01:00.0"


class Smi:
    """The program, and the state behind its answers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def state(self, **state: Any) -> None:
        self.path.write_text(json.dumps(state))

    def __call__(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [PROGRAM, *arguments],
            env={**os.environ, "RIG_LAB_GPU": str(self.path)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
        )
        assert done.stderr == ""
        return done.returncode, done.stdout

    def ask(self, query: str, form: str = "csv,noheader,nounits") -> str:
        code, text = self(f"--query-gpu={query}", f"--format={form}")
        assert code == 0, text
        return text.rstrip("\n")


@pytest.fixture
def smi(tmp_path: Path) -> Smi:
    return Smi(tmp_path / "gpu.json")


def test_without_a_state_there_is_one_idle_card(smi: Smi) -> None:
    assert smi.ask("name,pstate,clocks_event_reasons.active") == "NVIDIA GeForce RTX 5070 Ti, P8, 0x0000000000000001"


def test_the_header_has_the_full_name_and_the_unit_of_a_field(smi: Smi) -> None:
    smi.state(gpus=[{"temperature.gpu": 84, "power.draw": 251.337}])
    code, text = smi("--query-gpu=temperature.gpu,power.draw,clocks.sm,memory.total,fan.speed", "--format=csv")
    assert (code, text.splitlines()) == (
        0,
        [
            "temperature.gpu, power.draw [W], clocks.current.sm [MHz], memory.total [MiB], fan.speed [%]",
            "84, 251.34 W, 210 MHz, 16303 MiB, 0 %",
        ],
    )


def test_units_and_header_can_be_left_out(smi: Smi) -> None:
    assert smi.ask("power.draw,memory.used") == "14.20, 2"
    assert smi.ask("power.draw,memory.used", "csv,noheader") == "14.20 W, 2 MiB"


def test_what_a_card_does_not_report_is_not_available(smi: Smi) -> None:
    smi.state(gpus=[{"temperature.gpu.tlimit": None, "fan.speed": "[Not Supported]"}])
    assert smi.ask("temperature.gpu.tlimit,temperature.memory,fan.speed") == "[N/A], N/A, [Not Supported]"


@pytest.mark.parametrize("field", ["cuda_version", "fan.speed"])
def test_a_field_that_the_driver_does_not_have_refuses_the_whole_query(smi: Smi, field: str) -> None:
    smi.state(unknown_fields=["fan.speed"])
    assert smi(f"--query-gpu=name,{field}", "--format=csv") == (
        2, f'Field "{field}" is not a valid field to query.\n\n'
    )  # fmt: skip


def test_reasons_are_told_in_words_and_as_bits_under_both_names(smi: Smi) -> None:
    smi.state(gpus=[{"clocks_event_reasons.gpu_idle": False, "clocks_event_reasons.hw_thermal_slowdown": True}])
    old = "clocks_throttle_reasons"
    found = smi.ask(f"clocks_event_reasons.hw_thermal_slowdown,{old}.sw_power_cap,{old}.active")
    assert found == "Active, Not Active, 0x0000000000000040"


def test_every_card_has_a_line_and_can_be_asked_alone(smi: Smi) -> None:
    smi.state(gpus=[{}, {"uuid": "GPU-2", "pci.bus_id": "00000000:02:00.0", "temperature.gpu": 50}])
    assert smi.ask("index,temperature.gpu,count") == "0, 35, 2\n1, 50, 2"
    for name in ("1", "GPU-2", "02:00.0"):
        assert smi("-i", name, "--query-gpu=index", "--format=csv,noheader") == (0, "1\n")
    assert smi("-i", "7", "-L")[0] == 6


def test_processes_on_the_card_are_listed_by_pid_or_by_name(smi: Smi) -> None:
    own = Path("/proc/self/comm").read_text().strip()
    smi.state(apps=[{"pid": 4711, "process_name": "vllm", "used_memory": 9000}, {"comm": own}])
    code, text = smi("--query-compute-apps=pid,process_name,used_memory", "--format=csv,nounits")
    lines = text.splitlines()
    assert (code, lines[:2]) == (0, ["pid, process_name, used_gpu_memory [MiB]", "4711, vllm, 9000"])
    assert f"{os.getpid()}, {own}, 512" in lines
    smi.state()
    assert smi("--query-compute-apps=pid", "--format=csv,noheader") == (0, "")


@needs_root
def test_a_power_limit_that_is_set_is_the_one_that_is_reported(smi: Smi) -> None:
    smi.state(gpus=[{"temperature.gpu": 90}], driver_version="590.1")
    assert smi("-pl", "260") == (
        0, f"Power limit for GPU {BUS} was set to 260.00 W from 300.00 W.\nAll done.\n"
    )  # fmt: skip
    assert smi.ask("power.limit,power.default_limit,temperature.gpu,driver_version") == "260.00, 300.00, 90, 590.1"


@needs_root
@pytest.mark.parametrize("watts", ["249", "301"])
def test_a_power_limit_out_of_range_is_refused(smi: Smi, watts: str) -> None:
    code, text = smi(f"--power-limit={watts}")
    assert (code, text.splitlines()) == (
        2,
        [
            f"Provided power limit {watts}.00 W is not a valid power limit which should be between 250.00 W "
            f"and 300.00 W for GPU {BUS}",
            "Terminating early due to previous errors.",
        ],
    )
    assert smi.ask("power.limit") == "300.00"


@needs_root
def test_a_power_limit_is_roots_alone_to_set(smi: Smi) -> None:
    # As nobody cannot look into the checkout, the program comes to it by its standard input.
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-I", "-", "-pl", "260"],
        input=PROGRAM.read_text(),
        env={"RIG_LAB_GPU": "/nonexistent/gpu.json", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        4,
        f"Failed to set power management limit for GPU {BUS}: Insufficient Permissions",
    )


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("no-driver", 9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."),
        ("no-devices", 6, "No devices were found"),
        ("mismatch", 18, "Failed to initialize NVML: Driver/library version mismatch"),
        ("lost", 15, "GPU is lost"),
        ("silent", 0, ""),
    ],
)
def test_a_fault_is_told_in_the_words_and_with_the_exit_code_of_the_real_one(
    smi: Smi, fault: str, code: int, text: str
) -> None:
    smi.state(fault=fault)
    found = smi("--query-gpu=name", "--format=csv")
    assert found[0] == code
    assert text in found[1]
    assert smi()[0] == code


def test_no_card_is_no_error_of_the_driver(smi: Smi) -> None:
    smi.state(gpus=[])
    assert smi("--query-gpu=name", "--format=csv") == (6, "No devices were found\n")


def test_one_that_hangs_does_not_end_when_it_is_asked_to(smi: Smi) -> None:
    smi.state(fault="hang")
    with subprocess.Popen([PROGRAM], env={"RIG_LAB_GPU": str(smi.path)}) as hanging:
        caught, end = "", time.monotonic() + 20
        while not int(caught or "0", 16) & 1 << 14 and time.monotonic() < end:
            status = Path(f"/proc/{hanging.pid}/status").read_text()
            caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn"))
        hanging.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            hanging.wait(0.2)
        hanging.kill()


def test_the_other_forms_name_card_driver_and_sizes(smi: Smi) -> None:
    assert smi("-L") == (0, "GPU 0: NVIDIA GeForce RTX 5070 Ti (UUID: GPU-5c1b6d2e-0f3a-4f7c-9b8e-2d6a41c07e95)\n")
    assert "Driver Version: 595.91.07" in smi()[1]
    smi.state(gpus=[{"bar1.total": 256}])
    details = [line.split(":", 1) for line in smi("-q", "-d", "MEMORY")[1].splitlines() if ":" in line]
    assert {value.strip() for label, value in details if label.strip() == "Total"} == {"16303 MiB", "256 MiB"}


def test_it_is_one_file_that_a_machine_can_run() -> None:
    assert os.access(PROGRAM, os.X_OK)
    assert PROGRAM.read_text().startswith("#!/usr/bin/python3 -I\n")
