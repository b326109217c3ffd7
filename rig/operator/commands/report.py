"""Code shared by commands: exit codes, `--data`, and the report of problems in the settings."""

from __future__ import annotations

import json
from typing import Any

import click

from rig.settings import Problem

FAILED = 1
WRONG = 2
ALL = "group_data/all.yml"


def values(data: tuple[str, ...]) -> dict[str, str]:
    """The keys and values of `--data KEY=VALUE`."""
    return dict(_key_and_value(argument) for argument in data)


def _key_and_value(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not equals:
        raise click.BadParameter(f"'{argument}' has no value; write key=value", param_hint="--data")
    return key, value


def problems(found: tuple[Problem, ...], as_json: bool) -> None:
    """Print every problem: as JSON on standard output, or one line each on standard error."""
    if as_json:
        click.echo(json.dumps({"machines": {}, "problems": [_as_json(problem) for problem in found]}, indent=2))
        return
    for problem in found:
        click.echo(f"{click.style(problem.place, bold=True)}: {problem.sentence}", err=True)
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    click.secho(f"{count}; no connection was made", fg="red", err=True)


def _as_json(problem: Problem) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "path": problem.path, "message": problem.message}
