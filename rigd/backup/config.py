"""The settings of rig-backup: a file that a deploy writes."""

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
"""Keys, settings, and Prometheus' rules: always backed up."""
PASSWORD = "/etc/rig/backup-password"
"""Opens the encrypted part; made by the deploy, 0600 from its first byte."""
STATE = "/var/lib/rig/backup"


@dataclass(frozen=True)
class Keep:
    """Of how many of the last days, weeks, months and years the newest snapshot is kept."""

    daily: int = 7
    weekly: int = 8
    monthly: int = 12
    yearly: int = 3


@dataclass(frozen=True)
class Config:
    """Everything that can be set."""

    target: str
    """Folder of all backups."""
    must_be_mount: bool
    """Whether the folder is another disk's, and nothing may be written when that is not there."""
    timezone: str
    metrics: str
    """Folder of node_exporter's text files; it need not be there."""
    schedule: Schedule = field(default_factory=Schedule)
    models: bool = True
    """Whether model files are copied."""
    paths: tuple[str, ...] = ()
    """What is encrypted besides our own settings and keys; what is missing is left out."""
    keep: Keep = field(default_factory=Keep)
    check_parts: int = 8
    """Each run reads one of so many parts of everything again."""
    own: str = OWN
    manifest: str = manifest.PATH
    password: str = PASSWORD
    state: str = STATE

    @property
    def zone(self) -> ZoneInfo:
        """Raises BadInput where the machine does not know it."""
        try:
            return ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise BadInput(
                f"the time zone {self.timezone} is not known here; install tzdata, or correct machine.timezone"
            ) from None

    @property
    def sources(self) -> tuple[str, ...]:
        """What is encrypted."""
        return tuple(dict.fromkeys((self.own, *self.paths)))


def dump(config: Config) -> str:
    """The file's text."""
    return json.dumps(asdict(config), indent=2) + "\n"


def parse(text: str) -> Config:
    """The settings in the file's text. Raises Unusable."""
    return configuration.parse(Config, text)
