"""The command line rig-backup."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rigd.backup import config as configs
from rigd.backup import copies, password, report, restore, state, target, vault
from rigd.backup.backup import Backup, read_manifest
from rigd.backup.config import Config
from rigd.backup.ledger import Ledger
from rigd.backup.vault import Vault, WrongPassword
from rigd.base import answer, configuration, lock, priority
from rigd.base.errors import BadInput, Failed
from rigd.base.progress import Progress
from rigd.base.state import size

OK, FAILED, BAD_INPUT = 0, 1, 2

CODES = "Exits with 0 when all is well, 1 when something failed, 2 on a usage error."
LOOK = "look how far it is: rig-backup status"
KEYS = "keys.env"
REPAIR = (
    "keep that folder, and make a new encrypted part beside it: move it away, then sudo rig-backup run; what can still "
    "be read of the old one: sudo rig-backup restore with the folder back in its place"
)
"""The remedy for an encrypted part that cannot be read whole: restic neither writes into a damaged pack nor repairs
one."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace, Config], int] = options.run
    os.umask(0o022)
    try:
        return run(options, configuration.read(options.config, configs.parse))
    except BadInput as error:
        _say(f"rig-backup: {error}")
        return BAD_INPUT
    except Failed as error:
        _say(f"rig-backup: {error}")
        return FAILED
    except OSError as error:
        _say(f"rig-backup: {error.filename or 'the machine'}: {error.strerror}")
        return FAILED
    except KeyboardInterrupt:
        _say("stopped; the next run goes on from here")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rig-backup",
        description="Backs up keys, settings and models of this machine to another disk, and brings them back.",
        epilog=CODES,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = _command(commands, "run", _run, "back up now; what is in the backup already costs nothing")
    run.add_argument("--if-due", action="store_true", help="only when the schedule says so; what cron asks")
    status = _command(commands, "status", _status, "show the last result, the next run, and what needs you")
    status.add_argument("--json", action="store_true", help="print the result as JSON (times: seconds since the epoch)")
    _command(commands, "verify", _verify, "read all of the backup again, and compare its hashes")

    back = _command(commands, "restore", _restore, "bring keys, settings and models back onto this machine")
    back.add_argument("--snapshot", default="latest", metavar="ID", help="an older state of the encrypted part")
    back.add_argument(
        "--password-file",
        metavar="FILE",
        help="a file of mode 0600, or - for stdin (default: this machine's own; where it has none, a prompt)",
    )
    back.add_argument("--yes", action="store_true", help="replace keys and settings that are here without asking")

    show = _command(commands, "password", _password, "show the password of the encrypted part, to be kept elsewhere")
    instead = show.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="ask for your copy of it, and say whether it is right")
    instead.add_argument("--set", action="store_true", help="ask for it, and make it this machine's own again")

    prune = _command(commands, "prune", _prune, "delete models from the backup that are no longer wanted, after asking")
    prune.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def _command(commands: Any, name: str, run: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=CODES
    )
    parser.add_argument("--config", default=configs.PATH, metavar="FILE", help="default: %(default)s")
    parser.set_defaults(run=run)
    return parser


def _run(options: argparse.Namespace, config: Config) -> int:
    backup = Backup(config, _say)
    try:
        with _lock(config):
            if options.if_due and not backup.due():
                backup.tell(state.read(backup.folder))
                return OK
            priority.lowest()
            done = backup.run()
    except lock.Held:
        if options.if_due:
            return OK
        raise
    for problem in done.problems:
        _say(f"rig-backup: {problem}")
    if done.problems:
        return FAILED
    print(f"backed up to {config.target}: snapshot {done.snapshot}, {done.files} model files ({size(done.bytes)})")
    return OK


def _status(options: argparse.Namespace, config: Config) -> int:
    found = report.status(Backup(config, _say))
    wrong = report.problems(found)
    print(json.dumps(found | {"problems": wrong}, indent=2) if options.json else report.text(found, config.zone))
    for problem in wrong:
        _say(f"rig-backup: {problem}")
    return FAILED if wrong else OK


def _verify(options: argparse.Namespace, config: Config) -> int:
    with _lock(config):
        folder, began = Path(config.state), time.time()
        target.enter(config)
        problems = copies.verify(Ledger(target.MODELS), Progress)
        box = Vault(password.required(config.password))
        try:
            box.open()
            box.check(vault.CHECK_ALL)
        except Failed as error:
            problems.append(f"{Path(config.target) / target.REPOSITORY}: {error}; {REPAIR}")
        run = state.Run(began, time.time(), "failed", tuple(problems)) if problems else None
        state.write(folder, replace(state.read(folder), verified=run))
    if problems:
        raise Failed("; ".join(problems))
    print(f"all of {config.target} was read, and is right")
    return OK


def _restore(options: argparse.Namespace, config: Config) -> int:
    with _lock(config):
        target.enter(config, to_write=False)
        box, secret = _opened(options, config)
        snapshot = restore.chosen(box.snapshots(), options.snapshot)
        when = snapshot.time[:16].replace("T", " ")
        keys = Path(config.own) / KEYS
        if keys.exists() and not options.yes:
            _ask(f"{keys} and the other files here are replaced by those of {when}; go on?", "nothing was changed")
        files = restore.encrypted(config, box, snapshot)
        _say(f"{files} files are back, as they were on {when}")
        models = 0
        if config.models:
            wanted = read_manifest(config)
            Path(wanted.records).mkdir(parents=True, exist_ok=True)
            with lock.held(Path(wanted.records), wait=True):
                models = restore.models(wanted)
        password.keep(config.password, secret)
    print(f"restored: {files} files of {when}, and {models} model files; now deploy, which makes the rest")
    return OK


def _opened(options: argparse.Namespace, config: Config) -> tuple[Vault, str]:
    """Open the repository; return it with its password. Raises Failed or BadInput."""
    own = password.own(config.password) if options.password_file is None else None
    secret = own or password.given(options.password_file)
    box = Vault(secret, read_only=True)
    if not box.exists:
        raise Failed(f"{config.target} holds no backup; is it the right disk?")
    try:
        box.open()
    except WrongPassword as error:
        hint = "give the right one: --password-file -" if own else "type it again, as it was written down"
        raise Failed(f"{error}; {hint}") from None
    return box, secret


def _password(options: argparse.Namespace, config: Config) -> int:
    if not (options.check or options.set):
        print(password.required(config.password))
        if sys.stdout.isatty():
            _say("keep it where this machine is not; then prove that copy: sudo rig-backup password --check")
        return OK
    own = None if options.set else password.required(config.password)
    told = password.given(None)
    if options.check:
        if told != own:
            raise Failed("that is not the password; correct your copy, it would not open the backup")
        folder = Path(config.state)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / state.CHECKED).write_text(f"{time.time():.0f}\n", encoding="utf-8")
        print("that is the password")
        return OK
    target.enter(config)
    box = Vault(told)
    if box.exists:
        box.open()
    password.keep(config.password, told)
    print(f"written to {config.password}")
    return OK


def _prune(options: argparse.Namespace, config: Config) -> int:
    with _lock(config):
        target.enter(config)
        wanted = read_manifest(config)
        ledger = Ledger(target.MODELS)
        found = copies.leftovers(wanted, ledger)
        for path in found:
            print(f"{size(path.stat().st_size):>10}  {path}")
        if not found:
            print("there is nothing that the manifest does not name")
            return OK
        if not options.yes:
            _ask(f"delete {size(sum(path.stat().st_size for path in found))}?", "nothing was deleted")
        copies.delete(found, ledger)
    print("deleted")
    return OK


def _lock(config: Config) -> AbstractContextManager[None]:
    """The lock that admits one rig-backup at a time."""
    Path(config.state).mkdir(parents=True, exist_ok=True)
    return lock.held(Path(config.state), wait=False, program="rig-backup", look=LOOK)


def _ask(question: str, otherwise: str) -> None:
    """Require a yes. Raises BadInput without a terminal, and Failed for a no."""
    if not sys.stdin.isatty():
        raise BadInput(f"there is no terminal for the question: {question} To do it, add --yes")
    if not answer.yes(question):
        raise Failed(otherwise)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
