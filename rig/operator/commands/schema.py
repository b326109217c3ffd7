"""`rig schema`: the JSON Schema by which editors complete and check the YAML."""

from __future__ import annotations

import json

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
    """
    try:
        click.echo(text(hosts))
    except SettingsError as error:
        report.problems(error.problems, as_json=False)
        raise SystemExit(report.WRONG) from None


def text(hosts: bool = False) -> str:
    """The schema as indented JSON. Raises SettingsError when all.yml cannot be read."""
    defaults = plain(read(ROOT / report.ALL, report.ALL))
    settings = editor_schema(Settings, "Settings of a machine", defaults)
    if not hosts:
        return json.dumps(settings, indent=2)
    machines = editor_schema(HostsFile, "Machines")
    (entry,) = machines["properties"]["hosts"]["patternProperties"].values()
    entry["properties"]["settings"] |= {"properties": settings["properties"], "additionalProperties": False}
    return json.dumps(machines, indent=2)
