"""The command line rig-batch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from rigd.base import configuration
from rigd.base.errors import BadInput, Failed
from rigd.batch import config as configs

OK, FAILED, BAD_INPUT = 0, 1, 2
CODES = "Exits with 0 when all is well, 1 when something failed, 2 on a usage error."


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except BadInput as error:
        print(f"rig-batch: {error}", file=sys.stderr)
        return BAD_INPUT
    except Failed as error:
        print(f"rig-batch: {error}", file=sys.stderr)
        return FAILED
    except OSError as error:
        print(f"rig-batch: {error.filename or 'the machine'}: {error.strerror}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rig-batch", description="Runs batches of requests.", epilog=CODES)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="be the server", description="Be the server.", epilog=CODES)
    serve.add_argument("--config", default=configs.PATH, metavar="FILE", help="default: %(default)s")
    serve.set_defaults(run=_serve)
    return parser


def _serve(options: argparse.Namespace) -> int:
    # Its libraries are those of the server's own virtual environment.
    from rigd.batch import server

    return server.run(configuration.read(options.config, configs.parse))
