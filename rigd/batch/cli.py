"""The command line rig-batch."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from rigd.base import configuration
from rigd.base.errors import BadInput, Failed, Trouble
from rigd.batch import config as configs
from rigd.batch import convert, merge
from rigd.batch.config import ENDPOINTS

OK, FAILED, BAD_INPUT = 0, 1, 2
CODES = "Exits with 0 when all is well, 1 when something failed, 2 on a usage error."
PREVIEW = 3
"""Requests that `convert` shows."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BadInput as error:
        print(f"rig-batch: {error}", file=sys.stderr)
        return BAD_INPUT
    except (Failed, Trouble) as error:
        print(f"rig-batch: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # Whoever reads the output has enough; Python would complain at the end.
        sys.stdout = None
        return FAILED
    except OSError as error:
        print(f"rig-batch: {error.filename or 'the machine'}: {error.strerror}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\nrig-batch: interrupted; the batch goes on, and so does the same command", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    from rigd.batch.client import KEY, URL

    parser = argparse.ArgumentParser(prog="rig-batch", description="Runs batches of requests.", epilog=CODES)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=CODES)
        command.set_defaults(run=run)
        return command

    one = add("run", _run, "upload a file, wait, download the answers; after an interruption, go on")
    one.add_argument("file", type=Path, metavar="FILE", help="JSONL, a request a line")
    one.add_argument("--output", type=Path, metavar="FILE", help="default: FILE's name with _output")
    one.add_argument("--endpoint", choices=ENDPOINTS, default=ENDPOINTS[0], help="default: %(default)s")
    one.add_argument("--window", default="24h", help="most time that the batch may take; default: %(default)s")
    state = add("status", _status, "show one batch, or the newest ones")
    state.add_argument("batch", nargs="?", metavar="BATCH")
    for command in (one, state):
        command.add_argument("--url", default=URL, help=f"the server, whose key is in ${KEY}; default: %(default)s")
        command.add_argument("--json", action="store_true", help="print the result as JSON")
    make = add("convert", _convert, "make a batch of a table: one request for each row")
    make.add_argument("file", metavar="FILE", help="CSV with a line of names, or JSONL; - for standard input")
    make.add_argument("--to", type=Path, metavar="FILE", help="default: standard output")
    make.add_argument("--format", choices=("csv", "jsonl"), help="default: by the file's name")
    make.add_argument("--model", required=True)
    make.add_argument("--prompt", required=True, metavar="TEXT", help="the message, with {column} for a row's cells")
    make.add_argument("--system", metavar="TEXT", help="the message before it")
    make.add_argument("--id", metavar="COLUMN", help="the column with the custom_id; default: the row's number")
    make.add_argument("--max-tokens", type=int, metavar="N")
    again = add("retry", _retry, "make a file of the lines that have no answer")
    whole = add("merge", _merge, "put several attempts together, and prove that each line has one result")
    for command in (again, whole):
        command.add_argument("input", type=Path, metavar="INPUT", help="the first attempt's input")
        command.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="output and error files")
        command.add_argument("--to", type=Path, metavar="FILE", help="default: standard output")
    serve = add("serve", _serve, "be the server")
    serve.add_argument("--config", default=configs.PATH, metavar="FILE", help="default: %(default)s")
    return parser


def _serve(options: argparse.Namespace) -> int:
    # Its libraries are those of the server's own virtual environment.
    from rigd.batch import server

    return server.run(configuration.read(options.config, configs.parse))


def _run(options: argparse.Namespace) -> int:
    from rigd.batch import following
    from rigd.batch.client import Client

    source: Path = options.file
    output: Path = options.output or source.with_name(f"{source.stem}_output.jsonl")
    error = output.with_name(f"{output.stem.removesuffix('_output')}_error.jsonl")
    run = following.Run(Client(options.url), source, options.endpoint, options.window)
    batch = run.wait(run.batch())
    for identity, path in ((batch["output_file_id"], output), (batch["error_file_id"], error)):
        if identity is not None:
            run.download(identity, path)
    run.end()
    if options.json:
        print(json.dumps(batch, indent=2))
    else:
        for identity, path in ((batch["output_file_id"], output), (batch["error_file_id"], error)):
            if identity is not None:
                print(path)
    following.verdict(batch)
    return OK


def _status(options: argparse.Namespace) -> int:
    from rigd.batch.client import Client

    client = Client(options.url)
    found = client.batches(20) if options.batch is None else [client.batch(options.batch)]
    if options.json:
        print(json.dumps(found if options.batch is None else found[0], indent=2))
        return OK
    for batch in found:
        counts = batch["request_counts"] or {"total": 0, "completed": 0, "failed": 0}
        text = f"{counts['completed']} of {counts['total']} completed, {counts['failed']} failed"
        print(f"{batch['id']}  {batch['status']:<11}  {text}")
    return OK


def _convert(options: argparse.Namespace) -> int:
    template = convert.Template(options.model, options.prompt, options.system, options.max_tokens, options.id)
    kind = options.format or ("jsonl" if options.file.endswith((".jsonl", ".ndjson")) else "csv")
    with ExitStack() as stack:
        source: TextIO = sys.stdin
        if options.file != "-":
            # Excel writes a byte order mark.
            source = stack.enter_context(Path(options.file).open(encoding="utf-8-sig", newline=""))
        made = convert.requests(template, convert.rows(source, kind))
        first = list(itertools.islice(made, PREVIEW))
        for request in first:
            print(json.dumps(request, ensure_ascii=False)[:500], file=sys.stderr)
        count = _write(itertools.chain(first, made), options.to)
    print(f"{count} requests", file=sys.stderr)
    return OK


def _retry(options: argparse.Namespace) -> int:
    count = _write(merge.failed(options.input, options.results), options.to)
    print(f"{count} lines have no answer", file=sys.stderr)
    return OK


def _merge(options: argparse.Namespace) -> int:
    count = _write(merge.merge(options.input, options.results), options.to)
    print(f"{count} lines have one result each", file=sys.stderr)
    return OK


def _write(lines: Iterable[dict[str, Any]], to: Path | None) -> int:
    """Write lines; a file gets its name only when it is whole."""
    if to is None:
        return _dump(lines, sys.stdout)
    new = to.with_name(f".{to.name}.new")
    try:
        with new.open("w", encoding="utf-8") as file:
            count = _dump(lines, file)
        new.rename(to)
    finally:
        new.unlink(missing_ok=True)
    return count


def _dump(lines: Iterable[dict[str, Any]], out: TextIO) -> int:
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007
        # Escapes alone: halves of surrogate pairs have no UTF-8.
        out.write(json.dumps(line) + "\n")
    out.flush()
    return count
