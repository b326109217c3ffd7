"""daemon.json gets our keys and keeps the owner's; the engine is of the version that the settings ask for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyinfra.api import FactProcessError

from rig.containers import VENDOR, Offered, due, pattern
from rig.daemon import content, merged
from rig.facts.containers import Daemon, Offers
from rig.operations.containers import offered
from tasks.containers import pin
from tests.unit.project import ROOT
from tests.unit.sample import Here, examples, needs, settings

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


CASES = ROOT / "tests/unit/data/docker"
OURS: dict[str, Any] = {"log-driver": "journald", "live-restore": True}
JOURNALD = {"env", "env-regex", "labels", "labels-regex", "max-buffer-size", "mode", "tag"}
"""The options of Docker's journald driver."""


@pytest.mark.parametrize("case", sorted(path.stem for path in CASES.glob("*.json")))
def test_what_owners_have_is_merged_into_what_docker_takes(case: str) -> None:
    own = json.loads((CASES / f"{case}.json").read_text())
    whole = content(own, OURS)
    assert whole.items() >= OURS.items()
    assert set(whole.get("log-opts", {})) <= JOURNALD
    kept = {key: value for key, value in own.items() if key not in ("log-driver", "log-opts", "live-restore")}
    assert whole.items() >= kept.items()
    assert content(whole, OURS) == whole


@pytest.mark.parametrize(
    ("own", "ours", "options"),
    [
        ({"log-driver": "json-file", "log-opts": {"max-size": "1m", "tag": "x"}}, {}, {"max-size": "1m", "tag": "x"}),
        # Docker's own default, which daemon.json need not name.
        ({"log-opts": {"max-size": "1m", "tag": "x"}}, {"log-driver": "journald"}, {"tag": "x"}),
        ({"log-opts": {"max-size": "1m"}}, {"log-driver": "json-file"}, {"max-size": "1m"}),
        ({"log-driver": None, "log-opts": {"max-size": "1m"}}, {"log-driver": "json-file"}, {"max-size": "1m"}),
        ({"log-opts": {"max-size": "1m", "tag": "x"}}, {"log-driver": "local"}, {"max-size": "1m"}),
        ({"log-driver": "journald", "log-opts": {"tag": "x"}}, {"log-driver": "journald"}, {"tag": "x"}),
        ({"log-driver": "syslog", "log-opts": {"syslog-address": "udp://a", "mode": "non-blocking"}},
         {"log-driver": "journald"}, {"mode": "non-blocking"}),
        ({"log-opts": {"max-size": "1m"}}, {"log-driver": "journald", "log-opts": {"tag": "y"}}, {"tag": "y"}),
        ({"log-opts": {"tag": "x"}}, {"log-driver": "journald", "log-opts": {"tag": "y"}}, {"tag": "y"}),
        ({"log-opts": {"max-size": "1m"}}, {"log-driver": "none"}, None),
        ({"log-opts": "odd"}, {"log-driver": "journald"}, "odd"),
    ],
)  # fmt: skip
def test_options_of_a_log_driver_go_with_it(own: dict[str, Any], ours: dict[str, Any], options: object) -> None:
    assert content(own, ours).get("log-opts") == options


@examples
@given(own=MAPPING, ours=MAPPING)
def test_without_another_log_driver_the_content_is_the_merge(own: dict[str, Any], ours: dict[str, Any]) -> None:
    assert content(own, ours) == merged(own, ours)


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


# Versions


@pytest.mark.parametrize(
    ("wanted", "version", "is_it"),
    [
        ("29", "5:29.1.2-1~debian.13~trixie", True),
        ("29.1", "5:29.1.2-1~debian.13~trixie", True),
        ("29.1", "5:29.10.0-1~debian.13~trixie", False),
        ("29.1", "5:129.1.0-1", False),
        ("5:29.1.2-1~debian.13~trixie", "5:29.1.2-1~debian.13~trixie", True),
        ("29.1.2", "5:29.1.2~rc.1-1", True),
        ("26.1.5+dfsg1-9", "26.1.5+dfsg1-9+deb13u1", True),
        ("26.1.5+dfsg1-9+deb13u1", "26.1.5+dfsg1-9", False),
        ("26.1.5+dfsg1-9", "26.1.5-dfsg1-9", False),
        ("2", "29.1.2", False),
    ],
)
def test_a_version_of_the_engine_is_told_by_how_it_begins(wanted: str, version: str, is_it: bool) -> None:
    assert bool(re.search(pattern(wanted), version)) is is_it


AS_OFFERED = {name: Offered("5:29.1.2-1", "5:29.1.2-1") for name in VENDOR}


def test_nothing_is_due_when_apt_would_install_what_is_there() -> None:
    assert due(VENDOR, AS_OFFERED, "29.1") == []


def test_what_belongs_to_the_engine_is_brought_to_its_newest_too() -> None:
    newer = {**AS_OFFERED, "containerd.io": Offered("1.7.27-1", "1.7.28-1")}
    assert due(VENDOR, newer, "29.1") == ["containerd.io"]


def test_an_engine_of_another_version_is_due_though_apts_lists_are_too_old_to_know_a_better() -> None:
    assert due(VENDOR, AS_OFFERED, "30") == ["docker-ce"]


def test_what_is_missing_is_due_and_what_is_on_hold_is_not() -> None:
    there = {**AS_OFFERED, "containerd.io": Offered("1.7.27-1", "1.7.28-1", held=True)}
    assert due(VENDOR, there, "29.1") == []
    del there["docker-buildx-plugin"]
    assert due(VENDOR, there, "29.1") == ["docker-buildx-plugin"]


@pytest.fixture
def here(tmp_path: Path) -> Here:
    """A shell whose apt has four versions of the engine, one of them installed and on hold."""
    versions = ("5:28.5.2-1~x", "5:29.1.2-1~x", "5:29.1.10-1~x", "5:30.0.0-1~x")
    about = "Architecture: all\nMaintainer: x\nDescription: x\n"
    for folder in ("lists", "state/lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lists/Packages").write_text(
        "\n".join(
            f"Package: docker-ce\nVersion: {version}\nFilename: {number}.deb\nSize: 1\nSHA256: {'0' * 64}\n{about}"
            for number, version in enumerate(versions)
        )
    )
    (tmp_path / "state/status").write_text(
        f"Package: docker-ce\nStatus: hold ok installed\nVersion: {versions[0]}\n{about}"
    )
    (tmp_path / "etc/sources.list").write_text(f"deb [trusted=yes] file:{tmp_path}/lists ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc "{tmp_path}/etc"; Dir::State "{tmp_path}/state"; Dir::State::status "{tmp_path}/state/status";\n'
        f'Dir::Cache "{tmp_path}/cache"; APT::Sandbox::User "root"; APT::Architecture "amd64";\n'
    )
    shell = Here(lambda command: f"export APT_CONFIG={tmp_path}/apt.conf; {command}")
    assert shell.shell("apt-get update").returncode == 0
    return shell


@needs("apt-get", "apt-cache")
@pytest.mark.parametrize(
    ("version", "candidate"),
    [("28", "5:28.5.2-1~x"), ("29.1", "5:29.1.10-1~x"), ("5:29.1.2-1", "5:29.1.2-1~x"), ("30", "5:30.0.0-1~x")],
)
def test_apt_takes_the_newest_of_the_version(here: Here, tmp_path: Path, version: str, candidate: str) -> None:
    (tmp_path / "etc/preferences.d/00rig-docker").write_text(pin(settings({"containers/version": version}).containers))
    assert here.get_fact(Offers, packages=VENDOR) == {"docker-ce": Offered("5:28.5.2-1~x", candidate, held=True)}
    assert here.shell(offered("docker-ce", version)).returncode == 0


@needs("apt-get", "apt-cache")
def test_a_version_that_no_repository_has_is_told(here: Here, tmp_path: Path) -> None:
    (tmp_path / "etc/preferences.d/00rig-docker").write_text(pin(settings({"containers/version": "31"}).containers))
    told = here.shell(offered("docker-ce", "31"))
    assert told.returncode == 1
    assert told.stderr.startswith("the package repositories of this machine have no docker-ce 31; write another")


@needs("apt-get", "apt-cache")
def test_without_a_version_nothing_is_pinned(here: Here, tmp_path: Path) -> None:
    (tmp_path / "etc/preferences.d/00rig-docker").write_text(pin(settings().containers))
    assert here.get_fact(Offers, packages=VENDOR)["docker-ce"].candidate == "5:30.0.0-1~x"
