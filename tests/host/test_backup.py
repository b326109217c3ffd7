"""Concern backup: cron checks at the configured times, and only root can read the backup's sources."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from rig.settings import Settings
from rigd.gateway.config import RECORDS
from tests.host.machine import Machine

CRON = "/etc/cron.d/rig-backup"
CONFIG = "/etc/rig/backup.json"
PASSWORD = "/etc/rig/backup-password"
PROGRAM = "/usr/local/bin/rig-backup"
METRICS = "/var/lib/prometheus/node-exporter/rig_backup.prom"
FIGURES = "/etc/rig/metrics.json"
"""The settings that the deploy writes for the metrics."""
A_QUESTION = 20 * 60
"""Seconds within which cron checks, as it does so every quarter of an hour."""
WEEK = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


@pytest.fixture(scope="module")
def backed_up(settings: Settings) -> None:
    """Skip tests of backups on a machine without them."""
    if not settings.backup.enabled:
        pytest.skip("the settings want no backups")


def test_cron_runs_now_and_after_a_boot(machine: Machine, backed_up: None) -> None:
    shown = machine.unit("cron.service", "ActiveState", "UnitFileState")
    assert (shown["ActiveState"], shown["UnitFileState"]) == ("active", "enabled")


def test_cron_asks_at_the_time_of_the_settings_or_never(machine: Machine, settings: Settings) -> None:
    """Cron ignores a file that others can change, or whose last line has no end."""
    if not settings.backup.enabled:
        assert {machine.stat(path) for path in (CRON, CONFIG, METRICS)} == {"missing"}
        return
    assert machine.stat(CRON) == "644 root root"
    lines = machine.lines(f"grep -v '^#' {CRON}")
    (minutes, rest) = next(line for line in lines if "rig-backup" in line).split(" ", 1)
    assert str(int(settings.backup.schedule.time.split(":")[1])) in minutes.split(",")
    assert rest == "* * * * root systemd-cat --identifier=rig-backup rig-backup run --if-due"
    assert machine.run(f"tail -c 1 {CRON} | od -An -c | tr -d ' '") == "\\n"


def test_no_backup_has_failed_and_none_is_overdue(machine: Machine, backed_up: None) -> None:
    status = _status(machine)
    assert status["problems"] == []
    assert status["overdue"] is False
    # A run in progress counts as failed until it has succeeded.
    at_work = status["last"] is not None and status["last"]["result"] == "running"
    assert status["failures"] == int(at_work)


def test_the_next_backup_is_due_on_a_day_and_at_a_time_of_the_settings(
    machine: Machine, settings: Settings, backed_up: None
) -> None:
    status = _status(machine)
    if status["due"] or status["failures"]:
        pytest.skip("one that was missed, or has failed, is made up for at another time")
    shown = f"TZ={settings.machine.timezone} date --date=@{status['next']}"
    day, time = machine.run(f"{shown} '+%u %H:%M'").split()
    assert WEEK[int(day) - 1] in settings.backup.schedule.days
    assert time == settings.backup.schedule.time


def test_program_is_told_what_the_settings_say(machine: Machine, settings: Settings, backed_up: None) -> None:
    assert machine.stat(CONFIG) == "644 root root"
    told = machine.json(f"cat {CONFIG}")
    folder = settings.storage.backup
    assert told["target"] == folder.path
    assert told["must_be_mount"] is (folder.must_be_mount or folder.mount is not None)
    assert told["timezone"] == settings.machine.timezone
    assert told["models"] is settings.backup.models
    # The records of clients' keys always are.
    assert told["paths"] == [RECORDS, *settings.backup.paths]
    assert told["keep"] == settings.backup.keep.model_dump()
    assert told["check_parts"] == settings.backup.check_parts
    assert [WEEK[day] for day in told["schedule"]["days"]] == [
        day for day in WEEK if day in settings.backup.schedule.days
    ]


def test_backup_can_be_written_to_the_disk_that_is_there(machine: Machine, backed_up: None) -> None:
    assert _status(machine)["target"]["problem"] is None


@pytest.mark.parametrize("program", ["restic", "rsync", "ionice", "setpriv", "systemd-cat"])
def test_program_that_does_the_work_is_there(machine: Machine, backed_up: None, program: str) -> None:
    assert machine.run(f"command -v {program}")


def test_password_is_roots_alone_and_long(machine: Machine, backed_up: None) -> None:
    assert machine.stat(PASSWORD) == "600 root root"
    assert machine.run(f"grep -cE '^[^[:space:]]{{20,}}$' {PASSWORD} || true") == "1"
    assert int(machine.run(f"tr -d '\\n' <{PASSWORD} | fold -w1 | sort -u | wc -l")) > 8


PLACES = {
    "command lines": "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'",
    "environments": "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'",
    "the journal": "journalctl --quiet --no-pager --all --output=cat --lines=200000",
    "other files under /etc": f"find /etc -xdev -type f ! -path {PASSWORD} -exec cat {{}} +",
    "logs and state": "find /var/log /var/lib/rig /var/lib/prometheus -xdev -type f ! -path '/var/log/journal/*' "
    "-exec cat {} + 2>/dev/null",
    "temporary files": "find /tmp /var/tmp -xdev -type f -exec cat {} +",
    "the backup itself": "find @BACKUP@ -xdev -type f -size -1M -exec cat {} +",
}


def test_the_search_for_the_password_finds_it_where_it_is(machine: Machine, backed_up: None) -> None:
    """Without this, the test below could not fail."""
    assert _found(machine, f"cat {PASSWORD}") == 1


@pytest.mark.parametrize("place", PLACES)
def test_password_can_be_found_nowhere_else(machine: Machine, settings: Settings, backed_up: None, place: str) -> None:
    assert _found(machine, PLACES[place].replace("@BACKUP@", settings.storage.backup.path)) == 0


def test_metrics_are_those_of_the_last_backup_and_can_be_read_by_node_exporter(
    machine: Machine, settings: Settings, backed_up: None
) -> None:
    """They are written at cron's first check."""
    if not settings.monitoring.enabled:
        pytest.skip("nobody reads them, as the settings want nothing measured")
    if machine.stat(METRICS) == "missing" and _age(machine) < A_QUESTION:
        pytest.skip("cron had no time to ask yet")
    assert machine.stat(METRICS) == "644 root root"
    shown = dict(re.findall(r"(?m)^(rig_backup_\w+) (\S+)$", machine.run(f"cat {METRICS}")))
    success = _status(machine)["success"]
    made = float(machine.run(f"stat -c %.9Y {PASSWORD}"))
    expected = made if success is None else success["ended"]
    assert float(shown["rig_backup_last_success_timestamp_seconds"]) == pytest.approx(expected, abs=1)


def _age(machine: Machine) -> float:
    """Seconds since cron could first check: since the deploy wrote its file and the settings, or since it started.

    Not since the boot: a container's uptime is that of the machine around it.
    """
    deployed = f"stat -c %Y {CRON} {FIGURES}"
    started = "systemctl show --timestamp=unix --property=ActiveEnterTimestamp --value cron.service | tr -d @"
    return float(machine.run(f"echo $(($(date +%s) - $({{ {deployed}; {started}; }} | sort -n | tail -n 1)))"))


def _status(machine: Machine) -> dict[str, Any]:
    """The program's status; exit status 1 is accepted, because a test of its own covers problems."""
    code, output, errors = machine.attempt(f"{PROGRAM} status --json")
    assert code in (0, 1), errors
    found: dict[str, Any] = json.loads(output)
    return found


def _found(machine: Machine, producer: str) -> int:
    """Number of lines in the output that contain the password, which goes only through a pipe."""
    return int(machine.run(f"{{ {producer}\n}} | {{ grep --text -cF -f {PASSWORD} || [ $? = 1 ]; }}"))
