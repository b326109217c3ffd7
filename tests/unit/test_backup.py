"""The settings of rig-backup and cron, and the password: made once, and never beside a backup that it would not
open."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyinfra.api import OperationError

from rig import backup
from rig.facts import backup as facts
from rig.operations import backup as operations
from rig.render import render
from rigd.backup import metrics, password, target, vault
from rigd.backup.config import PASSWORD, PATH, STATE, Config, Keep, dump, parse
from rigd.backup.schedule import Schedule
from rigd.backup.state import Run, State
from rigd.base.errors import BadInput
from rigd.metrics.config import TEXTFILES
from tests.unit.project import ROOT, Project
from tests.unit.sample import Here, needs, needs_root, settings, tree

MOUNTS = "36 35 8:17 / /mnt/backup rw,noatime shared:1 - ext4 /dev/sdb1 rw\n"

# The program's settings


def test_every_setting_reaches_the_program() -> None:
    changed = settings(
        {
            "machine/timezone": "Europe/Berlin",
            "storage/backup/path": "/srv/copies",
            "storage/backup/must_be_mount": True,
            "backup": {
                "enabled": True,
                "schedule": {"days": ["saturday", "monday"], "time": "23:07"},
                "models": False,
                "paths": ["/srv/own"],
                "keep": {"daily": 1, "weekly": 2, "monthly": 3, "yearly": 0},
                "check_parts": 5,
            },
        }
    )
    wanted = Config(
        target="/srv/copies",
        must_be_mount=True,
        timezone="Europe/Berlin",
        metrics=TEXTFILES,
        schedule=Schedule((0, 5), 23, 7),
        models=False,
        paths=("/var/lib/rig/gateway/keys.json", "/srv/own"),
        keep=Keep(1, 2, 3, 0),
        check_parts=5,
    )
    assert backup.config(changed) == wanted
    assert parse(dump(wanted)) == wanted


def test_the_shipped_settings_are_sunday_at_three() -> None:
    assert backup.config(settings()).schedule == Schedule((6,), 3, 0)


def test_a_disk_that_the_settings_name_has_to_be_there() -> None:
    mount = {"source": "LABEL=backup", "filesystem": "ext4", "options": ["nofail"]}
    assert not backup.config(settings()).must_be_mount
    assert backup.config(settings({"storage/backup/mount": mount})).must_be_mount


def test_cron_asks_in_the_minute_of_the_settings_and_every_quarter_of_an_hour() -> None:
    changed = settings({"backup/schedule/time": "04:20"})
    text = render(backup.CRON, **backup.cron_values(changed))
    (line,) = [line for line in text.splitlines() if not line.startswith("#") and "rig-backup" in line]
    assert line == "5,20,35,50 * * * * root systemd-cat --identifier=rig-backup rig-backup run --if-due"
    # Cron reads neither a last line without an end nor a file with a dot in its name.
    assert text.endswith("\n")
    assert "." not in Path(backup.CRON).name


@pytest.mark.parametrize("enabled", [True, False])
def test_the_records_of_the_clients_keys_are_backed_up_whether_there_is_a_gateway_or_not(enabled: bool) -> None:
    assert "/var/lib/rig/gateway/keys.json" in backup.config(settings({"gateway/enabled": enabled})).sources


def test_packages_are_asked_for_only_with_backups() -> None:
    assert {"cron", "restic", "rsync"} <= set(backup.packages(settings()))
    assert backup.packages(settings({"backup/enabled": False})) == ()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{schedule: {time: "3:00"}}', "'3:00' is not a time of day; write hours and minutes in quotes"),
        ('{schedule: {time: "24:00"}}', "'24:00' is not a time of day"),
        ("{schedule: {time: 13:00}}", "because 13:00 stands without quotes"),
        ("{schedule: {days: []}}", "names no day; write at least one, or backup.enabled: false"),
        ("{schedule: {days: [sundy]}}", "sunday"),
        ("{keep: {daily: 0}}", "backup.keep.daily: "),
        ("{check_parts: 0}", "backup.check_parts: "),
        ("{paths: [relative]}", "'relative' is not an absolute path"),
        ("{paths: [/mnt]}", "/mnt and the backup in /mnt/backup hold each other"),
        ("{paths: [/mnt/backup/inside]}", "/mnt/backup/inside and the backup in /mnt/backup hold each other"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(project: Project, written: str, said: str) -> None:
    project.write("hosts.yml", "hosts:\n  box: {address: 192.168.1.20, user: owner, groups: [box]}\n")
    project.write("box.yml", f"backup: {written}\n")
    (told,) = project.problems()
    assert told.startswith("group_data/box.yml:1: backup.")
    assert said in told


# restic's arguments


def test_retention_names_what_is_kept_and_nothing_that_is_not() -> None:
    words = vault.forget_words(Keep(daily=7, weekly=0, monthly=12, yearly=3))
    assert words[-7:] == ["--keep-daily", "7", "--keep-monthly", "12", "--keep-yearly", "3", "--prune"]
    assert words[words.index("--group-by") + 1] == ""
    assert words[words.index("--tag") + 1] == vault.TAG


@pytest.mark.parametrize("parts", [1, 3, 8])
def test_every_part_has_its_turn(parts: int) -> None:
    asked = [vault.check_words(run, parts)[-1] for run in range(parts)]
    assert asked == [f"--read-data-subset={part}/{parts}" for part in range(1, parts + 1)]
    assert vault.check_words(parts, parts) == vault.check_words(0, parts)


def test_the_password_is_left_out_and_no_source_is_taken_for_an_option() -> None:
    words = vault.backup_words(["-rf", "/etc/rig"], PASSWORD)
    assert words[words.index("--exclude") + 1] == PASSWORD
    assert words[words.index("--") :] == ["--", "-rf", "/etc/rig"]


def test_a_password_that_is_not_typed_is_asked_for_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("getpass.getpass", nothing)
    with pytest.raises(BadInput, match="what you typed holds no password"):
        password.given(None)


# The target


def test_only_the_mount_itself_counts_as_the_disk(tmp_path: Path) -> None:
    config = Config(target=str(tmp_path), must_be_mount=True, timezone="Etc/UTC", metrics="/m")
    mounted = MOUNTS.replace("/mnt/backup", str(tmp_path))
    assert target.problem(config, mounts=mounted) is None
    for other in (MOUNTS, MOUNTS.replace("/mnt/backup", f"{tmp_path}/below"), ""):
        found = target.problem(config, mounts=other)
        assert found is not None
        assert f"{tmp_path} is not mounted" in found


# Metrics


def test_every_metric_is_described_on_its_page() -> None:
    page = (ROOT / "docs/backup.md").read_text()
    assert set(re.findall(r"(?m)^\| `(rig_backup_\w+)` \|", page)) == set(metrics.METRICS)


def test_a_run_that_is_at_work_has_no_result_yet() -> None:
    config = backup.config(settings())
    known = State(last=Run(1000.0), success=Run(500.0, 600.0, "done"), failures=1)
    text = metrics.render(config, known, since=100.0, now=1001.0, checked=False)
    assert "rig_backup_last_success_timestamp_seconds 600.0\n" in text
    assert "rig_backup_last_run_timestamp_seconds 1000.0\n" in text
    assert "rig_backup_last_run_success" not in text


# The password


@dataclass
class Etc:
    """A machine's /etc/rig, and its backup disk."""

    folder: Path
    here: Here

    @property
    def file(self) -> Path:
        return self.folder / "backup-password"

    def make(self, repository: str = "/nowhere") -> list[Any]:
        commands: Iterator[Any] = operations.password._inner(repository=repository)
        done = self.here.carry_out(commands)
        assert [command.stderr for command in done if command.returncode] == []
        return done


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Etc:
    folder = tmp_path / "etc"
    folder.mkdir()

    def rewrite(command: str) -> str:
        return command.replace(PASSWORD, str(folder / "backup-password")).replace("flock /etc/rig ", f"flock {folder} ")

    here = Here(rewrite)
    monkeypatch.setattr(operations, "host", here)
    return Etc(folder, here)


@needs_root
@needs("flock")
def test_a_password_is_made_once_with_256_bits_for_root_alone(etc: Etc) -> None:
    assert len(etc.make()) == 1
    first = etc.file.read_text()
    assert re.fullmatch(r"[0-9a-f]{64}\n", first)
    assert tree(etc.folder) == {"backup-password": "600"}
    assert etc.make() == []
    etc.file.chmod(0o644)
    assert len(etc.make()) == 1
    assert stat.S_IMODE(etc.file.stat().st_mode) == 0o600
    assert etc.file.read_text() == first


@needs_root
@needs("flock")
def test_what_a_power_cut_left_of_a_password_is_none(etc: Etc) -> None:
    (etc.folder / "backup-password.new").write_text("half")
    etc.make()
    assert tree(etc.folder) == {"backup-password": "600"}
    assert len(etc.file.read_text()) == 65


@needs_root
def test_beside_the_backup_of_an_earlier_life_no_password_is_made(etc: Etc, tmp_path: Path) -> None:
    repository = tmp_path / "disk with spaces/restic"
    repository.mkdir(parents=True)
    (repository / "config").write_text("")
    with pytest.raises(OperationError, match="sudo rig-backup restore"):
        etc.make(str(repository))
    assert tree(etc.folder) == {}
    etc.file.write_text("brought back\n")
    etc.make(str(repository))
    assert etc.file.read_text() == "brought back\n"


def test_nothing_is_removed_where_no_backup_was_ever_made(etc: Etc, tmp_path: Path) -> None:
    cron = tmp_path / "cron"
    assert etc.here.carry_out(operations.retired._inner(files=[str(cron)])) == []
    cron.write_text("")
    assert len(etc.here.carry_out(operations.retired._inner(files=[str(cron)]))) == 1
    assert not cron.exists()


def test_where_no_backups_are_made_no_figures_of_them_are_left() -> None:
    assert (backup.CRON, PATH, f"{TEXTFILES}/rig_backup.prom") == backup.NEEDLESS


def test_the_fact_tells_a_machine_without_anything_from_one_with_both(etc: Etc, tmp_path: Path) -> None:
    found: facts.BackupState = etc.here.get_fact(facts.Backup, repository=str(tmp_path / "none"))
    assert found == facts.BackupState("", False)


def test_the_state_lies_where_nobody_else_writes() -> None:
    assert STATE.startswith("/var/lib/rig/")
