"""Runs of the tool and of the host tests against a lab machine, read from what they print for machines."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from lab.machine import NAME, Lab


@dataclass(frozen=True)
class Run:
    """What one run of the deploy did, or with ``--dry`` would do, by the names of its operations."""

    code: int
    operations: tuple[str, ...]
    changed: frozenset[str]
    failed: frozenset[str]
    errors: str = field(repr=False)
    """What a person would have seen."""

    @property
    def changes(self) -> frozenset[str]:
        """What changed in a run that ran to its end and looked at everything."""
        assert self.code == 0, self.errors
        assert len(self.operations) > 20, self.operations
        assert not self.failed, self.errors
        return self.changed


def run(lab: Lab, *arguments: str, timeout: float = 1500) -> Run:
    """A run that makes changes; `timeout` in seconds."""
    done = lab.deploy("--json", "-y", *arguments, timeout=timeout)
    results = _json(done.stdout).get("results", {})
    rows = results.get("operations", [])
    found = Run(
        code=done.returncode,
        operations=tuple(row["name"] for row in rows),
        changed=_names(rows, "success"),
        failed=_names(rows, "error"),
        errors=done.stderr,
    )
    assert results.get("totals", {}).get("success", 0) == len(found.changed), (
        "the totals are not those of the rows"
    )
    return found


def plan(lab: Lab, *arguments: str) -> Run:
    """A run that only says what it would change."""
    done = lab.deploy("--json", "--dry", *arguments)
    rows = _json(done.stdout).get("plan", [])
    return Run(
        code=done.returncode,
        operations=tuple(row["name"] for row in rows),
        changed=_names(rows, "hosts_with_change") | _names(rows, "hosts_with_conditional_change"),
        failed=frozenset(),
        errors=done.stderr,
    )


@dataclass(frozen=True)
class Verdict:
    """What the host tests found."""

    code: int
    passed: int
    failed: frozenset[str]
    """Names of the test functions that failed."""
    output: str


def host_tests(lab: Lab, *arguments: str) -> Verdict:
    """The host tests, as a person would type them."""
    done = lab.host_tests("-q", "--tb=short", *arguments)
    passed = re.search(r"(\d+) passed", done.stdout)
    return Verdict(
        code=done.returncode,
        passed=int(passed[1]) if passed else 0,
        failed=frozenset(re.findall(r"(?m)^(?:FAILED|ERROR) \S+::(\w+)", done.stdout)),
        output=done.stdout + done.stderr,
    )


def _names(rows: list[dict[str, Any]], key: str) -> frozenset[str]:
    return frozenset(row["name"] for row in rows if NAME in row[key])


def _json(text: str) -> dict[str, Any]:
    return dict(json.loads(text)) if text.strip() else {}
