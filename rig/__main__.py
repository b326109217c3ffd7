"""The command line `python -m rig`: the settings, what follows from them, and what is wrong with a machine's card."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from rig.capacity import Model
from rig.capacity.checkpoint import read_checkpoint
from rig.capacity.model import NotAModel
from rig.gpu.doctor import Check, diagnose
from rig.models import lock as locking
from rig.operator import remote
from rig.plan import figures, page, terminal
from rig.settings import Host, HostsFile, Inventory, Problem, Settings, SettingsError, load_local, preview, select
from rig.settings.hosts import LOCAL
from rig.settings.schema import editor_schema
from rig.settings.tree import merge, plain, read

ROOT = Path(__file__).parents[1]
FAILED = 1
WRONG = 2
ALONE = "group_data/all.yml"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Looks at the settings in group_data/. Only doctor connects to a machine, and only lock to a hub."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--data", multiple=True, metavar="KEY=VALUE", help="Check as pyinfra would with the same --data.")
def check(as_json: bool, data: tuple[str, ...]) -> None:
    """Check all settings, and say what each machine would be.

    Looks at the machines of group_data/hosts.yml, or at the lab that RIG_LAB names or that runs. Exits with 0
    when all is right, with 2 when something has to be put right: each problem comes with file, line, key and
    remedy.
    """
    try:
        inventory = preview(ROOT, os.environ, dict(_key_and_value(argument) for argument in data))
    except SettingsError as error:
        _tell_problems(error.problems, as_json)
        raise SystemExit(WRONG) from None
    _tell_machines(inventory, as_json)


@main.command()
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
    type=click.IntRange(min=1),
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
def plan(as_json: bool, files: tuple[Path, ...], prompt: int, data: tuple[str, ...], into: Path | None) -> None:
    """Print what each engine takes and how fast it can be.

    Tells what is left, which engines fit together, and the speed that the hardware allows: one table for each
    machine of group_data/hosts.yml, or for the lab that RIG_LAB names or that runs; without either, for the machine
    that group_data/all.yml describes. Every figure is computed from the settings; docs/capacity.md has the formulas.
    Exits with 0, or with 2 when the settings have to be put right first, as when something cannot fit.
    """
    values = dict(_key_and_value(argument) for argument in data)
    try:
        hosts = _planned(values)
    except SettingsError as error:
        _tell_problems(error.problems, as_json)
        raise SystemExit(WRONG) from None
    plans = [figures.plan(name, settings, prompt, _headers(settings, files)) for name, settings in hosts.items()]
    if into is not None:
        _write_plans(into, plans)
    elif as_json:
        click.echo(json.dumps({"machines": {made.machine: made.as_json() for made in plans}, "problems": []}, indent=2))
    else:
        console = terminal.console()
        for made in plans:
            terminal.show(made, console)


def _planned(data: dict[str, str]) -> dict[str, Settings]:
    """The machines to plan, or what all.yml describes where there is none. Raises SettingsError."""
    inventory = preview(ROOT, os.environ, data)
    if inventory.remark:
        click.echo(inventory.remark, err=True)
    if inventory.hosts:
        return {name: host.settings for name, host in inventory.hosts.items()}
    (described,) = load_local(ROOT, data=data).hosts.values()
    return {ALONE: described.settings}


def _headers(settings: Settings, files: tuple[Path, ...]) -> dict[str, Model]:
    """What the files' headers say, by the catalogue names of the models that they are."""
    catalogue = settings.models.catalogue.items()
    single = {name: model.chosen.file for name, model in catalogue if model.chosen.file is not None}
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
    """What a GGUF file or the folder of a checkpoint says. Raises NotAModel, OSError."""
    if path.is_dir():
        return read_checkpoint(path)
    # Only here: reading this header needs numpy, which takes longer to load than everything else does.
    from rig.capacity.header import read_header

    return read_header(path)


def _write_plans(into: Path, plans: list[figures.Plan]) -> None:
    try:
        into.write_text(page.placed(into.read_text(encoding="utf-8"), plans), encoding="utf-8")
    except page.NoPlace as error:
        raise click.BadParameter(f"{into} {error}", param_hint="--into") from None
    except UnicodeDecodeError:
        raise click.BadParameter(f"{into} is not UTF-8 text; give a Markdown page", param_hint="--into") from None


@main.command()
@click.option("--hosts", is_flag=True, help="The schema of hosts.yml instead.")
def schema(hosts: bool) -> None:
    """Print the JSON Schema of group_data/*.yml, by which editors complete and check the YAML.

    Defaults are those of group_data/all.yml. The files schema.json and hosts.schema.json beside it are made
    by this command.
    """
    try:
        click.echo(schema_text(hosts))
    except SettingsError as error:
        _tell_problems(error.problems, as_json=False)
        raise SystemExit(WRONG) from None


@main.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--file", default=ALONE, show_default=True, help="The YAML file whose models.catalogue is meant.")
@click.option("--revision", help="Branch, tag or commit to take instead of the one that stands there.")
@click.option("--yes", is_flag=True, help="Write without asking.")
def lock(models: tuple[str, ...], file: str, revision: str | None, yes: bool) -> None:
    """Pin models: ask the hub for commit, size and SHA-256, show the difference, and write it.

    Without MODEL, those that stand there with a branch, or without a size or a hash. The version that was served
    stays as the previous one. HF_ENDPOINT names another hub, HF_TOKEN is sent to it for gated repositories. Exits
    with 0 when all is pinned, with 1 when the hub does not say it or nothing was to be written, with 2 when something
    has to be put right.
    """
    path = ROOT / file
    try:
        tree = read(path, file)
        hub = (os.environ.get("HF_ENDPOINT") or locking.hub_of(merge(read(ROOT / ALONE, ALONE), tree))).rstrip("/")
        wanted = locking.entries(tree, models)
        pins = {entry.name: locking.ask(hub, entry, revision, os.environ.get("HF_TOKEN")) for entry in wanted}
        before = path.read_text(encoding="utf-8")
        after = locking.locked(before, file, pins)
    except SettingsError as error:
        _tell_problems(error.problems, as_json=False)
        raise SystemExit(WRONG) from None
    except locking.CannotLock as error:
        click.secho(str(error), fg="red", err=True)
        raise SystemExit(FAILED if isinstance(error, locking.CannotAsk) else WRONG) from None
    if after == before:
        click.echo(f"{file}: all is pinned" if not wanted else f"{file}: the hub has what is pinned")
        return
    difference = difflib.unified_diff(before.splitlines(True), after.splitlines(True), file, file, n=1)
    click.echo("".join(difference), nl=False)
    if not yes and not click.confirm("Write this?"):
        raise SystemExit(FAILED)
    new = path.with_name(f".{path.name}.new")
    new.write_text(after, encoding="utf-8")
    new.replace(path)


@main.command()
@click.argument("host", required=False, metavar="[HOST]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(host: str | None, as_json: bool) -> None:
    """Look at the graphics card of a machine, and say what is wrong and what to do.

    HOST: a machine of group_data/hosts.yml, or @local for this one; without it, all of them, or the lab that
    RIG_LAB names or that runs. Nothing is changed. Exits with 0 when all is good, with 1 when something is wrong,
    with 2 when a machine could not be looked at or the settings have to be put right first.
    """
    try:
        inventory = load_local(ROOT) if host == LOCAL else select(ROOT, os.environ)
        hosts = [inventory.machine(host)] if host else list(inventory.hosts.values())
    except SettingsError as error:
        _tell_problems(error.problems, as_json)
        raise SystemExit(WRONG) from None
    looked = {machine.name: _look(machine) for machine in hosts}
    if as_json:
        click.echo(json.dumps({"machines": {name: found.as_json() for name, found in looked.items()}}, indent=2))
    else:
        for name, found in looked.items():
            _tell_diagnosis(name, found)
    raise SystemExit(max(found.code for found in looked.values()))


@dataclass(frozen=True)
class _Diagnosis:
    """What the doctor found on one machine, or why it could not look."""

    checks: tuple[Check, ...] = ()
    error: str | None = None

    @property
    def code(self) -> int:
        """The exit code."""
        if self.error is not None:
            return WRONG
        return FAILED if any(check.result == "bad" for check in self.checks) else 0

    def as_json(self) -> dict[str, Any]:
        """The same for a program."""
        return {"checks": [check.as_json() for check in self.checks], "error": self.error}


def _look(host: Host) -> _Diagnosis:
    # Only here: reading a machine needs pyinfra, which takes longer to load than everything else does.
    from rig.facts import doctor as facts

    try:
        found = facts.look(remote.run(host, facts.SCRIPT, facts.SECONDS))
    except remote.CannotLook as error:
        return _Diagnosis(error=str(error))
    return _Diagnosis(tuple(diagnose(host.settings, found)))


def _tell_diagnosis(name: str, found: _Diagnosis) -> None:
    if found.error is not None:
        click.secho(found.error, fg="red", err=True)
        return
    click.secho(name, bold=True)
    colours = {"good": "green", "bad": "red", "unknown": "yellow"}
    for check in found.checks:
        click.echo(f"  {click.style(f'{check.result:<8}', colours[check.result])} {check.name:<14} {check.evidence}")
        if check.remedy and check.result != "good":
            click.echo(f"{'':26}to do: {check.remedy}")


def schema_text(hosts: bool = False) -> str:
    """The schema that `python -m rig schema` prints. Raises SettingsError when all.yml cannot be read."""
    defaults = plain(read(ROOT / "group_data" / "all.yml", "group_data/all.yml"))
    settings = editor_schema(Settings, "Settings of a machine", defaults)
    if not hosts:
        return json.dumps(settings, indent=2)
    machines = editor_schema(HostsFile, "Machines")
    (entry,) = machines["properties"]["hosts"]["patternProperties"].values()
    entry["properties"]["settings"] |= {"properties": settings["properties"], "additionalProperties": False}
    return json.dumps(machines, indent=2)


def _key_and_value(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not equals:
        raise click.BadParameter(f"'{argument}' has no value; write key=value", param_hint="--data")
    return key, value


def _tell_problems(problems: tuple[Problem, ...], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"machines": {}, "problems": [_as_json(problem) for problem in problems]}, indent=2))
        return
    for problem in problems:
        click.echo(f"{click.style(problem.place, bold=True)}: {problem.sentence}", err=True)
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    click.secho(f"{count}; nothing was connected to", fg="red", err=True)


def _as_json(problem: Problem) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "path": problem.path, "message": problem.message}


def _tell_machines(inventory: Inventory, as_json: bool) -> None:
    if as_json:
        machines = {name: _summary(host) for name, host in inventory.hosts.items()}
        click.echo(json.dumps({"machines": machines, "problems": []}, indent=2))
        return
    if inventory.remark:
        click.echo(inventory.remark, err=True)
    if not inventory.hosts:
        click.echo("group_data/all.yml is right; group_data/hosts.yml names no machine yet")
    for name, host in inventory.hosts.items():
        click.echo(f"{click.style(name, bold=True)} is right")
        for key, value in _summary(host).items():
            click.echo(f"  {key:<9} {', '.join(value) or 'none' if isinstance(value, list) else value}")


def _summary(host: Host) -> dict[str, str | list[str]]:
    """What a person wants to see to recognise a machine."""
    engines = host.settings.enabled_engines.items()
    return {
        "address": host.address if host.is_local else f"{host.user}@{host.address}:{host.port}",
        "groups": list(host.groups),
        "timezone": host.settings.machine.timezone,
        "models": list(host.settings.needed_models),
        "engines": [f"{name} ({engine.runtime}, {engine.address}:{engine.port})" for name, engine in engines],
        "firewall": "on" if host.settings.firewall.enabled else "off",
    }


if __name__ == "__main__":
    main(prog_name="python -m rig")
