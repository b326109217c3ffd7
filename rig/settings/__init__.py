"""What the owner says in group_data/*.yml: read, laid over each other, checked, and handed out as plain values."""

from rig.settings.hosts import Host, HostsFile, lab_is_running
from rig.settings.loading import Inventory, load, load_local, select
from rig.settings.problems import NoMachine, Problem, SettingsError
from rig.settings.root import Settings
from rig.settings.secrets import key_variable
from rig.settings.types import size_bytes

__all__ = [
    "Host",
    "HostsFile",
    "Inventory",
    "NoMachine",
    "Problem",
    "Settings",
    "SettingsError",
    "key_variable",
    "lab_is_running",
    "load",
    "load_local",
    "select",
    "size_bytes",
]
