"""The machines of group_data/hosts.yml, or the lab, and how pyinfra reaches them."""

import sys as _sys
from os import geteuid as _geteuid
from pathlib import Path as _Path
from typing import Any as _Any

from pyinfra import logger as _logger

# pyinfra puts its working directory on the path, which need not be this folder.
if str(_Path(__file__).resolve().parent) not in _sys.path:
    _sys.path.insert(0, str(_Path(__file__).resolve().parent))

from rig.operator.connection import Explanations as _Explanations
from rig.operator.connection import known_as as _known_as
from rig.operator.known_hosts import remark as _unknown
from rig.operator.known_hosts import usable as _usable
from rig.settings import Host as _Host
from rig.settings import SettingsError as _SettingsError
from rig.settings import active_inventory as _active_inventory


def _connection(host: _Host) -> dict[str, _Any]:
    """pyinfra's data to log in. An unknown or different host key is refused."""
    if host.is_local:
        return {"_sudo": _geteuid() != 0}
    connection = {
        "ssh_hostname": host.address,
        "ssh_port": host.port,
        "ssh_user": host.user,
        "ssh_known_hosts_file": str(_usable(host.known_hosts_file, _known_as(host))),
        "ssh_strict_host_key_checking": "yes",
        "_sudo": host.user != "root",
    }
    return connection | ({"ssh_key": str(host.identity_file)} if host.identity_file else {})


def _remark(host: _Host) -> str | None:
    """The remedy for a machine whose host key is unknown, which pyinfra will refuse."""
    unknown = None if host.is_local else _unknown(host.known_hosts_file, _known_as(host))
    if unknown is None:
        return None
    login = f"ssh -p {host.port} -o UserKnownHostsFile={host.known_hosts_file} {host.user}@{host.address}"
    return f"{host.name}: {unknown}; log in once and compare it: {login}"


try:
    _inventory = _active_inventory()
except _SettingsError as _error:
    print(_error.report(), file=_sys.stderr)
    raise SystemExit(2) from None

# A missing key file ends pyinfra in a traceback.
_keyless = [
    f"{_host.name}: the key to log in with, {_host.identity_file}, is not there; correct identity_file in hosts.yml"
    for _host in _inventory.hosts.values()
    if _host.identity_file is not None and not _host.identity_file.is_file()
]
if _keyless:
    print("\n".join(_keyless), file=_sys.stderr)
    raise SystemExit(2)

_logger.addFilter(_Explanations(_inventory.hosts.values()))
for _text in (_inventory.remark, *map(_remark, _inventory.hosts.values())):
    if _text:
        print(_text, file=_sys.stderr)

# pyinfra makes a group of every list in this module.
all = [(_host.connector_name, _connection(_host)) for _host in _inventory.hosts.values()]
for _group in sorted({_name for _host in _inventory.hosts.values() for _name in _host.groups}):
    globals()[_group] = [
        _host.connector_name for _host in _inventory.hosts.values() if _group in _host.groups
    ]
