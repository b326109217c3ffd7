"""Templates, rendered before the first change, so that a missing value stops the run with nothing changed."""

from __future__ import annotations

from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parent.parent


def render(target: str, **values: Any) -> str:
    """The text of the file at ``target`` on the machine; its template has the same path under templates/."""
    return _environment().get_template(f"{target.removeprefix('/')}.j2").render(**values)


def upload(text: str) -> StringIO:
    """Text in the form that pyinfra's ``files.put`` takes."""
    return StringIO(text)


def own_file(target: str) -> str:
    """The text of a file that is copied unchanged from the same path under files/."""
    return (ROOT / "files" / target.removeprefix("/")).read_text()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ROOT / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["yaml"] = _yaml
    return environment


class _Plain(yaml.SafeDumper):
    """Writes a value that occurs several times in full each time, without references to the first."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Plain, sort_keys=False, width=110).rstrip("\n")
