"""Files laid over each other: mappings merge key by key, everything else is replaced whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as some

from rig.settings import load
from rig.settings.tree import Node, merge, parse, plain
from tests.unit.project import WORKSTATION, Project

KEYS = some.sampled_from(["a", "b", "c", "d.e"])
SCALARS = some.none() | some.booleans() | some.integers(-(2**63) + 1, 2**63 - 1) | some.text("xyz: #'\"\\é", max_size=5)
VALUES = some.recursive(
    SCALARS,
    lambda values: some.lists(values, max_size=3) | some.dictionaries(KEYS, values, max_size=3),
    max_leaves=12,
)
MAPPINGS = some.dictionaries(KEYS, VALUES, max_size=4)


def written(value: dict[str, Any], shown: str) -> Node:
    """The value, as if read from a file."""
    return parse(yaml.safe_dump(value, default_flow_style=False, allow_unicode=True), shown)


def leaves(node: Node, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Node]:
    """Every node in a tree that is no mapping, by path; also empty mappings."""
    if not isinstance(node.value, dict) or not node.value:
        return {path: node}
    return {at: leaf for key, child in node.value.items() for at, leaf in leaves(child, (*path, key)).items()}


@given(MAPPINGS)
def test_what_is_written_is_what_is_read(value: dict[str, Any]) -> None:
    assert plain(written(value, "file")) == value


@given(MAPPINGS)
def test_nothing_laid_on_settings_changes_nothing(value: dict[str, Any]) -> None:
    assert plain(merge(written(value, "base"), written({}, "over"))) == value


@given(MAPPINGS)
def test_settings_laid_on_nothing_are_themselves(value: dict[str, Any]) -> None:
    assert plain(merge(written({}, "base"), written(value, "over"))) == value


@given(MAPPINGS, MAPPINGS, MAPPINGS)
def test_only_the_order_of_files_matters_not_how_they_are_paired(
    one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]
) -> None:
    # A scalar between two mappings cuts the lower one off in one pairing only; files are laid on from below.
    below = merge(merge(written(one, "1"), written(two, "2")), written(three, "3"))
    again = merge(below, written(three, "3"))
    assert plain(again) == plain(below)


@given(MAPPINGS, MAPPINGS)
def test_every_value_of_the_upper_file_wins_and_keeps_its_place(lower: dict[str, Any], upper: dict[str, Any]) -> None:
    merged = merge(written(lower, "lower"), written(upper, "upper"))
    for path, leaf in leaves(written(upper, "upper")).items():
        found = merged.nearest(path)
        if leaf.value == {} and isinstance(found.value, dict):
            continue
        assert plain(found) == plain(leaf)
        assert (found.file, found.line) == ("upper", leaf.line)


@given(MAPPINGS, MAPPINGS)
def test_a_value_of_the_lower_file_stays_where_the_upper_says_nothing(
    lower: dict[str, Any], upper: dict[str, Any]
) -> None:
    merged = merge(written(lower, "lower"), written(upper, "upper"))
    for key, value in lower.items():
        if key not in upper:
            assert merged.nearest((key,)).file == "lower"
            assert plain(merged.nearest((key,))) == value


@given(VALUES, SCALARS | some.lists(SCALARS, max_size=2))
def test_a_list_a_scalar_and_null_replace_whatever_was_there(lower: Any, upper: Any) -> None:
    merged = merge(written({"a": lower}, "lower"), written({"a": upper}, "upper"))
    assert plain(merged) == {"a": upper}


def test_a_machines_own_settings_beat_its_groups_which_beat_all(project: Project) -> None:
    project.write("first.yml", "machine: {timezone: Asia/Tokyo, journald: {max_use: 3G}, packages: [one]}\n")
    project.write("second.yml", "machine: {timezone: Asia/Seoul, journald: {max_use: 4G}}\n")
    project.write(
        "hosts.yml",
        WORKSTATION.replace("[workstation]", "[first, second]")
        + "    settings: {machine: {timezone: Europe/Oslo, sysctl: {vm.swappiness: null}}}\n",
    )
    machine = load(project.root).hosts["workstation"].settings.machine
    assert machine.timezone == "Europe/Oslo"
    assert machine.journald.max_use == "4G"
    assert machine.journald.max_retention == "90day"
    assert machine.packages == ("one",)
    assert machine.sysctl["vm.swappiness"] is None
    assert machine.sysctl["net.core.somaxconn"] == 4096


def test_machines_do_not_share_what_one_of_them_has_of_its_own(project: Project) -> None:
    project.write(
        "hosts.yml",
        WORKSTATION + "    settings: {machine: {timezone: Europe/Oslo}}\n  other: {address: 10.0.0.2, groups: []}\n",
    )
    hosts = load(project.root).hosts
    assert hosts["workstation"].settings.machine.timezone == "Europe/Oslo"
    assert hosts["other"].settings.machine.timezone == "Etc/UTC"


def test_paths_of_a_hosts_file_count_from_its_folder_and_know_the_home(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION + "    identity_file: keys/id\n")
    host = load(project.root).hosts["workstation"]
    assert host.identity_file == project.path("keys/id")
    assert host.known_hosts_file == Path.home() / ".ssh/known_hosts"
