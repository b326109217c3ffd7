"""The command line rig-metrics."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rigd.base import configuration, exposition, files
from rigd.base.errors import BadInput
from rigd.metrics import config, look

OK, FAILED, BAD_INPUT = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Write the metrics once; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        wanted = configuration.read(options.config, config.parse)
    except BadInput as error:
        print(f"rig-metrics: {error}", file=sys.stderr)
        return BAD_INPUT
    lacking: list[str] = []
    content = exposition.text(look.gauges(wanted, lacking.append))
    for sentence in lacking:
        print(f"rig-metrics: {sentence}", file=sys.stderr)
    if options.print:
        print(content, end="")
        return FAILED if lacking else OK
    try:
        files.replace(Path(wanted.output) / config.FILE, content, lasting=False)
    except OSError as error:
        print(f"rig-metrics: {error.filename}: {error.strerror}", file=sys.stderr)
        return FAILED
    return FAILED if lacking else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rig-metrics",
        description="Writes the figures of this machine that no other program shows where node_exporter reads them.",
        epilog="Exits with 0 when all is well, 1 when not all could be had or written, 2 without a configuration.",
    )
    parser.add_argument("--config", default=config.PATH, metavar="FILE", help="default: %(default)s")
    parser.add_argument("--print", action="store_true", help="print them instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
