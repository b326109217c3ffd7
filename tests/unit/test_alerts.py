"""Every alert says what is wrong and what to do, and there are figures for which it fires and for which it does not."""

from __future__ import annotations

import re

import pytest

from rig.monitoring.alerts import alerts, document, figures
from rig.settings.monitoring import seconds
from tests.lab.alert_cases import CASES
from tests.unit.sample import settings

ALERTS = alerts(settings())
NAMES = {alert.name for alert in ALERTS}


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert {case.alert for case in CASES if case.fires} == NAMES
    assert {case.alert for case in CASES if not case.fires} == NAMES


def test_every_alert_tells_in_a_sentence_what_is_wrong_and_in_another_what_to_do() -> None:
    assert [alert.name for alert in ALERTS if not re.fullmatch(r"[^\n]{10,90}\.", alert.summary)] == []
    assert [alert.name for alert in ALERTS if not re.fullmatch(r"[^\n]{10,120}\.", alert.remedy)] == []


def test_what_an_engine_may_take_to_load_is_its_own_setting() -> None:
    made = alerts(settings({"engines/one/health_timeout": 60, "engines/two/health_timeout": 700}))
    patience = {alert.expression: alert.pending for alert in made if alert.name == "EngineNotReady"}
    (one,) = (pending for expression, pending in patience.items() if '"one"' in expression)
    (two,) = (pending for expression, pending in patience.items() if '"two"' in expression)
    # Not sooner than an engine that is simply gone.
    assert (one, two) == (seconds(settings().monitoring.alerts.engine_down), 700)


def test_only_enabled_engines_are_named() -> None:
    made = alerts(settings({"engines/one/enabled": False}))
    assert [alert.expression for alert in made if '"one"' in alert.expression] == []


def test_backups_are_watched_only_where_they_are_made() -> None:
    """The last figures of one that is not made any more say for ever when it was."""
    watched = {alert.name for alert in ALERTS if "rig_backup_" in alert.expression}
    assert watched == {"BackupTooOld", "BackupFailed", "BackupNeverAsked"}
    made = alerts(settings({"backup/enabled": False}))
    assert [alert.name for alert in made if "rig_backup_" in alert.expression] == []
    assert {alert.name for alert in made} == NAMES - watched


@pytest.mark.parametrize("every", [1, 60, 3600])
def test_figures_are_too_old_when_one_writing_was_missed_and_never_before(every: int) -> None:
    """At their oldest they are as old as both intervals together: written right before one question, and seen then."""
    changes = {"monitoring/state_interval": f"{every}s", "monitoring/thermal/interval": every}
    for scraped in ("1s", "15s", "4m"):
        made = alerts(settings({**changes, "monitoring/scrape_interval": scraped}))
        found = [re.search(r"> (\d+)", alert.expression) for alert in made if alert.name == "FiguresTooOld"]
        # Those of the gateway's clients are written every 10 seconds, whatever the settings say.
        expected = [2 * (interval + seconds(scraped)) for interval in (every, every, 10)]
        assert [int(limit[1]) for limit in found if limit] == expected


def test_figures_of_a_card_are_missed_only_where_it_is_watched() -> None:
    made = alerts(settings({"monitoring/thermal/enabled": False}))
    assert [alert.expression for alert in made if "rig_gpu.prom" in alert.expression] == []


def test_a_gateway_is_watched_only_where_there_is_one() -> None:
    made = alerts(settings({"gateway/enabled": False}))
    watched = {"GatewayDown", "GatewayWithoutEngines", "GatewayErrors", "ClientLimited"}
    assert {alert.name for alert in made} == NAMES - watched
    assert [alert.expression for alert in made if "rig_gateway" in alert.expression] == []


def test_rules_stand_after_what_they_are_computed_from() -> None:
    (group,) = document(settings(), "x")["groups"]
    recorded = [rule["record"] for rule in group["rules"] if "record" in rule]
    assert recorded == ["rig_settings_info", *(figure.name for figure in figures())]
    assert [("record" in rule) for rule in group["rules"]] == [True] * len(recorded) + [False] * len(ALERTS)
