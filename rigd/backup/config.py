"""The settings of rig-backup; the deploy writes the file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from rigd.backup.schedule import Schedule
from rigd.base import configuration
from rigd.base.errors import BadInput
from rigd.models import manifest

PATH = "/etc/rig/backup.json"
OWN = "/etc/rig"
"""Always backed up: keys, settings and Prometheus' rules."""
PASSWORD = "/etc/rig/backup-password"
"""The password of the encrypted part; made by the deploy, 0600 from its first byte."""
STATE = "/var/lib/rig/backup"


@dataclass(frozen=True)
class Keep:
    """Number of recent days, weeks, months and years whose newest snapshot is kept."""

    daily: int = 7
    weekly: int = 8
    monthly: int = 12
    yearly: int = 3


@dataclass(frozen=True)
class Config:
    """All settings."""

    target: str
    """Folder of all backups."""
    must_be_mount: bool
    """Require that the folder is on another disk; write nothing while that disk is missing."""
    timezone: str
    metrics: str
    """Folder of node_exporter's text files; it may be missing."""
    schedule: Schedule = field(default_factory=Schedule)
    models: bool = True
    """Copy model files."""
    paths: tuple[str, ...] = ()
    """Further paths to encrypt, besides Rig's own settings and keys; missing ones are skipped."""
    keep: Keep = field(default_factory=Keep)
    check_parts: int = 8
    """Number of parts; each run reads one of them again."""
    own: str = OWN
    manifest: str = manifest.PATH
    password: str = PASSWORD
    state: str = STATE

    @property
    def zone(self) -> ZoneInfo:
        """The time zone. Raises BadInput if the machine does not know it."""
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise BadInput(
                f"the time zone {self.timezone} is not known here; install tzdata, or correct machine.timezone"
            ) from None

    @property
    def sources(self) -> tuple[str, ...]:
        """All paths to encrypt."""
        return tuple(dict.fromkeys((self.own, *self.paths)))


def dump(config: Config) -> str:
    """The settings as the file's text."""
    return json.dumps(asdict(config), indent=2) + "\n"


def parse(text: str) -> Config:
    """The settings in the file's text. Raises Unusable."""
    return configuration.parse(Config, text)
