"""All that is wrong is reported in one go, about machines as well, and a plan of many engines takes no time."""

from __future__ import annotations

import json
import time
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from rig.capacity import sets_that_fit
from rig.plan import figures, terminal
from tests.unit.project import WORKSTATION, Project
from tests.unit.sample import IMAGE, settings


def test_what_is_hidden_behind_a_mistyped_kind_is_reported_with_it(project: Project) -> None:
    project.change("all.yml", "    runtime: container\n", "    runtime: contianer\n")
    project.change("all.yml", "    port: 8002", "    port: 80")
    project.change("all.yml", "    context: 8192\n    # Requests served", "    contxt: 8192\n    # Requests served")
    project.change("all.yml", "  timezone: Etc/UTC", "  timezone: Etc/UTX")
    told = "\n".join(project.problems())
    for sentence in ("not 'contianer'", "at least 1024, not 80", "unknown key; write 'context'", "write Etc/UTC"):
        assert sentence in told


def test_one_wrong_entry_hides_no_rule_that_others_break(project: Project) -> None:
    project.change("all.yml", "  hub: https://huggingface.co", "  hub: huggingface.co")
    project.change("all.yml", "    networks: [10.0.0.0/8,", "    networks: [10.0.0.0/64,")
    project.change("all.yml", "    model: llama-3.3-70b-q4", "    model: llama-3.3-70b-q5")
    project.change("all.yml", "    memory: 16G\n\n  qwen3", "    memory: 1G\n\n  qwen3")
    told = project.problems()
    assert len(told) == 4, told
    assert [sentence for sentence in told if "is empty" in sentence] == []


def test_what_cannot_be_read_hides_nothing_else_and_misses_nothing(project: Project) -> None:
    project.change("all.yml", "  timezone: Etc/UTC", "  timezone: !!bool x")
    project.change("all.yml", "    port: 8002", "    port: 80")
    told = project.problems()
    assert [sentence.split(": ", 2)[1] for sentence in told] == ["machine.timezone", "engines.llama-70b.port"]


def test_a_group_that_cannot_be_read_hides_no_wrong_value_of_the_others(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    project.write("workstation.yml", "[")
    project.change("all.yml", "    port: 8002", "    port: 80")
    told = project.problems()
    assert len(told) == 2 and "must be at least 1024, not 80" in told[0] and "is not YAML here" in told[1]


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n# nothing yet\n", "---\n"])
def test_a_group_of_comments_alone_says_nothing(project: Project, text: str) -> None:
    project.write("hosts.yml", WORKSTATION)
    project.write("workstation.yml", text)
    assert project.problems() == []


MACHINES: list[tuple[str, Any, str]] = [
    ("address", "fe80::1%$(reboot)", "is not an address"),
    ("address", "fe80::1%", "is not an address"),
    ("address", "fe80::1%eth0 x", "is not an address"),
    ("address", "10.0.0.1%eth0", "is not an address"),
    ("address", "-oProxyCommand=reboot", "is not an address"),
    ("address", "a.example.org\n", "holds a line break"),
    ("address", "x" * 300, "is not an address"),
    ("user", "$(reboot)", "is not a user or group name"),
    ("known_hosts_file", "/tmp/$(reboot)", "is not a path"),
    ("known_hosts_file", "-x;y", "is not a path"),
    ("identity_file", "~/.ssh/`id`", "is not a path"),
    ("identity_file", "a\0b", "holds the invisible character U+0000"),
    ("groups", ["x" * 300], "is not a group name"),
    ("groups", ["../all"], "is not a group name"),
    ("groups", ["a\0b"], "holds the invisible character U+0000"),
    ("port", 0, "must be at least 1"),
]


@pytest.mark.parametrize(("key", "value", "sentence"), MACHINES)
def test_a_wrong_value_of_a_machine_is_refused(project: Project, key: str, value: Any, sentence: str) -> None:
    entry = {"address": "10.0.0.1", key: value}
    project.write("hosts.yml", json.dumps({"hosts": {"one": entry}}))
    told = project.problems()
    assert any(f"hosts.one.{key}" in problem and sentence in problem for problem in told), told
    assert all(problem.isprintable() for problem in told)


@pytest.mark.parametrize("address", ["fe80::1%eth0", "fe80::1%enp3s0.1", "::1", "10.0.0.1", "rig.example.org", "rig"])
def test_an_address_may_name_the_interface_of_one_network(project: Project, address: str) -> None:
    project.write("hosts.yml", json.dumps({"hosts": {"one": {"address": address}}}))
    assert project.problems() == []


def many(count: int) -> dict[str, Any]:
    """This number of engines, with names that differ at their end."""
    engine = {"runtime": "container", "enabled": False, "image": IMAGE, "model": "llama-3.1-8b-q4", "memory": "9G"}
    return {"engines": {f"llama-for-somebody-{n:02}": engine | {"port": 8100 + n} for n in range(count)}}


def test_a_plan_of_26_engines_is_there_at_once_and_says_that_there_are_other_sets() -> None:
    began = time.process_time()
    made = figures.plan("one", settings(many(26)))
    assert time.process_time() - began < 2
    assert len(made.together) == figures.SETS
    assert made.more_together


def test_a_narrow_terminal_shows_whole_names() -> None:
    written = StringIO()
    terminal.show(figures.plan("one", settings(many(3))), Console(file=written, width=80))
    for number in range(3):
        assert f"llama-for-somebody-{number:02} (off)" in written.getvalue()


def test_the_search_for_some_sets_ends_where_there_are_few_and_many_would_be_tried() -> None:
    demands = {"giant": (30,)} | {f"small-{n}": (1,) for n in range(30)}
    for names in (demands, dict(reversed(demands.items()))):
        assert sorted(sets_that_fit(names, (30,), most=25), key=len)[0] == ("giant",)
