"""Concern machine: packages, time zone, users, kernel parameters, the journal's limits, security updates."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api.deploy import deploy as concern

from rig import backup
from rig.facts.machine import Homes
from rig.facts.preflight import LoginFact
from rig.gateway import haproxy
from rig.gpu.driver import KEPT
from rig.monitoring import prometheus
from rig.operations import machine, packages, ssh, units
from rig.operations.files import written
from rig.render import own_file, render
from rig.settings import Settings
from rig.ssh import CONFIG

OWN_PACKAGES = [
    "ca-certificates",
    "curl",
    "nftables",
    "procps",
    "python3-prometheus-client",
    "python3-requests",
    "python3-venv",
    "unattended-upgrades",
    "util-linux",
]
"""Packages that the other concerns need."""

SYSCTL = "/etc/sysctl.d/60-rig.conf"
JOURNALD = "/etc/systemd/journald.conf.d/60-rig.conf"
PERIODIC = "/etc/apt/apt.conf.d/20auto-upgrades"
NEEDRESTART = "/etc/needrestart/conf.d/60-rig.conf"
UNATTENDED = "/etc/apt/apt.conf.d/52rig-unattended-upgrades"
TIMERS = ("apt-daily.timer", "apt-daily-upgrade.timer")
"""The timers that the two files above configure; with updates disabled there, they do nothing."""


@concern("machine")
def deploy(settings: Settings) -> None:
    """Set up the operating system, before any service uses it."""
    wanted = settings.machine
    packages.repaired(name="Finish interrupted package installations")
    others = {*prometheus.packages(settings), *backup.packages(settings), *haproxy.packages(settings)}
    packages.present(name="Install packages", packages=sorted({*OWN_PACKAGES, *wanted.packages, *others}))
    machine.time_zone(name=f"Set the time zone to {wanted.timezone}", zone=wanted.timezone)

    homes = host.get_fact(Homes, users=tuple(wanted.users)) if wanted.users else {}
    for user, person in wanted.users.items():
        home = homes.get(user, f"/home/{user}")
        machine.account(name=f"Create the user {user}", user=user, groups=person.groups, shell=person.shell, home=home)
        if person.authorized_keys is not None:
            machine.authorized_keys(
                name=f"Authorize the keys of {user}", user=user, folder=f"{home}/.ssh", keys=person.authorized_keys
            )

    login = host.get_fact(LoginFact, _sudo=False)
    ssh.key_logins(
        name="Let only keys log in over SSH",
        wanted=wanted.ssh.keys_only,
        login_keys=sorted(login.keys) if login.source is not None else (),
        text=own_file(CONFIG),
    )

    parameters = {key: str(value) for key, value in wanted.sysctl.items() if value is not None}
    written(name=f"Write {SYSCTL}", path=SYSCTL, text=render(SYSCTL, values=parameters))
    machine.sysctl(name="Apply kernel parameters", values=parameters, file=SYSCTL)

    written(name=f"Write {JOURNALD}", path=JOURNALD, text=render(JOURNALD, **wanted.journald.model_dump()))
    units.running(name="Apply the journal's limits", unit="systemd-journald.service", files=[JOURNALD])

    updates = wanted.security_updates
    written(name=f"Write {PERIODIC}", path=PERIODIC, text=render(PERIODIC, enabled=updates.enabled))
    written(name=f"Write {UNATTENDED}", path=UNATTENDED, text=render(UNATTENDED, blocklist=(*KEPT, *updates.blocklist)))
    # needrestart reads it: installed on Ubuntu, elsewhere perhaps later.
    written(name=f"Write {NEEDRESTART}", path=NEEDRESTART, text=own_file(NEEDRESTART))
    for timer in TIMERS:
        units.running(name=f"Run {timer}", unit=timer)
