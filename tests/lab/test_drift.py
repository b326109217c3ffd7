"""A machine that was changed behind the tool's back: host tests see it, --dry reports it, a run repairs or refuses
it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from lab.machine import Lab
from tests.lab.drifts import DRIFTS, Drift
from tests.lab.fingerprint import Fingerprint, differences, lives, restarted
from tests.lab.runs import host_tests, plan, run


def rounds(drifts: dict[str, Drift]) -> list[dict[str, Drift]]:
    """Group independent drifts into as few rounds as possible: each round costs time."""
    found: list[dict[str, Drift]] = []
    for name, drift in drifts.items():
        for others in found:
            if all(drift.claims.isdisjoint(other.claims) for other in others.values()):
                others[name] = drift
                break
        else:
            found.append({name: drift})
    return found


MENDED = rounds({name: drift for name, drift in DRIFTS.items() if not drift.refused})
REFUSED = rounds({name: drift for name, drift in DRIFTS.items() if drift.refused})

SEED = os.environ.get("RIG_TEST_SEED") or str(datetime.now(UTC).toordinal())
"""Selects the rounds: others each day, and all with RIG_TEST_ALL."""


def chosen(among: list[dict[str, Drift]], number: int) -> list[dict[str, Drift]]:
    return among if os.environ.get("RIG_TEST_ALL") else random.Random(SEED).sample(among, number)


# A run that reads one by one repairs some as well, with the same result.
CASES = [("", drifts) for drifts in chosen(MENDED, 2)] + [("single", drifts) for drifts in chosen(MENDED, 1)]


@dataclass
class Subject:
    """The machine that is broken again and again, and its earlier state."""

    lab: Lab
    before: Fingerprint
    broken: bool = False


@pytest.fixture(scope="module")
def shared(deployed: Lab) -> Subject:
    return Subject(deployed, Fingerprint.of(deployed))


@pytest.fixture
def subject(shared: Subject) -> Iterator[Subject]:
    """The machine in its correct state; also after a test that failed halfway."""
    if shared.broken:
        run(shared.lab)
        shared.lab.sudo("\n".join(drift.owner for drift in DRIFTS.values()), check=False)
        shared.before = Fingerprint.of(shared.lab)
    shared.broken = True
    yield shared


@pytest.fixture(scope="module")
def beside() -> Iterator[ThreadPoolExecutor]:
    """Runs a read-only check of the machine beside another one."""
    with ThreadPoolExecutor() as executor:
        yield executor


@pytest.mark.parametrize(
    ("reads", "drifts"),
    [(reads, list(drifts.values())) for reads, drifts in CASES],
    ids=[f"{'one by one' if reads else 'ahead'}: {', '.join(drifts)}" for reads, drifts in CASES],
)
def test_drifts_are_seen_told_and_mended_and_nothing_else_is_touched(
    subject: Subject,
    beside: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    reads: str,
    drifts: list[Drift],
) -> None:
    lab = subject.lab
    monkeypatch.setenv("RIG_READS", reads)
    files = sorted({f"tests/host/test_{concern}.py" for drift in drifts for concern in drift.seen_by})
    tests = _all(drift.tests for drift in drifts)
    lived = lives(lab)

    lab.sudo("set -e\n" + "\n".join(drift.command for drift in drifts))
    seen = beside.submit(host_tests, lab, *files, "-k", " or ".join(tests))
    assert plan(lab).changes == _all(drift.told for drift in drifts)
    assert seen.result().failed == tests, seen.result().output

    settled = _all(drift.told - drift.needless for drift in drifts)
    perhaps, follows = (_all(sets) for sets in zip(*((drift.perhaps, drift.follows) for drift in drifts), strict=True))
    assert (settled | follows) - perhaps <= run(lab).changes <= settled | follows
    assert restarted(lived, lives(lab)) == _all(drift.restarted for drift in drifts)
    lab.sudo("\n".join(drift.owner for drift in drifts))

    # The one test that takes apt's lock, for which the run beside it would wait, is left out.
    again = beside.submit(host_tests, lab, *files, "-k", "not test_the_package_lists_can_be_used")
    assert run(lab).changes == set()
    assert again.result().code == 0, again.result().output
    assert "\n".join(differences(subject.before, Fingerprint.of(lab))) == ""
    subject.broken = False


@pytest.mark.parametrize(
    "drifts", [list(one.values()) for one in chosen(REFUSED, 1)], ids=map(", ".join, chosen(REFUSED, 1))
)
def test_drifts_that_only_the_owner_can_mend_are_seen_and_refused_with_the_remedy(
    subject: Subject, drifts: list[Drift]
) -> None:
    lab = subject.lab
    files = sorted({f"tests/host/test_{concern}.py" for drift in drifts for concern in drift.seen_by})
    tests = _all(drift.tests for drift in drifts)
    lab.sudo("set -e\n" + "\n".join(drift.command for drift in drifts))
    verdict = host_tests(lab, *files, "-k", " or ".join(tests))
    assert verdict.failed == tests, verdict.output
    for refused in (plan(lab), run(lab)):
        assert refused.code == 1
        assert "nothing was changed" in refused.errors
        assert [drift.refused for drift in drifts if drift.refused not in refused.errors] == []
    lab.sudo("set -e\n" + "\n".join(drift.owner for drift in drifts))
    assert run(lab).changes == set()
    assert "\n".join(differences(subject.before, Fingerprint.of(lab))) == ""
    subject.broken = False


def _all(sets: Iterable[set[str]]) -> set[str]:
    return set().union(*sets)
