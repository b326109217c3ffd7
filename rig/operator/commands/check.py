"""`rig check`: every mistake in the settings, or a summary of each machine."""

from __future__ import annotations

import json
import os

import click

from rig.operator.commands import report
from rig.settings import Host, Inventory, SettingsError, preview
from rig.settings.active import ROOT


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--data", multiple=True, metavar="KEY=VALUE", help="Check as pyinfra would with the same --data.")
def command(as_json: bool, data: tuple[str, ...]) -> None:
    """Check all settings and summarise each machine.

    Covers the machines of group_data/hosts.yml, or the lab that RIG_LAB names or that is running. Exits with 0
    when the settings are valid and with 2 when they are not: each problem comes with its file, line, key and
    remedy. No connection is made.
    """
    try:
        inventory = preview(ROOT, os.environ, report.values(data))
    except SettingsError as error:
        report.problems(error.problems, as_json)
        raise SystemExit(report.WRONG) from None
    _summarise(inventory, as_json)


def _summarise(inventory: Inventory, as_json: bool) -> None:
    if as_json:
        machines = {name: _summary(host) for name, host in inventory.hosts.items()}
        click.echo(json.dumps({"machines": machines, "problems": []}, indent=2))
        return
    if inventory.remark:
        click.echo(inventory.remark, err=True)
    if not inventory.hosts:
        click.echo(f"{report.ALL} is valid; group_data/hosts.yml names no machine yet")
    for name, host in inventory.hosts.items():
        click.echo(f"{click.style(name, bold=True)} is valid")
        for key, value in _summary(host).items():
            click.echo(f"  {key:<9} {', '.join(value) or 'none' if isinstance(value, list) else value}")


def _summary(host: Host) -> dict[str, str | list[str]]:
    """A machine's description for people."""
    engines = host.settings.enabled_engines.items()
    return {
        "address": host.address if host.is_local else f"{host.user}@{host.address}:{host.port}",
        "groups": list(host.groups),
        "timezone": host.settings.machine.timezone,
        "models": list(host.settings.needed_models),
        "engines": [f"{name} ({engine.runtime}, {engine.address}:{engine.port})" for name, engine in engines],
        "firewall": "on" if host.settings.firewall.enabled else "off",
    }
