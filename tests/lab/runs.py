"""Runs of the tool and of the host tests against a lab machine, parsed from their output for programs."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from lab.machine import NAME, Lab


@dataclass(frozen=True)
class Run:
    """The changes of one run of the deploy, or with ``--dry`` its plan, by the names of the operations."""

    code: int
    operations: tuple[str, ...]
    changed: frozenset[str]
    failed: frozenset[str]
    errors: str = field(repr=False)
    """The messages on stderr."""

    @property
    def changes(self) -> frozenset[str]:
        """The changes of a run that finished and checked everything."""
        assert self.code == 0, self.errors
        assert len(self.operations) > 20, self.operations
        assert not self.failed, self.errors
        return self.changed


def run(lab: Lab, *arguments: str, timeout: float = 1500) -> Run:
    """Deploy with changes; `timeout` in seconds."""
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
    """Make a dry run."""
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
    """The results of the host tests."""

    code: int
    passed: int
    failed: frozenset[str]
    """Names of the failed test functions."""
    output: str


def host_tests(lab: Lab, *arguments: str) -> Verdict:
    """Run the host tests as an owner would."""
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
