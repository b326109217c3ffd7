"""The command line rig-thermal."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from rigd.base import configuration
from rigd.base.command import NoAnswer
from rigd.base.errors import BadInput, Failed
from rigd.thermal import config as configs
from rigd.thermal import report
from rigd.thermal.places import Places, read_applied, read_word

OK, FAILED, BAD_INPUT = 0, 1, 2

CODES = "Exits with 0 when all is well, 1 when something failed, 2 on a usage error."


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BadInput as error:
        print(f"rig-thermal: {error}", file=sys.stderr)
        return BAD_INPUT
    except (Failed, NoAnswer) as error:
        print(f"rig-thermal: {error}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"rig-thermal: {error.filename or 'the machine'}: {error.strerror}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rig-thermal", description="Watches the graphics card's temperature.", epilog=CODES
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, run, text in (
        ("status", _status, "show the service's last reading"),
        ("once", _once, "read the card now, and show it"),
        ("restore", _restore, "take back what was done about heat"),
        ("run", _run, "be the service"),
        ("cool", _cool, "be the service's hand: do, as root, what the configuration wants done about heat"),
        ("notify", _notify, "be the service's voice: tell the level to those who are logged in at a screen"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=CODES)
        command.add_argument("--config", default=configs.PATH, metavar="FILE", help="default: %(default)s")
        if name in ("status", "once"):
            command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.set_defaults(run=run, places=Places())
    return parser


def _run(options: argparse.Namespace) -> int:
    from rigd.thermal import monitor

    config = configuration.read(options.config, configs.parse)
    return monitor.run(monitor.Monitor(config, options.places), config, monitor.card_devices)


def _status(options: argparse.Namespace) -> int:
    try:
        last: dict[str, Any] = json.loads(options.places.last.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failed("there is no reading; is the service running? systemctl status rig-thermal") from None
    return _show(options, last, report.problem_of(last, time.time()))


def _once(options: argparse.Namespace) -> int:
    from rigd.thermal.smi import Smi

    config = configuration.read(options.config, configs.parse)
    reading, trouble = Smi(config.smi, config.timeout).read()
    last = {"cards": [{**asdict(card), "level": None} for card in reading.cards], "xids": [], "cooling": {}}
    return _show(options, last, None if trouble is None else str(trouble))


def _show(options: argparse.Namespace, last: dict[str, Any], problem: str | None) -> int:
    text = json.dumps(last, indent=2) if options.json else report.table(last)
    if text:
        print(text)
    if problem is not None:
        raise Failed(problem)
    return OK


def _cool(options: argparse.Namespace) -> int:
    word = read_word(options.places.wanted, ("hot", "cool"))
    # Without a word, the monitor is starting or stopping: the present measures stay.
    return OK if word is None else _reconcile(options, hot=word == "hot")


def _restore(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise BadInput("only root can take back what was done about heat; use sudo")
    if not read_applied(options.places).any:
        print("there is nothing to take back")
        return OK
    return _reconcile(options, hot=False)


def _reconcile(options: argparse.Namespace, hot: bool) -> int:
    from rigd.thermal.cooling import Hand

    return OK if Hand(configuration.read(options.config, configs.parse), options.places).reconcile(hot) else FAILED


def _notify(options: argparse.Namespace) -> int:
    from rigd.thermal import desktop

    word = read_word(options.places.level, tuple(desktop.TEXTS))
    return OK if word is None or desktop.notify(word) else FAILED
