"""The command line `python -m rig`: what can be known about the settings without a machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from rig.settings import Host, HostsFile, Inventory, Problem, Settings, SettingsError, preview
from rig.settings.schema import editor_schema
from rig.settings.tree import plain, read

ROOT = Path(__file__).parents[1]
WRONG = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Looks at the settings in group_data/ without connecting to anything."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option(
    "--data", multiple=True, metavar="KEY=VALUE", help="Check as pyinfra would with the same --data."
)
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
        click.echo(
            json.dumps({"machines": {}, "problems": [_as_json(problem) for problem in problems]}, indent=2)
        )
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
