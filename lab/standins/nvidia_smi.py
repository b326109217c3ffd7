#!/usr/bin/python3 -I
"""nvidia-smi for a machine without the card: answers as the real one does, from a state file that a test may change.

State: /var/lib/rig-lab/gpu.json, or the file that $RIG_LAB_GPU names. Everything in it may be left out:

    {
      "driver_version": "595.91.07",        shown by --version, and as a field of every card
      "cuda_version": "13.2",
      "gpus": [{"temperature.gpu": 84}],    fields by their real names, over those of an idle card; null: not supported
      "unknown_fields": ["fan.speed"],      fields that this driver does not have: the real tool refuses such a query
      "apps": [                             processes on the card
        {"pid": 4711, "used_memory": 9000},
        {"comm": "llama-server"}            every process of this machine whose name begins so, with its real PID
      ],
      "fault": "hang",                      see FAULTS; null for none
      "delay": 1.5                          seconds before every answer
    }

Without a file there is one idle card. `"gpus": []` is a machine without one. Write the file beside its place and rename
it, as its readers are not asked to wait. Where the driver's packages stand in, their version is the library's, and the
fault follows from the module that is loaded, unless the file names one. Texts and exit codes are those of the real tool
as its users have posted them (drivers 550 to 595); the plain table and -q are shortened to what programs look for.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

STATE = "/var/lib/rig-lab/gpu.json"
LIBRARY = Path("/usr/lib/rig-lab/driver")
MODULE = Path("/sys/module/nvidia/version")

DRIVER, CUDA = "595.91.07", "13.2"
IDLE: dict[str, Any] = {
    "name": "NVIDIA GeForce RTX 5070 Ti",
    "uuid": "GPU-5c1b6d2e-0f3a-4f7c-9b8e-2d6a41c07e95",
    "pci.bus_id": "00000000:01:00.0",
    "pci.device_id": "0x2C0510DE",
    "vbios_version": "98.03.58.00.01",
    "compute_cap": "12.0",
    "pstate": "P8",
    "persistence_mode": True,
    "compute_mode": "Default",
    "pcie.link.gen.current": 5,
    "pcie.link.width.current": 16,
    "temperature.gpu": 35,
    "temperature.gpu.tlimit": 53,
    "temperature.memory": None,
    "power.draw": 14.2,
    "power.limit": 300,
    "power.default_limit": 300,
    "power.min_limit": 250,
    "power.max_limit": 300,
    "clocks.current.graphics": 210,
    "clocks.current.sm": 210,
    "clocks.current.memory": 405,
    "clocks.max.sm": 3090,
    "clocks.max.memory": 14001,
    "fan.speed": 0,
    "memory.total": 16303,
    "memory.used": 2,
    "memory.free": 15880,
    "memory.reserved": 421,
    "utilization.gpu": 0,
    "utilization.memory": 0,
    "ecc.mode.current": None,
    "retired_pages.pending": None,
    "clocks_event_reasons.gpu_idle": True,
    "clocks_event_reasons.applications_clocks_setting": False,
    "clocks_event_reasons.sw_power_cap": False,
    "clocks_event_reasons.hw_slowdown": False,
    "clocks_event_reasons.sync_boost": False,
    "clocks_event_reasons.sw_thermal_slowdown": False,
    "clocks_event_reasons.hw_thermal_slowdown": False,
    "clocks_event_reasons.hw_power_brake_slowdown": False,
}

ALIASES = {
    "gpu_name": "name",
    "gpu_uuid": "uuid",
    "gpu_bus_id": "pci.bus_id",
    "clocks.gr": "clocks.current.graphics",
    "clocks.sm": "clocks.current.sm",
    "clocks.mem": "clocks.current.memory",
    "clocks.max.mem": "clocks.max.memory",
    "clocks_throttle_reasons.": "clocks_event_reasons.",
    "used_memory": "used_gpu_memory",
}
"""What the real tool understands too; its header shows the name on the right."""

UNITS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "power.": ("W", lambda value: f"{value:.2f}"),
    "clocks.": ("MHz", str),
    "memory.": ("MiB", str),
    "utilization.": ("%", str),
    "fan.speed": ("%", str),
    "used_gpu_memory": ("MiB", str),
}
"""Unit of every field that begins so, and how its number is written."""

GPU_FIELDS = {*IDLE, "index", "count", "driver_version", "clocks_event_reasons.active"}
APP_FIELDS = {"uuid", "pid", "process_name", "used_gpu_memory"}

REASONS = {
    "gpu_idle": 0x1,
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}
"""Bits of clocks_event_reasons.active (nvmlClocksEventReasons of nvml.h)."""

FAULTS: dict[str, tuple[int, str]] = {
    "no-driver": (
        9,
        "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest "
        "NVIDIA driver is installed and running.\n",
    ),
    "no-devices": (6, "No devices were found"),
    "mismatch": (18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 595.91"),
    "blocked": (255, "Failed to initialize NVML: Unknown Error"),
    "lost": (
        15,
        "Unable to determine the device handle for GPU0: 0000:01:00.0: GPU is lost.  Reboot the system to recover this "
        "GPU",
    ),
    "silent": (0, ""),
    "half": (0, "NVIDIA GeForce RTX 5070 Ti, 00000000:01:0"),
    "garbage": (0, "\x00\x1b[2J,,,,\udcff\udcfe, 99999999999999999999, -, [N/A\n\n,"),
    "errors": (0, ""),
    "hang": (0, ""),
}
"""Exit code and text of each fault. `hang` never ends and cannot be ended politely; `errors` answers every field with
[Unknown Error]."""

State = dict[str, Any]


def main(arguments: list[str]) -> int:
    state = read()
    time.sleep(state.get("delay", 0))
    fault = state.get("fault")
    if fault == "hang":
        _hang()
    if fault not in (None, "errors"):
        code, text = FAULTS[fault]
        sys.stdout.buffer.write(f"{text}\n".encode(errors="surrogateescape"))
        return code
    options, given = _options(arguments)
    if given == ["--version"]:
        return _version(state)
    cards = _chosen(state, options)
    if not cards:
        return _say(6, "No devices were found")
    if "--query-gpu" in options:
        return _table(state, options, GPU_FIELDS, options["--query-gpu"], cards)
    if "--query-compute-apps" in options:
        return _table(state, options, APP_FIELDS, options["--query-compute-apps"], _apps(state, cards))
    if "-pl" in options:
        return _limit(state, cards, options["-pl"])
    if "-L" in given:
        return _list(cards)
    if "-q" in given:
        return _details(state, cards, options.get("-d", "MEMORY,TEMPERATURE,POWER").split(","))
    return _summary(state, cards) if not given else _invalid(given[0])


def path() -> Path:
    return Path(os.environ.get("RIG_LAB_GPU", STATE))


def read() -> State:
    """The state, with everything that it leaves out."""
    try:
        state: State = json.loads(path().read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = {}
    _follow_the_driver(state)
    state.setdefault("driver_version", DRIVER)
    state.setdefault("cuda_version", CUDA)
    cards = state.setdefault("gpus", [{}])
    for index, card in enumerate(cards):
        values = {**IDLE, "index": index, "count": len(cards), "driver_version": state["driver_version"], **card}
        bits = sum(bit for name, bit in REASONS.items() if values[f"clocks_event_reasons.{name}"])
        values.setdefault("clocks_event_reasons.active", f"0x{bits:016x}")
        cards[index] = values
    return state


def _follow_the_driver(state: State) -> None:
    """On a machine whose library and module are packages, these say what the driver can answer."""
    if "RIG_LAB_GPU" in os.environ or not LIBRARY.exists():
        return
    library = LIBRARY.read_text().strip()
    state.setdefault("driver_version", library)
    if not MODULE.exists():
        state.setdefault("fault", "no-driver")
    elif MODULE.read_text().strip() != library:
        state.setdefault("fault", "mismatch")


LONG = {"--id": "-i", "--power-limit": "-pl", "--list-gpus": "-L", "--query": "-q", "--display": "-d"}
WITH_VALUE = ("--query-gpu", "--query-compute-apps", "--format", "-i", "-pl", "-d")


def _options(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options that have a value, and the others."""
    options, given, rest = {}, [], list(arguments)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        word = LONG.get(word, word)
        if word in WITH_VALUE:
            options[word] = value if equals or not rest else rest.pop(0)
        else:
            given.append(word)
    return options, given


def _chosen(state: State, options: dict[str, str]) -> list[State]:
    """The cards that -i asks for, by index, UUID or bus."""
    wanted = options.get("-i")
    if wanted is None:
        return list(state["gpus"])
    return [
        card
        for card in state["gpus"]
        if wanted in (str(card["index"]), card["uuid"]) or card["pci.bus_id"].endswith(wanted.upper())
    ]


def _canonical(field: str) -> str:
    for alias, name in ALIASES.items():
        if field == alias or (alias.endswith(".") and field.startswith(alias)):
            return name + field.removeprefix(alias)
    return field


def _table(state: State, options: dict[str, str], known: set[str], query: str, rows: list[State]) -> int:
    """--query-...: a line for each row, in the order of the asked fields."""
    form = options.get("--format", "").split(",")
    if form[0] != "csv":
        return _say(2, '"--format=" option is missing or is not valid. Please run \'nvidia-smi -h\' for help.')
    fields = [_canonical(field.strip()) for field in query.split(",")]
    for field, asked in zip(fields, query.split(","), strict=True):
        if field not in known or field in state.get("unknown_fields", []):
            return _say(2, f'Field "{asked.strip()}" is not a valid field to query.\n')
    if "noheader" not in form:
        print(", ".join(f"{field} [{_unit(field)[0]}]" if _unit(field)[0] else field for field in fields))
    for row in rows:
        values = [
            "[Unknown Error]" if state.get("fault") == "errors" else _value(field, row.get(field), "nounits" in form)
            for field in fields
        ]
        print(", ".join(values))
    return 0


def _unit(field: str) -> tuple[str, Callable[[Any], str]]:
    return next((unit for start, unit in UNITS.items() if field.startswith(start)), ("", str))


def _value(field: str, value: Any, bare: bool) -> str:
    if value is None:
        # The one field that the real tool writes without brackets.
        return "N/A" if field == "temperature.memory" else "[N/A]"
    if isinstance(value, bool):
        words = ("Enabled", "Disabled") if field == "persistence_mode" else ("Active", "Not Active")
        return words[0] if value else words[1]
    if isinstance(value, str):
        return value
    unit, write = _unit(field)
    return write(value) if bare or not unit else f"{write(value)} {unit}"


def _apps(state: State, cards: list[State]) -> list[State]:
    """Each process on the chosen cards; it is on the first one unless it says otherwise."""
    rows: list[State] = []
    for app in state.get("apps", []):
        card = app.get("gpu_uuid", state["gpus"][0]["uuid"])
        if card in [chosen["uuid"] for chosen in cards]:
            name, used = app.get("process_name", app.get("comm", "[Not Found]")), app.get("used_memory", 512)
            rows += [
                {"uuid": card, "pid": pid, "process_name": name, "used_gpu_memory": used}
                for pid in ([app["pid"]] if "pid" in app else _running(app["comm"]))
            ]
    return rows


def _running(name: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().startswith(name[:15]):
                found.append(int(entry.name))
        except OSError:
            continue
    return sorted(found)


def _limit(state: State, cards: list[State], text: str) -> int:
    """-pl: what is changed stands in the state file afterwards."""
    try:
        watts = float(text)
    except ValueError:
        return _say(2, f"Invalid power limit: {text}")
    for card in cards:
        bus = card["pci.bus_id"]
        if card["power.limit"] is None:
            print(f"Changing power management limit is not supported for GPU: {bus}.")
            print("Treating as warning and moving on.")
            continue
        if os.geteuid() != 0:
            print(f"Failed to set power management limit for GPU {bus}: Insufficient Permissions")
            return _say(4, "Terminating early due to previous errors.")
        low, high = card["power.min_limit"], card["power.max_limit"]
        if not low <= watts <= high:
            print(
                f"Provided power limit {watts:.2f} W is not a valid power limit which should be between {low:.2f} W "
                f"and {high:.2f} W for GPU {bus}"
            )
            return _say(2, "Terminating early due to previous errors.")
        _change(card["index"], "power.limit", watts)
        print(f"Power limit for GPU {bus} was set to {watts:.2f} W from {card['power.limit']:.2f} W.")
    return _say(0, "All done.")


def _change(index: int, field: str, value: Any) -> None:
    place = path()
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        state: State = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
        state.setdefault("gpus", [{}])[index][field] = value
        new = place.with_name(f".{place.name}.new")
        new.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        new.chmod(0o644)
        new.rename(place)
    finally:
        os.close(folder)


def _list(cards: list[State]) -> int:
    for card in cards:
        print(f"GPU {card['index']}: {card['name']} (UUID: {card['uuid']})")
    return 0


SECTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "MEMORY": ("FB Memory Usage", {"Total": "memory.total", "Reserved": "memory.reserved", "Used": "memory.used"}),
    "TEMPERATURE": (
        "Temperature",
        {"GPU Current Temp": "temperature.gpu", "GPU T.Limit Temp": "temperature.gpu.tlimit"},
    ),
    "POWER": (
        "GPU Power Readings",
        {"Current Power Limit": "power.limit", "Default Power Limit": "power.default_limit"},
    ),
}


def _details(state: State, cards: list[State], named: list[str]) -> int:
    sections = [name.strip().upper() for name in named]
    for name in sections:
        if name not in SECTIONS:
            return _say(2, f"Invalid display type: {name}")
    print("\n==============NVSMI LOG==============\n")
    print(f"{'Timestamp':<55}: {time.strftime('%a %b %e %H:%M:%S %Y')}")
    print(f"{'Driver Version':<55}: {state['driver_version']}")
    print(f"{'CUDA Version':<55}: {state['cuda_version']}\n")
    print(f"{'Attached GPUs':<55}: {len(state['gpus'])}")
    for card in cards:
        print(f"GPU {card['pci.bus_id']}")
        for section in sections:
            title, rows = SECTIONS[section]
            print(f"    {title}")
            for label, field in rows.items():
                value = "N/A" if card[field] is None else _value(field, card[field], bare=False)
                print(f"        {label:<47}: {value}{' C' if field.startswith('temp') and value != 'N/A' else ''}")
            if section == "MEMORY":
                # As large as the card's memory where Resizable BAR is on, else 256 MiB.
                print(f"    BAR1 Memory Usage\n        {'Total':<47}: {card.get('bar1.total', 16384)} MiB")
    print()
    return 0


def _summary(state: State, cards: list[State]) -> int:
    driver, cuda = state["driver_version"], state["cuda_version"]
    print(time.strftime("%a %b %e %H:%M:%S %Y       "))
    print(f"+{'-' * 89}+")
    print(f"| NVIDIA-SMI {driver:<22} Driver Version: {driver:<14} CUDA Version: {cuda:<8} |")
    print(f"|{'-' * 41}+{'-' * 24}+{'-' * 22}+")
    print("| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |")
    print("| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |")
    print(f"|{'=' * 41}+{'=' * 24}+{'=' * 22}|")
    for card in cards:
        on = "On" if card["persistence_mode"] else "Off"
        print(f"| {card['index']:>3}  {card['name'][:28]:<29} {on:>4} | {card['pci.bus_id']:>18} Off |{'N/A':>21} |")
        cells = {
            field: "N/A" if card[field] is None else f"{card[field]:.0f}"
            for field in ("fan.speed", "temperature.gpu", "power.draw", "power.limit", "utilization.gpu")
        }
        heat = f"{cells['fan.speed']:>3}% {cells['temperature.gpu']:>4}C    {card['pstate']:<12}"
        power = f"{cells['power.draw']:>4}W / {cells['power.limit']:>4}W"
        memory = f"{card['memory.used']:>6}MiB / {card['memory.total']:>6}MiB"
        print(f"| {heat}{power:>15} | {memory:>22} |{cells['utilization.gpu']:>7}%      Default |")
    print(f"+{'-' * 41}+{'-' * 24}+{'-' * 22}+")
    return 0


def _version(state: State) -> int:
    driver = state["driver_version"]
    print(f"NVIDIA-SMI version  : {driver}\nNVML version        : {'.'.join(driver.split('.')[:2])}")
    print(f"DRIVER version      : {driver}\nCUDA Version        : {state['cuda_version']}")
    return 0


def _hang() -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        time.sleep(3600)


def _invalid(word: str) -> int:
    return _say(2, f"Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.\n{word}")


def _say(code: int, text: str) -> int:
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
