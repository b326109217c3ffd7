"""The command line `rig`: each command is a module of its own, imported only when it is needed."""

from __future__ import annotations

import subprocess
from importlib import import_module

import click

from rig import __version__
from rig.settings.active import ROOT

COMMANDS = ("check", "doctor", "downloads", "lock", "plan", "schema")
"""Modules of this package; each defines a click command called `command`."""


class _Lazy(click.Group):
    """Imports a command's module on first use: `rig check` needs neither pyinfra nor requests."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = import_module(f"{__name__}.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            # click compares with the commands that it holds, and this group holds none.
            raise click.exceptions.NoSuchCommand(str(error.command_name), possibilities=COMMANDS, ctx=ctx) from None


def _version(ctx: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=, with changes", "--exclude=*"]
    try:
        commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = ""
    click.echo(f"rig {__version__}{f' (commit {commit})' if commit else ''}")
    ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version and the commit of this checkout.",
)
def main() -> None:
    """Check the settings in group_data/, compute what follows from them, and examine a machine.

    Only `doctor` connects to a machine, and only `lock` connects to a model hub.
    """
