"""daemon.json gets our keys and keeps the owner's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api import FactProcessError

from rig.facts.containers import Daemon
from rig.operations.containers import merged
from tests.unit.sample import examples

SCALAR = st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
MAPPING = st.recursive(
    st.dictionaries(st.sampled_from("abc"), SCALAR, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), SCALAR | inner, max_size=3),
    max_leaves=8,
)


def _holds(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(k in whole and _holds(whole[k], v) for k, v in part.items())
    return bool(whole == part)


@pytest.mark.parametrize(
    ("own", "ours", "expected"),
    [
        ({}, {"live-restore": True}, {"live-restore": True}),
        (
            {"registry-mirrors": ["https://m"]},
            {"live-restore": True},
            {"registry-mirrors": ["https://m"], "live-restore": True},
        ),
        ({"log-opts": {"tag": "x"}}, {"log-opts": {"mode": "y"}}, {"log-opts": {"tag": "x", "mode": "y"}}),
        ({"dns": ["1.1.1.1"]}, {"dns": ["9.9.9.9"]}, {"dns": ["9.9.9.9"]}),
        ({"log-opts": "odd"}, {"log-opts": {"mode": "y"}}, {"log-opts": {"mode": "y"}}),
        ({"log-opts": {"tag": "x"}}, {"log-opts": None}, {"log-opts": None}),
    ],
)
def test_mappings_merge_and_anything_else_of_ours_replaces(
    own: dict[str, Any], ours: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert merged(own, ours) == expected


@examples
@given(own=MAPPING, ours=MAPPING)
def test_whatever_the_owner_wrote_ours_is_in_force(own: dict[str, Any], ours: dict[str, Any]) -> None:
    assert _holds(merged(own, ours), ours)


@examples
@given(own=MAPPING, ours=MAPPING)
def test_every_key_of_the_owner_that_we_do_not_name_survives(own: dict[str, Any], ours: dict[str, Any]) -> None:
    result = merged(own, ours)
    assert set(result) == set(own) | set(ours)
    assert {key: result[key] for key in set(own) - set(ours)} == {key: own[key] for key in set(own) - set(ours)}


@examples
@given(own=MAPPING, ours=MAPPING)
def test_a_second_merge_changes_nothing(own: dict[str, Any], ours: dict[str, Any]) -> None:
    once = merged(own, ours)
    assert merged(once, ours) == once


@examples
@given(own=MAPPING, ours=MAPPING)
def test_what_was_read_is_not_changed_itself(own: dict[str, Any], ours: dict[str, Any]) -> None:
    before = json.dumps([own, ours])
    merged(own, ours)
    assert json.dumps([own, ours]) == before


@pytest.mark.parametrize("text", ["", "  \n", "{}"])
def test_an_empty_daemon_json_is_no_mistake(text: str) -> None:
    assert Daemon().process(text.splitlines()) == {}


@pytest.mark.parametrize("text", ['{"a": 1,}', "[]", "true", "# a comment"])
def test_a_daemon_json_that_docker_could_not_read_is_not_overwritten(text: str) -> None:
    with pytest.raises(FactProcessError, match="correct it, or move it away"):
        Daemon().process(text.splitlines())


def test_a_daemon_json_of_several_lines_is_read_whole() -> None:
    written = json.dumps({"a": {"b": [1, 2]}}, indent=2)
    assert Daemon().process(written.splitlines()) == {"a": {"b": [1, 2]}}
