"""The command line rig-mode."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rigd.base import configuration, files, lock
from rigd.base.command import Programs
from rigd.base.errors import BadInput, Failed
from rigd.gateway import draining
from rigd.gateway.config import SOCKET
from rigd.modes import config, look, switch
from rigd.modes.choice import chosen
from rigd.modes.config import Engine, Modes
from rigd.modes.look import Seen

OK, FAILED, BAD_INPUT = 0, 1, 2

CODES = "Exits with 0 when what is meant to run is healthy, 1 when it is not, 2 on a usage error."
LINE_EVERY = 30.0
"""Seconds between two lines without a terminal."""
LOG_LINES = 10


def main(arguments: list[str] | None = None) -> int:
    """Show or switch; return the exit status."""
    options = _parser().parse_args(arguments)
    # Engines read these files, whatever root's own umask.
    os.umask(0o022)
    try:
        if os.geteuid() != 0:
            raise BadInput("only root may look at engines and their keys; run it with sudo")
        modes = configuration.read(options.config, config.parse)
        if options.engine is None:
            return _show(modes, options.json)
        return _switch(modes, options.engine, options.json)
    except BadInput as error:
        return _failed(error, BAD_INPUT, options.json)
    except Failed as error:
        return _failed(error, FAILED, options.json)
    except OSError as error:
        return _failed(Failed(f"{error.filename or 'the machine'}: {error.strerror}"), FAILED, options.json)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rig-mode",
        description="Show which of the engines that exclude each other runs, or run another one instead. The choice "
        "outlasts a restart of the machine and further deploys.",
        epilog=CODES,
    )
    parser.add_argument("engine", nargs="?", metavar="ENGINE", help="run this one, and go back if it does not serve")
    parser.add_argument("--config", default=config.PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


class Machine:
    """This machine."""

    def __init__(self, keys: str) -> None:
        self._keys = Path(keys)
        self._ask = Programs(look.TIMEOUT)

    def look(self, engine: Engine) -> Seen:
        return look.look(engine, self._keys, self._ask)

    def start(self, engine: Engine) -> None:
        # Intended starts do not count as crashes.
        _run("systemctl", "reset-failed", engine.unit)
        if _run("systemctl", "restart", engine.unit).returncode != 0:
            raise Failed(f"systemd does not start {engine.unit}: {_last_word(engine)}")

    def drain(self, engine: Engine) -> int:
        try:
            # Each time: a reload of the gateway forgets it.
            draining.hold(SOCKET, engine.name)
            return draining.in_progress(SOCKET, engine.name)
        except Failed:
            # There is no gateway, or it does not answer: nobody comes through it.
            return 0

    def readmit(self, engine: Engine) -> None:
        """Let requests through to it again."""
        with suppress(Failed):
            draining.release(SOCKET, engine.name)

    def stop(self, engine: Engine) -> None:
        _run("systemctl", "stop", engine.unit)
        if engine.container is not None:
            # Docker itself may have started the container, without its unit.
            _run("docker", "stop", engine.container)

    def enable(self, engine: Engine) -> None:
        done = _run("systemctl", "enable", engine.unit)
        if done.returncode != 0:
            raise Failed(f"{engine.unit} cannot be made to start at boot: {done.stderr.strip()}")

    def disable(self, engine: Engine) -> None:
        _run("systemctl", "disable", engine.unit)

    def keep(self, engine: Engine) -> None:
        record = Path(engine.record)
        try:
            record.parent.mkdir(parents=True, exist_ok=True)
            files.replace(record, engine.definition)
        except OSError as error:
            raise Failed(f"{record} cannot be written: {error.strerror}") from None

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _last_word(engine: Engine) -> str:
    lines = _run("journalctl", "--no-pager", "--output=cat", "--lines=1", f"--unit={engine.unit}").stdout.splitlines()
    return lines[-1] if lines else f"systemctl status {engine.unit} tells more"


def _show(modes: Modes, as_json: bool) -> int:
    machine = Machine(modes.keys)
    found: dict[str, Any] = {}
    lines, right = [], True
    for name, group in modes.groups.items():
        seen = {engine.name: machine.look(engine) for engine in group}
        choice = chosen({engine: state.unit for engine, state in seen.items()})
        right = right and seen[choice].trouble is None
        lines.append(f"{name}:")
        width = max(map(len, seen))
        for engine in group:
            state = seen[engine.name]
            verdict = "healthy" if state.trouble is None else state.trouble
            mark = "*" if engine.name == choice else " "
            lines.append(f"  {mark} {engine.name:<{width}}  {engine.address}:{engine.port}  {verdict}")
        engines = {
            engine.name: {
                "address": f"{engine.address}:{engine.port}",
                "model": engine.model,
                "running": seen[engine.name].running,
                "enabled": seen[engine.name].unit.enabled,
                "healthy": seen[engine.name].trouble is None,
                "trouble": seen[engine.name].trouble,
            }
            for engine in group
        }
        found[name] = {"chosen": choice, "engines": engines}
    if as_json:
        print(json.dumps({"ok": right, "groups": found}, indent=2))
    else:
        print("\n".join(lines) or config.NONE)
    return OK if right else FAILED


def _switch(modes: Modes, name: str, as_json: bool) -> int:
    group = modes.group_of(name)
    folder = Path(config.LOCK)
    folder.mkdir(mode=0o755, exist_ok=True)
    with lock.held(folder, wait=False, program="rig-mode", look="wait until it is done"):
        # Without this, a lost terminal would leave a switch half done.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        teller, machine = _Teller(), Machine(modes.keys)
        try:
            changed = switch.switch(machine, group, name, teller.tell)
        except Failed:
            (wanted,) = (engine for engine in group if engine.name == name)
            teller.say(f"the last lines of {name}:")
            for line in _log(wanted):
                teller.say(f"  {line}")
            raise
        finally:
            for engine in group:
                machine.readmit(engine)
    said = f"{name} runs and is healthy" if changed else f"{name} runs already, and is healthy"
    print(json.dumps({"ok": True, "chosen": name, "changed": changed}, indent=2) if as_json else said)
    return OK


def _log(engine: Engine) -> list[str]:
    if engine.container is not None:
        done = _run("docker", "logs", "--tail", str(LOG_LINES), engine.container)
        return (done.stdout + done.stderr).splitlines()
    shown = _run("journalctl", "--no-pager", "--output=cat", f"--lines={LOG_LINES}", f"--unit={engine.unit}")
    return shown.stdout.splitlines()


class _Teller:
    """One line, updated in place on a terminal; elsewhere printed for news, or every 30 s."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._said: tuple[str, float] | None = None

    def tell(self, line: str) -> None:
        what = line.partition(",")[0]
        if self._terminal:
            self._write(f"\r\x1b[K{line}")
        elif self._said is None or self._said[0] != what or time.monotonic() - self._said[1] >= LINE_EVERY:
            self._write(f"{line}\n")
            self._said = (what, time.monotonic())

    def say(self, line: str) -> None:
        """Print a line that stays."""
        self._write(f"\r\x1b[K{line}\n" if self._terminal else f"{line}\n")

    def _write(self, text: str) -> None:
        # The terminal may be gone.
        with suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _failed(error: Exception, code: int, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"ok": False, "error": str(error)}, indent=2))
    print(f"{chr(13)}\x1b[K" if sys.stderr.isatty() else "", f"rig-mode: {error}", sep="", file=sys.stderr)
    return code
