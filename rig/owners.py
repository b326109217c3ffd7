"""Things that a deploy neither changes nor refuses: they are the owner's. docs/failed-runs.md lists them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Left:
    """One such thing, and why it is not Rig's."""

    what: str
    why: str


LEFT = (
    Left("drop-ins of `docker.service`", "proxies and mirrors are set there; a port open to the network is seen"),
    Left(
        "`AuthorizedKeysCommand`, `TrustedUserCAKeys`, and files of keys outside of the home, in `/etc/ssh`",
        "who may log in by them is decided elsewhere; `sshd -T` shows them",
    ),
    Left("accounts, and keys of accounts, that `machine.users` does not name", "people and services that you added"),
    Left("groups and sudo rules of a user beyond those of the settings", "they are added to, never taken away"),
    Left("packages beyond those of the settings, and versions of what is not pinned", "apt keeps them up to date"),
    Left("containers, images, networks and volumes without the label `rig.engine`", "they are your own"),
    Left("tables of the packet filter other than `inet rig` and Docker's", "libvirt and fail2ban write their own"),
    Left("bridges with other names than Docker's, where the machine itself is on a bridge", "see firewall.md"),
    Left("keys of `daemon.json` that the settings do not name", "Docker's configuration is shared with yours"),
    Left("kernel parameters that `machine.sysctl` does not name", "the distribution's, or yours"),
    Left("other units, timers and cron jobs", "nothing of Rig depends on them"),
    Left("files in the models folder that are no models of the settings", "`rig-models prune` deletes what Rig left"),
    Left("BIOS, firmware, disks and their health", "node_exporter's figures of them are watched, nothing more"),
)
