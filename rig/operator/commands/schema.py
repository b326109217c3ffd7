"""`rig schema`: the JSON Schema by which editors complete and check the YAML."""

from __future__ import annotations

import json
from typing import Any

import click

from rig.operator.commands import report
from rig.settings import HostsFile, Settings, SettingsError
from rig.settings.active import ROOT
from rig.settings.schema import editor_schema
from rig.settings.tree import plain, read


@click.command("schema")
@click.option("--hosts", is_flag=True, help="Print the schema of hosts.yml instead.")
def command(hosts: bool) -> None:
    """Print the JSON Schema of group_data/*.yml, by which editors complete and check the YAML.

    Defaults come from group_data/all.yml. This command makes the files schema.json and hosts.schema.json beside it.
    Where all.yml cannot be read, it prints the schema without defaults and exits with 2.
    """
    try:
        click.echo(text(hosts))
    except SettingsError as error:
        # The shell has emptied schema.json before this command began.
        click.echo(text(hosts, defaults={}))
        report.problems(error.problems, as_json=False)
        raise SystemExit(report.WRONG) from None


def text(hosts: bool = False, defaults: dict[str, Any] | None = None) -> str:
    """The schema as indented JSON, with these defaults, or those of all.yml.

    Raises SettingsError when all.yml is needed and cannot be read.
    """
    if defaults is None:
        defaults = plain(read(ROOT / report.ALL, report.ALL))
    settings = editor_schema(Settings, "Settings of a machine", defaults)
    if not hosts:
        return json.dumps(settings, indent=2)
    machines = editor_schema(HostsFile, "Machines")
    (entry,) = machines["properties"]["hosts"]["patternProperties"].values()
    entry["properties"]["settings"] |= {"properties": settings["properties"], "additionalProperties": False}
    return json.dumps(machines, indent=2)
