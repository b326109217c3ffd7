"""Queries to the Prometheus of a lab machine."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from lab.machine import Lab
from rig.monitoring.dashboards import RATE, Dashboard, Line
from tests.lab.promql import names


def ask(lab: Lab, question: str, when: float | None = None) -> list[dict[str, Any]]:
    """The answer to a query, now or at another time; empty while Prometheus does not answer."""
    time = "" if when is None else f"&time={when}"
    url = f"http://127.0.0.1:9090/api/v1/query?query={quote(question)}{time}"
    shown = lab.ssh(f"curl --silent --max-time 10 {shlex.quote(url)}", check=False).stdout
    return json.loads(shown)["data"]["result"] if shown.startswith('{"status":"success"') else []


def value(lab: Lab, question: str) -> float | None:
    """The value of a query with one result; None without one."""
    found = ask(lab, question)
    return float(found[0]["value"][1]) if len(found) == 1 else None


def lines(dashboard: Dashboard, of_vllm: bool = False) -> list[Line]:
    """The lines that are drawn with vLLM, or without it."""
    every = [line for panel in dashboard.panels for line in panel.lines]
    return [line for line in every if ("vllm:" in line.expression) == of_vllm]


def undrawn(lab: Lab, lines: Iterable[Line]) -> list[str]:
    """The missing parts of a picture: metrics, answers, and labels in a legend."""
    found = []
    for line in lines:
        expression = line.expression.replace(RATE, "30s")
        found += [name for name in names(line.expression) if not ask(lab, name)]
        answers = ask(lab, expression)
        labels = re.findall(r"{{(\w+)}}", line.legend)
        missing = [label for label in labels for answer in answers if label not in answer["metric"]]
        found += [f"{{{label}}} of {expression}" for label in missing] if answers else [expression]
    return found
