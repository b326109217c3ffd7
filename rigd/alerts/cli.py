"""The command line rig-alert."""

from __future__ import annotations

import argparse
import sys

from rigd.alerts import trial
from rigd.alerts.alertmanager import Alertmanager, Silent
from rigd.base import configuration
from rigd.base.errors import BadInput
from rigd.metrics import config

OK, FAILED, BAD_INPUT = 0, 1, 2
CODES = "Exits with 0 when all is well, 1 when something fires or a receiver refused, 2 without an answer."


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        wanted = configuration.read(options.config, config.parse)
    except BadInput as error:
        print(f"rig-alert: {error}", file=sys.stderr)
        return BAD_INPUT
    try:
        alertmanager = Alertmanager(wanted.alertmanager)
        return _test(alertmanager, options.receivers) if options.command == "test" else _list(alertmanager)
    except Silent as error:
        print(f"rig-alert: {error}", file=sys.stderr)
        return BAD_INPUT


def _test(alertmanager: Alertmanager, asked: list[str]) -> int:
    known = alertmanager.receivers()
    strangers = [name for name in asked if name not in known]
    if strangers or not known:
        wrong = f"no receiver is called {', '.join(strangers)}" if strangers else "no receiver is set"
        remedy = f"there are: {', '.join(known)}" if known else "write one into monitoring.receivers"
        print(f"rig-alert: {wrong}; {remedy}", file=sys.stderr)
        return BAD_INPUT
    # One after the other: Alertmanager counts accepted messages by kind, not by receiver.
    verdicts = []
    for name in asked or known:
        verdict = trial.send(alertmanager, name, trial.complaint)
        print(f"{name}: {'accepted' if verdict.accepted else f'NOT accepted: {verdict.reason}'}", flush=True)
        verdicts.append(verdict.accepted)
    return OK if all(verdicts) else FAILED


def _list(alertmanager: Alertmanager) -> int:
    alerts = [alert for alert in alertmanager.alerts() if trial.LABEL not in alert["labels"]]
    for alert in sorted(alerts, key=lambda alert: str(alert["startsAt"])):
        labels, notes = alert["labels"], alert["annotations"]
        print(f"{labels.get('severity', '?'):<8} since {alert['startsAt'][:16]}  {notes.get('summary', labels)}")
        print(f"{'':<8} {notes.get('description', '')}")
    if not alerts:
        print("nothing fires")
    return FAILED if alerts else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rig-alert", description="Alerts of this machine.", epilog=CODES)
    parser.add_argument("--config", default=config.PATH, metavar="FILE", help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", title="commands", required=True, metavar="COMMAND")
    commands.add_parser("list", help="show what fires", description="Show what fires.", epilog=CODES)
    about = "send each receiver a message, and say whether it took it"
    test = commands.add_parser("test", help=about, description=f"{about[0].upper()}{about[1:]}.", epilog=CODES)
    test.add_argument("receivers", nargs="*", metavar="RECEIVER", help="these only (default: all)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
