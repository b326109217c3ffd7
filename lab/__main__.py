"""The lab's command line: python -m lab up|down|status|ssh."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from lab.machine import (
    NAME,
    Lab,
    LabFailed,
    authorise,
    build,
    default_directory,
    down,
    fetch_real_model,
    purge,
    running,
)
from lab.spec import RELEASES


def main() -> int:
    options = _parser().parse_args()
    try:
        return int(options.run(options))
    except LabFailed as problem:
        print(f"lab: {problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; what was started ends with this process", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="up|down|status|ssh|build")
    for name, run, text in (
        ("up", _up, "boot the machine, or say that it stands"),
        ("down", _down, "shut the machine down and take everything away but its disk"),
        ("status", _status, "say what stands"),
        ("ssh", _ssh, "log in, or run a command on the machine"),
        ("build", _build, "make what machines need, without booting one"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument(
            "--dir",
            type=_directory,
            default=default_directory(),
            help="the lab's directory (default: $RIG_LAB or .lab)",
        )
        if name in ("up", "build"):
            command.add_argument("--release", choices=RELEASES, default=RELEASES[0], help="the machine's Debian")
            command.add_argument(
                "--vm", action="store_true", help="a whole machine under emulation, with its own kernel"
            )
        if name == "up":
            command.add_argument("--gpu", action="store_true", help="with a graphics card, as far as programs look")
            command.add_argument("--secure-boot", action="store_true", help="with --vm: its firmware wants signatures")
        if name == "down":
            command.add_argument("--purge", action="store_true", help="remove disk, keys and artefacts too")
        if name == "ssh":
            command.add_argument("command", nargs=argparse.REMAINDER, help="run on the machine instead of a shell")
    return parser


def _directory(text: str) -> Path:
    return Path(text).resolve()


def _up(options: argparse.Namespace) -> int:
    if options.secure_boot and not options.vm:
        print("lab: a container has no firmware; write: python -m lab up --vm --secure-boot", file=sys.stderr)
        return 2
    if running(options.dir):
        print(f"The lab in {options.dir} stands.")
    else:
        # Under emulation a real model takes minutes for a sentence.
        chat = not options.vm
        if chat:
            fetch_real_model()
        authorise()
        lab = Lab.boot(
            options.dir, options.release, vm=options.vm, secure_boot=options.secure_boot, gpu=options.gpu, chat=chat
        )
        lab.ssh("true")
        lab.keep()
    print(f"Log in: ssh -F {_relative(options.dir / 'ssh_config')} {NAME}")
    return 0


def _down(options: argparse.Namespace) -> int:
    print("The lab is down." if down(options.dir) else "No lab was running.")
    if options.purge:
        purge(options.dir)
        print(f"{_relative(options.dir)} is removed.")
    return 0


def _status(options: argparse.Namespace) -> int:
    if not running(options.dir):
        print(f"no lab is running in {_relative(options.dir)}")
        return 1
    lab = Lab.attach(options.dir)
    kind = "a whole machine with " if lab.vm else ""
    print(f"{NAME}: {kind}Debian {lab.release} at {lab.address}, neighbour at {lab.network.neighbour}")
    return 0


def _ssh(options: argparse.Namespace) -> int:
    lab = Lab.attach(options.dir)
    words = ["ssh", "-F", str(lab.ssh_config), NAME, *options.command]
    os.execvp("ssh", words)


def _build(options: argparse.Namespace) -> int:
    fetch_real_model()
    authorise()
    build(options.release, options.vm)
    return 0


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
