"""What of the distribution's monitoring programs the settings decide, as plain values."""

from __future__ import annotations

from rig import units
from rig.settings import Settings

TEXTFILES = "/var/lib/prometheus/node-exporter"
"""Where the distribution's node_exporter reads what others measured: files NAME.prom, renamed into place when whole."""

NODE_EXPORTER = "prometheus-node-exporter.service"
UNIT_OF = {"monitoring.node_exporter": NODE_EXPORTER}
"""The distribution's units that we configure, by their key in the settings."""
UNITS = tuple(UNIT_OF.values())

COLLECTORS = (
    "cpu",
    "cpufreq",
    "diskstats",
    "edac",
    "filefd",
    "filesystem",
    "hwmon",
    "loadavg",
    "meminfo",
    "netdev",
    "pressure",
    "stat",
    "systemd",
    "textfile",
    "thermal_zone",
    "time",
    "uname",
    "vmstat",
)
"""What is asked of the kernel. The default is three times as long, with RAID, NFS, InfiniBand and the like."""

NO_DISKS = "^/(dev|proc|run|sys|var/lib/(containerd|containers|docker))(/|$)"
"""Mount points that are no disks. The distribution leaves out /mnt and /media, too, where the models are."""

WATCHED_UNITS = "(rig-.+|prometheus.*|docker|ssh|cron|nvidia-.+)[.](service|timer)"
"""Units whose state is shown one by one; of all others only how many have failed."""


def packages(settings: Settings) -> tuple[str, ...]:
    """Packages of the distribution that the settings ask for."""
    return tuple(unit.removesuffix(".service") for unit in UNITS) if settings.monitoring.enabled else ()


def drop_in(unit: str) -> str:
    """The file that makes one of the distribution's units ours."""
    return f"/etc/systemd/system/{unit}.d/rig.conf"


def node_exporter(settings: Settings) -> list[str]:
    """Program and arguments; without an address it would listen on all of them."""
    return [
        "/usr/bin/prometheus-node-exporter",
        f"--web.listen-address=127.0.0.1:{settings.monitoring.node_exporter.port}",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in COLLECTORS),
        f"--collector.textfile.directory={TEXTFILES}",
        f"--collector.filesystem.mount-points-exclude={NO_DISKS}",
        f"--collector.systemd.unit-include={WATCHED_UNITS}",
    ]


def drop_ins(settings: Settings) -> dict[str, dict[str, object]]:
    """What each unit's drop-in is rendered with."""
    return {
        NODE_EXPORTER: {
            "exec_start": units.command_line(node_exporter(settings)),
            "memory": settings.monitoring.node_exporter.memory,
        }
    }
