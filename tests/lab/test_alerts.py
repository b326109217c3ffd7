"""Prometheus' own test tool, of each release: every alert fires for its own cause, and for nothing else."""

from __future__ import annotations

import shlex

import yaml

from lab.machine import Lab
from rig.monitoring import alerts
from tests.lab.alert_cases import CASES, promtool_test
from tests.unit.sample import settings

FOLDER = "/run/alert-tests"


def judged(lab: Lab, rules: str, cases: object) -> tuple[int, str]:
    """Exit status and verdict of promtool on the machine."""
    tests = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": cases}
    for name, text in (("rules.yml", rules), ("tests.yml", yaml.safe_dump(tests, sort_keys=False))):
        lab.sudo(f"install -D -m 0644 /dev/stdin {FOLDER}/{name}", input=text)
    done = lab.sudo(f"cd {shlex.quote(FOLDER)} && promtool test rules tests.yml", check=False)
    return done.returncode, done.stdout + done.stderr


def test_every_alert_fires_when_it_must_and_never_else(deployed_release: Lab) -> None:
    for changes in {case.settings for case in CASES}:
        made = settings(dict(changes))
        rules = yaml.safe_dump(alerts.document(made, "x"), sort_keys=False)
        cases = [promtool_test(case, alerts.alerts(made)) for case in CASES if case.settings == changes]
        code, verdict = judged(deployed_release, rules, cases)
        assert code == 0, verdict
        assert "SUCCESS" in verdict


def test_the_tool_finds_an_alert_that_does_not_fire(deployed_release: Lab) -> None:
    """Without this, the test above could not fail."""
    made = settings()
    rules = yaml.safe_dump(alerts.document(made, "x"), sort_keys=False).replace(
        "rig_model_changed == 1", "vector(1) == 2"
    )
    cases = [promtool_test(case, alerts.alerts(made)) for case in CASES if case.alert == "ModelChanged"]
    code, verdict = judged(deployed_release, rules, cases)
    assert code == 1
    assert "ModelChanged" in verdict
