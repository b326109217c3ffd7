"""The settings of the current run: inventory.py and deploy.py both get them here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from rig.settings.data import data_arguments
from rig.settings.hosts import LOCAL
from rig.settings.loading import Inventory, load_local, select
from rig.settings.root import Settings

ROOT = Path(__file__).parents[2]


def active_inventory(environ: Mapping[str, str] = os.environ, data: Mapping[str, str] | None = None) -> Inventory:
    """The machines of this run; without `data`, values come from the command line. Raises SettingsError."""
    values = data_arguments(sys.argv[1:]) if data is None else data
    return _selected(environ.get("RIG_LAB", ""), tuple(values.items()))


def active(host_name: str, environ: Mapping[str, str] = os.environ, data: Mapping[str, str] | None = None) -> Settings:
    """The settings of the machine with pyinfra's name `host_name`. Raises SettingsError.

    `pyinfra @local deploy.py` never runs inventory.py, so this machine is found without it.
    """
    values = data_arguments(sys.argv[1:]) if data is None else data
    if host_name == LOCAL:
        return _local(tuple(values.items())).machine(LOCAL).settings
    return active_inventory(environ, values).machine(host_name).settings


@cache
def _selected(lab: str, data: tuple[tuple[str, str], ...]) -> Inventory:
    return select(ROOT, {"RIG_LAB": lab}, dict(data))


@cache
def _local(data: tuple[tuple[str, str], ...]) -> Inventory:
    return load_local(ROOT, data=dict(data))
