"""Preflight: every failure that can be foreseen happens here, before the first change, with its remedy."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from functools import partial

from pyinfra import logger, state
from pyinfra.api import Config, DeployError, Host

from rig import containers
from rig.engines import native
from rig.facts.machine import FileText, Homes
from rig.facts.preflight import LoginFact, MachineFact
from rig.facts.secrets import Keys, KeyState
from rig.gpu import driver as gpu
from rig.operator import lock, reads
from rig.preflight import problems, used
from rig.preflight.machine import Machine
from rig.settings import Settings, SettingsError, active
from rig.settings.secrets import key_variable

APT_WAIT = 600
"""Seconds to wait for a running apt before the deploy gives up."""


def check(host: Host, config: Config) -> tuple[Settings, Machine]:
    """The machine's settings, and preflight's facts. Raises DeployError with every reason not to go on."""
    settings = _settings(host)
    _read_ahead(host, settings)
    login = host.get_fact(LoginFact, _sudo=False)
    ssh = settings.firewall.ssh if settings.firewall.enabled else None
    asks = bool(config.SUDO_PASSWORD) or sys.stdin.isatty()
    wanted = settings.machine
    reasons = problems.login_problems(
        login, sudo_password=asks, ssh=ssh, users=wanted.users, keys_only=wanted.ssh.keys_only
    )
    _refuse(host, reasons)
    config.SUDO = login.uid != 0

    found = _look(host, settings, sudo=config.SUDO)
    # A dry run changes nothing, and may run beside a deploy.
    if "--dry" not in sys.argv:
        lock.hold(host, sudo=config.SUDO, password=config.SUDO_PASSWORD)
    begin = time.monotonic()
    while found.apt_holder is not None and time.monotonic() - begin < APT_WAIT:
        logger.info(f"{host.print_prefix}waiting for {found.apt_holder}, which holds apt's lock")
        time.sleep(5)
        reads.drop(state, host)
        found = _look(host, settings, sudo=config.SUDO)
    if found.apt_holder is not None:
        _refuse(host, [f"{found.apt_holder} has held apt's lock for {APT_WAIT // 60} minutes; end it, and run again"])
    found = replace(found, malformed_keys=_malformed_keys(host, settings, sudo=config.SUDO))
    _refuse(host, problems.problems(settings, found))
    return settings, found


def _read_ahead(host: Host, settings: Settings) -> None:
    """Read everything needed before the first operation, in one round trip; with sudo as the inventory expects it."""
    sudo = bool(host.data.get("_sudo", False))
    users = tuple(settings.machine.users)
    keyrings = (containers.KEYRING, gpu.DRIVER_KEYRING, gpu.TOOLKIT_KEYRING)
    reads.ahead(
        state,
        host,
        lambda: host.get_fact(LoginFact, _sudo=False),
        lambda: _look(host, settings, sudo=sudo),
        lambda: _malformed_keys(host, settings, sudo=sudo),
        lambda: host.get_fact(Homes, users=users, _sudo=sudo) if users else None,
        *(partial(host.get_fact, FileText, path=path, _sudo=sudo) for path in keyrings),
    )


def _malformed_keys(host: Host, settings: Settings, *, sudo: bool) -> tuple[str, ...]:
    variables = tuple(key_variable(consumer) for consumer in settings.consumers)
    own = {name: key_variable(name) for name in native.engines(settings)}
    state: KeyState = host.get_fact(Keys, variables=variables, native=own, _sudo=sudo)
    return state.malformed


def _settings(host: Host) -> Settings:
    try:
        return active(host.name, os.environ)
    except SettingsError as error:
        print(error.report(), file=sys.stderr)
        raise SystemExit(2) from None


def _look(host: Host, settings: Settings, *, sudo: bool) -> Machine:
    found: Machine = host.get_fact(
        MachineFact,
        paths=problems.asked_paths(settings),
        files=tuple(str(path) for path in problems.asked_files(settings)),
        disks=problems.asked_disks(settings),
        images=problems.asked_images(settings),
        servers=used.servers(settings),
        _sudo=sudo,
    )
    return found


def _refuse(host: Host, reasons: list[str]) -> None:
    if reasons:
        lines = "\n".join(f"  - {reason}" for reason in reasons)
        raise DeployError(f"{host.name} cannot be deployed, and nothing was changed:\n{lines}")
