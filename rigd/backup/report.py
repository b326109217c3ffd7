"""The state of the backups, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from rigd.backup import schedule, state, target
from rigd.backup.backup import Backup
from rigd.base import lock
from rigd.base.state import duration, size

UNKEPT = [
    "             nowhere else, as far as is known: without it the encrypted part is lost when this disk is;",
    "             write it down (sudo rig-backup password), and prove it (sudo rig-backup password --check)",
]


def status(backup: Backup) -> dict[str, Any]:
    """The complete status; times are seconds since the epoch. Reads only a few small files."""
    config, known, now = backup.config, state.read(backup.folder), backup.clock()
    since = backup.since()
    past = None if since is None else state.past(known, since)
    holder = lock.holder(backup.folder)
    last = None if known.last is None else asdict(known.last)
    if last is not None and last["result"] == "running" and holder is None:
        last["result"] = "cut off"
    checked = backup.folder / state.CHECKED
    return {
        "holder": holder,
        "last": last,
        "success": None if known.success is None else asdict(known.success),
        "verified": None if known.verified is None else asdict(known.verified),
        "failures": known.failures,
        "next": None if past is None else schedule.upcoming(config.schedule, config.zone, now, past),
        "due": backup.due(),
        "overdue": past is not None and schedule.overdue(config.schedule, config.zone, now, past),
        "target": {
            "path": config.target,
            "problem": target.problem(config),
            "shared_with_system": target.shared_with_system(config),
        },
        "earlier": known.success is None and (Path(config.target) / target.REPOSITORY / "config").exists(),
        "password": {
            "path": config.password,
            "there": since is not None,
            "checked": checked.stat().st_mtime if checked.exists() else None,
        },
    }


def problems(found: dict[str, Any]) -> list[str]:
    """The problems that need the owner."""
    if not found["password"]["there"]:
        return ["there is no password for the backup; a deploy makes one, or says how to bring the old one back"]
    said = [] if found["target"]["problem"] is None else [found["target"]["problem"]]
    last = found["last"]
    if last is not None and last["result"] == "failed":
        said += last["problems"]
    elif last is not None and last["result"] == "cut off":
        said.append("the last backup was cut off; cron begins another one, or: rig-backup run")
    elif found["overdue"]:
        said.append("a backup is overdue; does cron run? systemctl status cron")
    if found["verified"] is not None:
        said += found["verified"]["problems"]
        said.append("after the repair, have all of it read again: sudo rig-backup verify")
    return list(dict.fromkeys(said))


def text(found: dict[str, Any], zone: ZoneInfo) -> str:
    """The status as text."""

    def at(moment: float) -> str:
        return datetime.fromtimestamp(moment, zone).strftime("%a %Y-%m-%d %H:%M %Z")

    last, success = found["last"], found["success"]
    lines = []
    if found["holder"] is not None:
        lines.append(f"at work      PID {found['holder']}")
    if last is None and found["earlier"]:
        lines.append("last run     none on this machine, whose disk holds an earlier backup; bring that back first:")
        lines.append("             sudo rig-backup restore")
    elif last is None:
        lines.append("last run     none yet; make one now: sudo rig-backup run")
    else:
        took = "" if last["ended"] is None else f" after {duration(last['ended'] - last['started'])}"
        lines.append(f"last run     {at(last['started'])}, {last['result']}{took}")
    lines.append(f"last success {at(success['started']) if success else 'none yet'}")
    if success:
        held = f"snapshot {success['snapshot']}, {success['files']} model files ({size(success['bytes'])})"
        lines.append(f"it holds     {held}")
    if found["next"] is not None:
        lines.append(f"next run     {'now due' if found['due'] else at(found['next'])}")
    lines.append(f"target       {found['target']['path']}")
    if found["target"]["shared_with_system"] and found["target"]["problem"] is None:
        lines.append("             which is on the system's own disk: when that disk fails, the backup goes with it")
    lines.append(f"password     {found['password']['path']}")
    checked = found["password"]["checked"]
    lines += [f"             your copy of it was right on {at(checked)}"] if checked else UNKEPT
    return "\n".join(lines)
