"""Notify users who are logged in at the machine's own screens when the level changes."""

from __future__ import annotations

import pwd
import re
from dataclasses import dataclass

from rigd.base.command import Command, NoAnswer
from rigd.thermal import journal
from rigd.thermal.smi import first_line

TIMEOUT = 10.0
TEXTS = {
    "ok": ("normal", "The graphics card has cooled down."),
    "warning": ("normal", "The graphics card is nearly as hot as it may get."),
    "critical": ("critical", "The graphics card is too hot and slows itself down."),
}
"""Urgency and text of each level."""


@dataclass(frozen=True)
class Session:
    """A graphical session."""

    user: str
    uid: int

    @property
    def command(self) -> list[str]:
        """A command that reaches the session's own bus, as its own user."""
        group = pwd.getpwuid(self.uid).pw_gid
        bus = f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{self.uid}/bus"
        return ["setpriv", f"--reuid={self.uid}", f"--regid={group}", "--clear-groups", "env", bus]


def sessions(shown: str) -> list[Session]:
    """The graphical sessions in the output of `loginctl show-session`, each user once."""
    found = {}
    for block in shown.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        graphical = values.get("Type") in ("x11", "wayland", "mir") and values.get("State") != "closing"
        if graphical and values.get("User", "").isdecimal():
            found[int(values["User"])] = Session(values.get("Name", ""), int(values["User"]))
    return list(found.values())


def notify(level: str) -> bool:
    """Notify all sessions; False if one failed, which is in the journal."""
    command, told = Command(TIMEOUT), True
    try:
        listed = command.run(["loginctl", "list-sessions", "--no-legend"]).text
        names = [match[1] for match in re.finditer(r"^\s*(\S+)", listed, re.MULTILINE)]
        # loginctl takes one property at a time, unlike systemctl.
        wanted = [f"--property={name}" for name in ("Name", "User", "Type", "State")]
        show = ["loginctl", "show-session", *wanted, *names]
        there = sessions(command.run(show).text) if names else []
    except NoAnswer as error:
        journal.send(journal.WARNING, f"nobody could be notified: {error}", {"event": "notification"})
        return False
    urgency, text = TEXTS[level]
    for session in there:
        words = ["notify-send", f"--urgency={urgency}", "--app-name=rig-thermal", "Rig", text]
        try:
            answer = command.run([*session.command, *words])
            failed = first_line(answer.text) if answer.code else None
        except NoAnswer as error:
            failed = str(error)
        if failed is not None:
            told = False
            journal.send(journal.WARNING, f"{session.user} could not be notified: {failed}", {"event": "notification"})
    return told
