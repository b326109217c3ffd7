"""The command line rig-models."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rigd.base import answer, configuration, lock, priority, progress, state
from rigd.base.errors import BadInput, Failed
from rigd.models import manifest, records, registry, remains, verify
from rigd.models.manifest import Manifest, Model
from rigd.models.records import Records

OK, FAILED, BAD_INPUT = 0, 1, 2

CODES = "Exits with 0 when all is well, 1 when something failed, 2 on a usage error."


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    # Engines read these files, whatever root's own umask.
    os.umask(0o022)
    try:
        wanted = _read(options.manifest)
        run: Callable[[argparse.Namespace, Manifest, Records], None] = options.run
        run(options, wanted, records.make(Path(wanted.records)))
        sys.stdout.flush()
    except BadInput as error:
        return _tell(options, error, BAD_INPUT)
    except Failed as error:
        return _tell(options, error, FAILED)
    except BrokenPipeError:
        # The reader has read enough. At its end, Python would write the rest, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        return _tell(options, Failed(f"{error.filename or 'the machine'}: {error.strerror}"), FAILED)
    except KeyboardInterrupt:
        print("stopped; the next run goes on from here", file=sys.stderr)
        sys.stderr.flush()
        # Threads may be waiting for a silent server.
        os._exit(130)
    return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rig-models", description="Model files of this machine, each pinned by its SHA-256.", epilog=CODES
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    fetch = _command(commands, "fetch", _fetch, "get what is missing: from the backup, or else from the hub")
    check = _command(commands, "verify", _verify, "read files again, and mark a model that changed")
    check.add_argument("--low-priority", action="store_true", help="leave processor and disk to everybody else")
    for command in (fetch, check):
        command.add_argument("--wait", action="store_true", help="wait for another rig-models instead of giving up")
        command.add_argument("models", nargs="*", metavar="MODEL", help="these only (default: all)")
    _command(commands, "list", _list, "show all models, and which engine serves each")
    _command(commands, "status", _status, "show how far a fetch is, and which models are verified; reads no model")
    prune = _command(commands, "prune", _prune, "delete what no engine uses, after asking")
    prune.add_argument("--yes", action="store_true", help="do not ask")
    prune.add_argument(
        "--previous", action="store_true", help="delete the version before the present one, too: no going back"
    )
    prune.add_argument("--keys", action="store_true", help="delete keys that nobody has any more, too")
    return parser


def _command(commands: Any, name: str, run: Any, help: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=f"{help[0].upper()}{help[1:]}.", epilog=CODES
    )
    parser.add_argument("--manifest", default=manifest.PATH, metavar="FILE", help="default: %(default)s; - for stdin")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def _read(name: str) -> Manifest:
    parse = partial(manifest.parse, hub=os.environ.get("HF_ENDPOINT"))
    return parse(sys.stdin.read()) if name == "-" else configuration.read(name, parse)


def _chosen(wanted: Manifest, names: list[str]) -> list[Model]:
    known = {model.name: model for model in wanted.models}
    for name in names:
        if name not in known:
            raise BadInput(f"there is no model {name} in the manifest; it has {', '.join(known) or 'none'}")
    return [known[name] for name in names] if names else list(wanted.models)


def _fetch(options: argparse.Namespace, wanted: Manifest, records: Records) -> None:
    # Imported here: status and list do not need the network's libraries, which take longer to load than all else.
    from rigd.models import fetch

    models = _chosen(wanted, options.models)
    fetcher = fetch.fetcher(wanted, records)
    with lock.held(records.directory, options.wait):
        jobs = fetcher.jobs(models)
        with progress.Progress([job.item for job in jobs], records.directory, wanted.digest) as shown:
            fetcher.run(models, shown, jobs)
    _say(options, {"ok": True, "models": [model.name for model in models]}, f"{_count(models)} there and verified")


def _verify(options: argparse.Namespace, wanted: Manifest, records: Records) -> None:
    models = _chosen(wanted, options.models)
    if options.low_priority:
        priority.lowest()
    with lock.held(records.directory, options.wait):
        checks = verify.checks(wanted, models)
        with progress.Progress([check.item for check in checks]) as shown:
            verify.run(wanted, records, checks, shown)
    _say(options, {"ok": True, "models": [model.name for model in models]}, f"{_count(models)} read and right")


def _list(options: argparse.Namespace, wanted: Manifest, records: Records) -> None:
    rows = registry.rows(wanted, records)
    table = [("MODEL", "REVISION", "QUANTIZATION", "SIZE", "VERIFIED", "SERVED BY")]
    table += [
        (
            row.model,
            row.revision[:12],
            row.quantization,
            state.size(row.size),
            "FAILED" if row.failure else row.verified or "no",
            ", ".join(row.engines) or "nobody",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
    lines += [f"{row.model}: {row.failure}" for row in rows if row.failure]
    lines += [f"{row.model}: other versions are still there: {', '.join(row.others)}" for row in rows if row.others]
    lines += [f"left behind: {left.what} ({state.size(left.size)})" for left in remains.remains(wanted)]
    _say(options, [asdict(row) for row in rows], "\n".join(lines))


def _status(options: argparse.Namespace, wanted: Manifest, records: Records) -> None:
    found = registry.status(wanted, records)
    last = state.read(records.directory)
    lines = []
    if last is not None and found["holder"] == last.pid:
        lines.append(f"fetching (PID {last.pid}): {state.line(last.files)}")
    elif found["holder"]:
        lines.append(f"another rig-models is at work (PID {found['holder']})")
    elif last is not None and last.result != "done":
        lines.append(f"the last fetch did not end well: {last.error or 'it was killed'}")
    for name, model in found["models"].items():
        lines.append(f"{name}: {model['failure'] or ('verified' if model['verified'] else 'not verified')}")
    _say(options, found, "\n".join(lines))


def _prune(options: argparse.Namespace, wanted: Manifest, records: Records) -> None:
    wanted.require_disk()
    with lock.held(records.directory, wait=False):
        found = registry.leftovers(wanted, records, options.previous)
    left = _left(options, wanted)
    things: list[registry.Leftover | remains.Remain] = [*found, *left]
    if not options.json:
        for thing in things:
            print(f"{state.size(thing.size):>10}  {thing.what}")
    if things and not options.yes:
        # The question has no time limit, and a deploy may run before the answer: files that it needs are no leftovers
        # then.
        _ask(f"delete {state.size(sum(thing.size for thing in things))}?")
        wanted = _read(options.manifest)
    with remains.no_deploy(wanted.leavings), lock.held(records.directory, wait=False):
        wanted.require_disk()
        still = registry.leftovers(wanted, records, options.previous)
        found = [leftover for leftover in found if leftover in still]
        for leftover in found:
            registry.delete(leftover, records)
        still_left = _left(options, wanted)
        left = [remain for remain in left if remain in still_left]
        for remain in left:
            remains.delete(remain, wanted)
    deleted = [{"what": leftover.what, "files": list(map(str, leftover.files))} for leftover in found]
    deleted += [{"what": remain.what, "files": []} for remain in left]
    _say(options, {"deleted": deleted}, "deleted" if deleted else "there is nothing that no engine uses")


def _left(options: argparse.Namespace, wanted: Manifest) -> list[remains.Remain]:
    """The leftovers. Keys only on request: a deleted key cannot be restored, and clients may still have it."""
    return [left for left in remains.remains(wanted) if left.kind != "key" or options.keys]


def _ask(question: str) -> None:
    """Require a yes. Raises BadInput without a terminal, and Failed for a no."""
    if not sys.stdin.isatty():
        raise BadInput("there is no terminal to confirm on; to delete this, add --yes")
    if not answer.yes(question):
        raise Failed("nothing was deleted")


def _count(models: list[Model]) -> str:
    return "1 model is" if len(models) == 1 else f"{len(models)} models are"


def _say(options: argparse.Namespace, value: Any, text: str) -> None:
    print(json.dumps(value, indent=2) if options.json else text)


def _tell(options: argparse.Namespace, error: Exception, code: int) -> int:
    if options.json:
        print(json.dumps({"ok": False, "error": str(error)}, indent=2))
    print(f"rig-models: {error}", file=sys.stderr)
    return code
