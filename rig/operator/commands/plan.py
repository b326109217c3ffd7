"""`rig plan`: what each engine takes, what fits together, and the speed that the hardware allows."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

import click

from rig.capacity import Model
from rig.capacity.checkpoint import read_checkpoint
from rig.capacity.model import NotAModel
from rig.operator.commands import report
from rig.page import NoPlace
from rig.plan import figures, fits, page, terminal
from rig.settings import Settings, SettingsError, load_local, preview
from rig.settings.active import ROOT


@click.command("plan")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON: bytes, seconds, tokens/s.")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A model that is here, as a file, or as the folder of a checkpoint named like the entry or its repository: "
    "what its headers say beats the catalogue's figures.",
)
@click.option(
    "--prompt",
    type=click.IntRange(min=1, max=figures.LONGEST_PROMPT),
    default=figures.PROMPT,
    show_default=True,
    metavar="TOKENS",
    help="Length of the prompt whose first token is estimated.",
)
@click.option("--data", multiple=True, metavar="KEY=VALUE", help="Plan as pyinfra would with the same --data.")
@click.option(
    "--into",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PAGE",
    help="Write the tables into a Markdown page, such as docs/capacity.md, instead.",
)
@click.option("--fits", "only_fits", is_flag=True, help="List what of the catalogue fits the machine, fastest first.")
def command(
    as_json: bool, files: tuple[Path, ...], prompt: int, data: tuple[str, ...], into: Path | None, only_fits: bool
) -> None:
    """Print what each engine takes and how fast it can be.

    Shows the memory that is left, which engines fit together, and the speed that the hardware allows: one table for
    each machine of group_data/hosts.yml, or for the lab that RIG_LAB names or that is running; without either, for the
    machine that group_data/all.yml describes. Every figure is computed from the settings; docs/capacity.md has the
    formulas. Exits with 0, or with 2 when the settings are not valid, which includes engines that cannot fit.
    """
    values = report.values(data)
    try:
        hosts = _planned(values)
    except SettingsError as error:
        report.problems(error.problems, as_json)
        raise SystemExit(report.WRONG) from None
    if only_fits:
        found = {name: fits.fits(settings, prompt, _headers(settings, files)) for name, settings in hosts.items()}
        if as_json:
            machines = {name: [fit.as_json() for fit in listed] for name, listed in found.items()}
            click.echo(json.dumps({"machines": machines, "problems": []}, indent=2, allow_nan=False))
            return
        for name, listed in found.items():
            terminal.show_fits(name, hosts[name].machine.hardware, listed, terminal.console())
        return
    plans = [figures.plan(name, settings, prompt, _headers(settings, files)) for name, settings in hosts.items()]
    if into is not None:
        _write_plans(into, plans)
    elif as_json:
        document = {"machines": {made.machine: made.as_json() for made in plans}, "problems": []}
        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        console = terminal.console()
        for made in plans:
            terminal.show(made, console)


def _planned(data: dict[str, str]) -> dict[str, Settings]:
    """The machines to plan, or the machine of all.yml if there is none. Raises SettingsError."""
    inventory = preview(ROOT, os.environ, data)
    if inventory.remark:
        click.echo(inventory.remark, err=True)
    if inventory.hosts:
        return {name: host.settings for name, host in inventory.hosts.items()}
    (described,) = load_local(ROOT, data=data).hosts.values()
    return {report.ALL: described.settings}


def _headers(settings: Settings, files: tuple[Path, ...]) -> dict[str, Model]:
    """The models in the files' headers, by their catalogue names."""
    catalogue = settings.models.catalogue.items()
    single = {name: PurePosixPath(model.chosen.file).name for name, model in catalogue if model.chosen.file is not None}
    # A folder has the name of the entry or of its repository; on a machine it is that of a version, below the entry's.
    whole = {name: {name, model.repository.split("/")[1]} for name, model in catalogue if model.files is not None}
    found: dict[str, Model] = {}
    for path in (path.resolve() for path in files):
        if path.is_dir():
            kind, known = "repository", [known for names in whole.values() for known in sorted(names)]
            names = [name for name, own in whole.items() if path.name in own or path.parent.name == name]
        else:
            kind, known = "file", list(single.values())
            names = [name for name, file in single.items() if file == path.name]
        if not names:
            sentence = f"the catalogue has no {kind} '{path.name}'; give one of {', '.join(known)}"
            raise click.BadParameter(sentence, param_hint="--file")
        try:
            found |= dict.fromkeys(names, _header(path))
        except (NotAModel, OSError) as error:
            raise click.BadParameter(str(error), param_hint="--file") from None
    return found


def _header(path: Path) -> Model:
    """The model in a GGUF file or a checkpoint's folder. Raises NotAModel, OSError."""
    if path.is_dir():
        return read_checkpoint(path)
    # Only here: reading this header needs numpy, which takes longer to load than everything else does.
    from rig.capacity.header import read_header

    return read_header(path)


def _write_plans(into: Path, plans: list[figures.Plan]) -> None:
    try:
        into.write_text(page.placed(into.read_text(encoding="utf-8"), plans), encoding="utf-8")
    except NoPlace as error:
        raise click.BadParameter(f"{into} {error}", param_hint="--into") from None
    except UnicodeDecodeError:
        raise click.BadParameter(f"{into} is not UTF-8 text; give a Markdown page", param_hint="--into") from None
