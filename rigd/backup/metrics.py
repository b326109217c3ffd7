"""The backups as Prometheus metrics for node_exporter; docs/backup.md describes each name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rigd.backup import schedule
from rigd.backup.config import Config
from rigd.backup.state import State, past
from rigd.base import exposition, files
from rigd.base.exposition import Metric, Sample

NAME = "rig_backup.prom"

METRICS = {
    "rig_backup_last_success_timestamp_seconds": "When the last backup without a problem ended; before the first one, "
    "when the machine got its password",
    "rig_backup_last_run_timestamp_seconds": "When the last backup began, however it ended",
    "rig_backup_last_run_success": "Whether the last backup ended without a problem",
    "rig_backup_last_run_duration_seconds": "How long the last backup took",
    "rig_backup_problems": "What was wrong in the last backup, a number",
    "rig_backup_next_run_timestamp_seconds": "When the next backup is due",
    "rig_backup_model_files": "Model files in the backup that are known to be right",
    "rig_backup_model_bytes": "Bytes of these",
    "rig_backup_password_checked": "Whether the owner's copy of the password was ever found to be right",
}


def render(config: Config, state: State, since: float, now: float, checked: bool) -> str:
    """The metrics as the file's text."""
    return exposition.text(
        Metric(name, METRICS[name], (Sample(value, {}),))
        for name, value in _samples(config, state, since, now, checked)
    )


def _samples(config: Config, state: State, since: float, now: float, checked: bool) -> Iterator[tuple[str, float]]:
    success, last = state.success, state.last
    yield "rig_backup_last_success_timestamp_seconds", since if success is None else success.ended or success.started
    if last is not None:
        yield "rig_backup_last_run_timestamp_seconds", last.started
        if last.ended is not None:
            yield "rig_backup_last_run_success", last.result == "done"
            yield "rig_backup_last_run_duration_seconds", last.ended - last.started
            yield "rig_backup_problems", len(last.problems)
            yield "rig_backup_model_files", last.files
            yield "rig_backup_model_bytes", last.bytes
    upcoming = schedule.upcoming(config.schedule, config.zone, now, past(state, since))
    yield "rig_backup_next_run_timestamp_seconds", upcoming
    yield "rig_backup_password_checked", checked


def write(config: Config, text: str) -> None:
    """Write the file atomically, if node_exporter's folder exists."""
    folder = Path(config.metrics)
    if not folder.is_dir():
        return
    path = folder / NAME
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        files.replace(path, text)
