"""`rig downloads`: everything that a deploy downloads, from where, and how it is verified."""

from __future__ import annotations

from pathlib import Path

import click

from rig import downloads
from rig.operator.commands import report
from rig.page import NoPlace
from rig.settings import SettingsError, load_local
from rig.settings.active import ROOT


@click.command("downloads")
@click.option(
    "--into",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PAGE",
    help="Write the table into a Markdown page, such as docs/supply-chain.md, instead.",
)
def command(into: Path | None) -> None:
    """Print what a deploy downloads, from where, and how it is verified, by group_data/all.yml.

    Exits with 0, or with 2 when the settings are not valid.
    """
    try:
        (described,) = load_local(ROOT).hosts.values()
    except SettingsError as error:
        report.problems(error.problems, as_json=False)
        raise SystemExit(report.WRONG) from None
    listed = downloads.listed(described.settings)
    if into is None:
        click.echo(downloads.markdown(listed), nl=False)
        return
    try:
        into.write_text(downloads.placed(into.read_text(encoding="utf-8"), listed), encoding="utf-8")
    except NoPlace as error:
        raise click.BadParameter(f"{into} {error}", param_hint="--into") from None
