"""The command line rig-keys."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rigd.base import configuration
from rigd.base.errors import BadInput, Failed
from rigd.gateway import config as configs
from rigd.gateway import counters, keymap, keys, records
from rigd.gateway.config import Config
from rigd.gateway.records import Key

OK, FAILED, BAD_INPUT = 0, 1, 2

CODES = "Exits with 0 when all is well, 1 when something failed, 2 on a usage error."
HEAD = ("CLIENT", "MADE", "UNTIL", "A MINUTE", "BURST", "AT A TIME", "ENGINES", "BATCHES", "LAST USE")
ONCE = "This is the only time that it is shown. Hand it over by a way that nobody else reads."


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace, Config], int] = options.run
    os.umask(0o077)
    try:
        if os.geteuid() != 0:
            raise BadInput("only root may look at the clients' keys; run it with sudo")
        return run(options, configuration.read(options.config, configs.parse))
    except BadInput as error:
        return _failed(error, BAD_INPUT)
    except Failed as error:
        return _failed(error, FAILED)
    except OSError as error:
        return _failed(Failed(f"{error.filename or 'the machine'}: {error.strerror}"), FAILED)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rig-keys", description="The keys with which clients use the gateway, one for each.", epilog=CODES
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    add = _command(commands, "add", _add, "make a client's key, and show it once")
    add.add_argument("name", metavar="NAME", help="the client: small letters, digits and '-'")
    own = "its own limit instead of that of the settings"
    add.add_argument("--rate", type=int, metavar="N", help=f"requests a minute; {own}")
    add.add_argument("--burst", type=int, metavar="N", help=f"requests that may come at once; {own}")
    add.add_argument("--concurrency", type=int, metavar="N", help=f"requests under way at a time; {own}")
    add.add_argument(
        "--engine",
        action="append",
        metavar="NAME",
        help="an engine that it may use, and no other; may be repeated (default: all)",
    )
    add.add_argument("--batches", action="store_true", help="it may use files and batches")
    add.add_argument("--until", metavar="DATE", help="last day on which it is accepted, YYYY-MM-DD, in UTC")

    _command(commands, "list", _list, "show all keys with their limits and last use; the keys themselves nobody has")
    for name, run, help in (
        ("revoke", _revoke, "delete a client's key: from now on it is refused; answers under way go on to their end"),
        ("rotate", _rotate, "make a new key in place of a client's old one, which is refused from now on"),
    ):
        command = _command(commands, name, run, help)
        command.add_argument("name", metavar="NAME", help="the client")
    _command(commands, "apply", _apply, "bring the recorded keys into force again; a start of the gateway does this")
    return parser


def _command(commands: Any, name: str, run: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=CODES
    )
    parser.add_argument("--config", default=configs.PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def _add(options: argparse.Namespace, config: Config) -> int:
    wanted = Key(
        name=options.name,
        sha256="",
        made="",
        ends=None if options.until is None else records.end_of(options.until, datetime.now(UTC)),
        rate=options.rate,
        burst=options.burst,
        concurrency=options.concurrency,
        engines=None if options.engine is None else tuple(dict.fromkeys(options.engine)),
        batches=options.batches,
    )
    return _hand_over(options, config, keys.add(config, wanted))


def _rotate(options: argparse.Namespace, config: Config) -> int:
    return _hand_over(options, config, keys.rotate(config, options.name))


def _hand_over(options: argparse.Namespace, config: Config, key: str) -> int:
    """Bring a new key into force, and show it in any case: nobody else has it."""
    try:
        running = keys.apply(config)
    finally:
        try:
            print(json.dumps({"name": options.name, "key": key}) if options.json else key, flush=True)
        except OSError as error:
            remedy = f"make another one: rig-keys rotate {options.name}"
            raise Failed(f"the key could not be shown ({error.strerror}); {remedy}") from None
    if not options.json:
        _say(ONCE)
    return _report(running)


def _revoke(options: argparse.Namespace, config: Config) -> int:
    keys.revoke(config, options.name)
    running = keys.apply(config)
    print(json.dumps({"name": options.name}) if options.json else f"the key of {options.name} is deleted")
    return _report(running)


def _apply(options: argparse.Namespace, config: Config) -> int:
    running = keys.apply(config)
    count = len(keys.current(config))
    said = f"{count} {'key is' if count == 1 else 'keys are'} in force"
    print(json.dumps({"keys": count, "running": running}) if options.json else said)
    return OK


def _list(options: argparse.Namespace, config: Config) -> int:
    listed = keys.current(config)
    used = counters.last_uses(Path(config.reader))
    if options.json:
        shown = [asdict(key) | {"last_request": used.get(key.name)} for key in listed]
        for key in shown:
            del key["sha256"]
        print(json.dumps({"keys": shown}, indent=2))
    else:
        print(_table(listed, config, used))
    if keys.in_force(config) is False:
        raise Failed(f"the running gateway has other keys than these; bring these into force: {keys.APPLY}")
    return OK


def _table(listed: tuple[Key, ...], config: Config, used: dict[str, float]) -> str:
    if not listed:
        return "nobody has a key; make one: sudo rig-keys add NAME"
    rows: list[tuple[str, ...]] = [HEAD]
    rows += [
        (
            key.name,
            key.made[:10],
            _until(key),
            *map(str, astuple(keymap.effective(key, config.limits))),
            "all" if key.engines is None else ", ".join(key.engines),
            "yes" if key.batches else "no",
            f"{datetime.fromtimestamp(used[key.name], UTC):%Y-%m-%d %H:%M}" if key.name in used else "",
        )
        for key in listed
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _until(key: Key) -> str:
    """The last day on which a key is accepted."""
    if key.ends is None:
        return ""
    end = records.seconds(key.ends)
    if end <= time.time():
        return "ended"
    return f"{datetime.fromtimestamp(end - 1, UTC):%Y-%m-%d}"


def _report(running: bool) -> int:
    if not running:
        _say("The gateway does not run now; this holds as soon as it starts.")
    return OK


def _failed(error: Exception, code: int) -> int:
    _say(f"rig-keys: {error}")
    return code


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
