"""`rig doctor`: what is wrong with the GPU and the gateway of a machine, and how to fix it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import click

from rig.doctor import Check
from rig.facts import doctor as facts
from rig.facts import gateway_doctor
from rig.gateway import doctor as gateway
from rig.gpu.doctor import diagnose
from rig.operator import remote
from rig.operator.commands import report
from rig.settings import Host, SettingsError, load_local, select
from rig.settings.active import ROOT
from rig.settings.hosts import LOCAL

COLOURS = {"good": "green", "bad": "red", "unknown": "yellow"}


@click.command("doctor")
@click.argument("host", required=False, metavar="[HOST]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(host: str | None, as_json: bool) -> None:
    """Examine the GPU and the gateway of a machine: what is wrong, and how to fix it.

    HOST: a machine of group_data/hosts.yml, or @local for this one; without it, all of them, or the lab that
    RIG_LAB names or that is running. Changes nothing. Exits with 0 when all is good, with 1 when something is wrong,
    with 2 when a machine could not be examined or the settings are not valid.
    """
    try:
        inventory = load_local(ROOT) if host == LOCAL else select(ROOT, os.environ)
        hosts = [inventory.machine(host)] if host else list(inventory.hosts.values())
    except SettingsError as error:
        report.problems(error.problems, as_json)
        raise SystemExit(report.WRONG) from None
    diagnoses = {machine.name: _examine(machine) for machine in hosts}
    if as_json:
        click.echo(json.dumps({"machines": {name: found.as_json() for name, found in diagnoses.items()}}, indent=2))
    else:
        for name, found in diagnoses.items():
            _show(name, found)
    raise SystemExit(max(found.code for found in diagnoses.values()))


@dataclass(frozen=True)
class _Diagnosis:
    """The checks of one machine, or why it could not be examined."""

    checks: tuple[Check, ...] = ()
    error: str | None = None

    @property
    def code(self) -> int:
        """The exit code."""
        if self.error is not None:
            return report.WRONG
        return report.FAILED if any(check.result == "bad" for check in self.checks) else 0

    def as_json(self) -> dict[str, Any]:
        """The diagnosis for a program."""
        return {"checks": [check.as_json() for check in self.checks], "error": self.error}


def _examine(host: Host) -> _Diagnosis:
    try:
        output = remote.run(host, facts.SCRIPT + gateway_doctor.script(host.settings), facts.SECONDS)
    except remote.CannotLook as error:
        return _Diagnosis(error=str(error))
    checks = diagnose(host.settings, facts.look(output))
    return _Diagnosis((*checks, *gateway.diagnose(host.settings, gateway_doctor.look(output))))


def _show(name: str, found: _Diagnosis) -> None:
    if found.error is not None:
        click.secho(found.error, fg="red", err=True)
        return
    click.secho(name, bold=True)
    for check in found.checks:
        click.echo(f"  {click.style(f'{check.result:<8}', COLOURS[check.result])} {check.name:<14} {check.evidence}")
        if check.remedy and check.result != "good":
            click.echo(f"{'':26}to do: {check.remedy}")
