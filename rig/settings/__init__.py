"""The owner's settings in group_data/*.yml: read, merged, checked, and returned per machine."""

from rig.capacity.units import size_bytes
from rig.settings.active import active, active_inventory
from rig.settings.hosts import Host, HostsFile, lab_is_running
from rig.settings.loading import Inventory, load, load_local, preview, select
from rig.settings.problems import NoMachine, Problem, SettingsError
from rig.settings.root import Settings
from rig.settings.secrets import key_variable

__all__ = [
    "Host",
    "HostsFile",
    "Inventory",
    "NoMachine",
    "Problem",
    "Settings",
    "SettingsError",
    "active",
    "active_inventory",
    "key_variable",
    "lab_is_running",
    "load",
    "load_local",
    "preview",
    "select",
    "size_bytes",
]
