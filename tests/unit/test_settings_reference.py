"""group_data/all.yml is the reference: complete, without dead keys, the source of the schema's defaults."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from rig.operator.commands.schema import text as schema_text
from rig.settings import Settings
from rig.settings.engines import Archive, ContainerEngine, NativeEngine
from rig.settings.firewall import Allowed
from rig.settings.gateway import Certificate, Input, Pattern, Remote
from rig.settings.hosts import HostEntry
from rig.settings.machine import Gpu, User
from rig.settings.models import Model, ModelFile, ModelShape
from rig.settings.monitoring import Email, Ntfy, Webhook
from rig.settings.schema import Schema
from rig.settings.storage import Mount
from rig.settings.tree import plain, read
from tests.unit.project import ROOT, Project

ALL = ROOT / "group_data" / "all.yml"
ENTRIES: list[type[BaseModel]] = [
    *(User, Gpu, Mount, Model, ModelFile, ModelShape),
    *(ContainerEngine, NativeEngine, Archive, Allowed),
    *(Webhook, Ntfy, Email),
    *(Input, Pattern, Remote, Certificate),
]


def settings() -> Any:
    return plain(read(ALL, "all.yml"))


def fixed(schema: Schema, value: Any, path: str = "") -> Iterator[tuple[str, Schema, Any]]:
    """Every fixed key, with its schema and its value in all.yml."""
    for key, member in schema["properties"].items():
        at = f"{path}.{key}" if path else key
        yield at, member, value.get(key, "not in all.yml")
        if "properties" in member:
            yield from fixed(member, value[key], at)


def described(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Every key in a schema, at any depth."""
    yield from schema.get("properties", {}).items()
    parts = [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", [])]
    members = [*schema.get("properties", {}).values(), *schema.get("patternProperties", {}).values()]
    for part in (*parts, *members):
        if isinstance(part, dict):
            yield from described(part)


def test_every_key_of_the_models_stands_in_all_yml_and_its_value_is_the_default_of_the_schema() -> None:
    schema = json.loads(schema_text())
    missing = [path for path, _, value in fixed(schema, settings()) if value == "not in all.yml"]
    different = [
        path
        for path, member, value in fixed(schema, settings())
        if "properties" not in member and member.get("default", "none") != value
    ]
    assert (missing, different) == ([], [])


def test_every_key_of_all_yml_is_read_by_a_model() -> None:
    Settings.model_validate_json(json.dumps(settings()))
    assert Settings.model_config["extra"] == "forbid"


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_key_of_an_entry_stands_in_all_yml_at_least_as_an_example(entry: type[BaseModel]) -> None:
    text = ALL.read_text(encoding="utf-8")
    assert [key for key in entry.model_fields if not re.search(rf"^[ #]*{key}[: ]", text, re.MULTILINE)] == []


def test_every_key_of_an_example_that_is_commented_out_is_read_by_a_model() -> None:
    text = ALL.read_text(encoding="utf-8") + (ROOT / "group_data" / "hosts.yml").read_text(encoding="utf-8")
    models: list[type[BaseModel]] = [*ENTRIES, HostEntry]
    known = {name for model in models for name in model.model_fields}
    names = {"hosts", "owner", "workstation", "machine", "mount", "archive", "phone", "mail", "chat"}
    examples = set(re.findall(r"^ *#  +([a-z_]+):", text, re.MULTILINE))
    assert examples - known - names == set()


def test_what_all_yml_calls_the_default_of_an_engine_is_its_default() -> None:
    text = ALL.read_text(encoding="utf-8")
    engine = text[text.index("  llama-70b:\n    # container") : text.index("\n  llama-8b:\n")]
    for key in (
        "alternatives",
        "projector",
        "gpu_layers",
        "kv_cache",
        "address",
        "context",
        "sequences",
        "threads",
        "memory",
        "overhead",
        "cpus",
        "health_timeout",
    ):
        default = ContainerEngine.model_fields[key].default
        comment = re.search(rf"((?:    #[^\n]*\n)+)    {key}:", engine)
        assert comment is not None, key
        said = re.search(r"default (none|[\w.]*\w)|(null) \(the default\)", comment[1])
        assert said is not None, key
        assert (said[1] or said[2]) == ("null" if default is None else str(default)), key


def test_every_key_has_a_description() -> None:
    for hosts in (False, True):
        keys = list(described(json.loads(schema_text(hosts=hosts))))
        assert len(keys) > 60
        assert [key for key, member in keys if not member.get("description", "").endswith(".")] == []


@pytest.mark.parametrize(("name", "hosts"), [("schema.json", False), ("hosts.schema.json", True)])
def test_the_shipped_schema_is_current(name: str, hosts: bool) -> None:
    shipped = (ROOT / "group_data" / name).read_text(encoding="utf-8")
    assert shipped == schema_text(hosts=hosts) + "\n", f"run: rig schema > group_data/{name}"


def test_a_group_file_may_say_any_part_alone() -> None:
    assert "required" not in re.findall(r'"(\w+)": \[', schema_text())


def test_the_shipped_settings_are_right(project: Project) -> None:
    assert project.problems() == []


def test_the_lab_settings_need_only_what_the_lab_generates(project: Project) -> None:
    lab = project.root / ".lab"
    lab.mkdir()
    (lab / "hosts.yml").write_text(
        "hosts:\n  rig-lab: {address: 10.77.0.2, user: rig, groups: [lab]}\n", encoding="utf-8"
    )
    told = project.rig("check", RIG_LAB=".lab").stderr
    assert [line.split(": ")[1] for line in told.splitlines()[:-1]] == [
        "engines.llama-70b.model",
        "engines.llama-8b.model",
    ]
