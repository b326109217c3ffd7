"""`rig lock`: pin models to the commit, size and SHA-256 that the hub has for them."""

from __future__ import annotations

import difflib
import os
import stat

import click

from rig.models import lock as pins
from rig.operator.commands import report
from rig.settings import SettingsError
from rig.settings.active import ROOT
from rig.settings.tree import merge, read
from rigd.base.files import replace


@click.command("lock")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--file", default=report.ALL, show_default=True, help="The YAML file whose models.catalogue to edit.")
@click.option("--revision", help="Branch, tag or commit to take instead of the one in the file.")
@click.option("--yes", is_flag=True, help="Write without asking.")
def command(models: tuple[str, ...], file: str, revision: str | None, yes: bool) -> None:
    """Pin models: query the hub for commit, size and SHA-256, show the difference, and write it.

    Without MODEL, pins every entry that has a branch, or no size or hash. The version that was served stays as the
    previous one. HF_ENDPOINT names another hub; HF_TOKEN is sent to it for gated repositories. Exits with 0 when all
    is pinned, with 1 when the hub has no answer or nothing was to be written, with 2 on an invalid file or name.
    """
    path = ROOT / file
    try:
        tree = read(path, file)
        hub = (os.environ.get("HF_ENDPOINT") or pins.hub_of(merge(read(ROOT / report.ALL, report.ALL), tree))).rstrip(
            "/"
        )
        wanted = pins.entries(tree, models)
        found = {entry.name: pins.ask(hub, entry, revision, os.environ.get("HF_TOKEN")) for entry in wanted}
        before = path.read_text(encoding="utf-8")
        after = pins.locked(before, file, found)
    except SettingsError as error:
        report.problems(error.problems, as_json=False)
        raise SystemExit(report.WRONG) from None
    except pins.CannotLock as error:
        click.secho(str(error), fg="red", err=True)
        raise SystemExit(report.FAILED if isinstance(error, pins.CannotAsk) else report.WRONG) from None
    if after == before:
        click.echo(f"{file}: all is pinned" if not wanted else f"{file}: the hub has what is pinned")
        return
    difference = difflib.unified_diff(before.splitlines(True), after.splitlines(True), file, file, n=1)
    click.echo("".join(difference), nl=False)
    if not yes and not click.confirm("Write this?"):
        raise SystemExit(report.FAILED)
    # The file that a link points to, with the mode that its owner gave it.
    target = path.resolve()
    replace(target, after, mode=stat.S_IMODE(target.stat().st_mode))
