"""Reads and merges the files, and returns each machine's settings or every problem."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from rig.settings.checks import findings
from rig.settings.data import lay_on
from rig.settings.explain import explain
from rig.settings.hosts import LAB_GROUPS, LOCAL, GroupName, Host, HostEntry, HostsFile, given_path, lab_is_running
from rig.settings.problems import NoMachine, Problem, SettingsError
from rig.settings.root import Settings
from rig.settings.schema import Schema
from rig.settings.tree import Node, Step, merge, plain, read_what_can_be
from rig.settings.words import either, nearest_word

Model = TypeVar("Model", bound=BaseModel)

GROUP: TypeAdapter[str] = TypeAdapter(GroupName)
NO_DATA: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Inventory:
    """The machines of one run with their settings, and perhaps a remark for the operator."""

    hosts: Mapping[str, Host]
    remark: str | None = None

    def machine(self, name: str) -> Host:
        """The machine with pyinfra's name `name`. Raises NoMachine."""
        for host in self.hosts.values():
            if name in (host.name, host.connector_name):
                return host
        known = f" or take {either(self.hosts)}" if self.hosts else ""
        raise NoMachine(f"there is no machine '{name}'; describe it there{known}")


def load(root: Path, *, lab: Path | None = None, data: Mapping[str, str] = NO_DATA) -> Inventory:
    """The machines of group_data/hosts.yml or of a lab. Raises SettingsError with every problem."""
    return _Files(root, lab).inventory(data)


def load_local(root: Path, *, data: Mapping[str, str] = NO_DATA) -> Inventory:
    """This machine: the one whose address is "@local" in hosts.yml, or else all.yml unchanged."""
    return _Files(root, None).local(data)


def preview(root: Path, environ: Mapping[str, str], data: Mapping[str, str] = NO_DATA) -> Inventory:
    """The machines for a command without a connection; none if none is configured. Raises SettingsError.

    A lab that RIG_LAB names counts whether it runs or not: its settings can be examined all the same.
    """
    named = environ.get("RIG_LAB")
    if named:
        return load(root, lab=root / named, data=data)
    machines = load(root, data=data)
    if not lab_is_running(root / ".lab"):
        return machines
    if machines.hosts:
        remark = "the running lab is left out, as machines are configured; RIG_LAB=.lab selects it"
        return Inventory(machines.hosts, remark)
    return load(root, lab=root / ".lab", data=data)


def select(root: Path, environ: Mapping[str, str], data: Mapping[str, str] = NO_DATA) -> Inventory:
    """The machines for a command: those of RIG_LAB, the configured ones, or those of a running lab.

    Raises NoMachine if there are none.
    """
    named = environ.get("RIG_LAB")
    if named and not lab_is_running(root / named):
        raise NoMachine(f"no lab is running in {named}; start it, or unset RIG_LAB", source="RIG_LAB")
    chosen = preview(root, environ, data)
    if not chosen.hosts:
        raise NoMachine("no machine is configured and no lab is running; describe a machine there, or run script/demo")
    return chosen


@cache
def settings_schema() -> Schema:
    """The JSON Schema of the settings; treat it as read-only."""
    return Settings.model_json_schema()


@cache
def _hosts_schema() -> Schema:
    return HostsFile.model_json_schema()


class _Files:
    """The YAML files of one run, each read once, and the problems so far."""

    def __init__(self, root: Path, lab: Path | None) -> None:
        self.root = root
        self.is_lab = lab is not None
        self.hosts_path = (lab or root / "group_data") / "hosts.yml"
        self.problems: list[Problem] = []
        self.unread = False
        """Something in a file could not be read, so that missing keys are uncertain."""
        self.groups: dict[str, Node | None] = {}
        self.base = self.read(root / "group_data" / "all.yml")
        self.hosts = self.read(self.hosts_path)

    def read(self, path: Path) -> Node | None:
        """A file's content, or None; its problems are recorded."""
        shown = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        root: Node | None
        try:
            root, problems = read_what_can_be(path, str(shown))
        except SettingsError as error:
            root, problems = None, list(error.problems)
        self.problems.extend(problems)
        self.unread |= bool(problems)
        return root

    def inventory(self, data: Mapping[str, str]) -> Inventory:
        """Every machine. Raises SettingsError with every problem."""
        entries = self.entries()
        hosts = {name: self.host(name, entry, data) for name, entry in entries.items()}
        if not entries and self.base is not None:
            self.settings([self.base], data)
        self.raise_problems()
        return Inventory({name: host for name, host in hosts.items() if host is not None})

    def local(self, data: Mapping[str, str]) -> Inventory:
        """This machine alone. Raises SettingsError with every problem."""
        here = {name: entry for name, entry in self.entries().items() if _text_at(entry, "address") == LOCAL}
        name, entry = next(iter(here.items()), (LOCAL, _local_entry()))
        host = self.host(name, entry, data)
        self.raise_problems()
        return Inventory({} if host is None else {name: host})

    def raise_problems(self) -> None:
        if self.problems:
            raise SettingsError(self.problems)

    def entries(self) -> dict[str, Node]:
        """The machines in the file; records problems of their entries."""
        if self.hosts is None:
            return {}
        _validated(HostsFile, self.hosts, _hosts_schema(), self.problems)
        hosts = self.hosts.child("hosts")
        entries = hosts.value if hosts is not None and isinstance(hosts.value, dict) else {}
        locals_ = [name for name, entry in entries.items() if _text_at(entry, "address") == LOCAL]
        for name in locals_[1:]:
            sentence = f'"{LOCAL}" is already the address of {locals_[0]}; write an address to reach it by'
            self.problems.append(self.hosts.problem(("hosts", name, "address"), sentence))
        self.note_twins(self.hosts, entries)
        return entries

    def note_twins(self, hosts: Node, entries: Mapping[str, Node]) -> None:
        """Record machines with equal addresses: two runs at once, with different settings."""
        holders: dict[tuple[str, object], str] = {}
        for name, entry in entries.items():
            address, port = _text_at(entry, "address"), entry.child("port")
            if address is None or address == LOCAL:
                continue
            number = HostEntry.model_fields["port"].default if port is None else port.value
            holder = holders.setdefault((address.lower(), number), name)
            if holder != name:
                sentence = f"{address}, port {number}, is already the address of {holder}; write another one"
                self.problems.append(hosts.problem(("hosts", name, "address"), sentence))

    def host(self, name: str, entry: Node, data: Mapping[str, str]) -> Host | None:
        """One machine with its settings, or None; its problems are recorded."""
        layers = [self.base, *self.group_layers(name, entry), *_own_layer(entry)]
        settings = self.settings(layers, data, name)
        try:
            said = HostEntry.model_validate_json(json.dumps(plain(entry)))
        except ValidationError:
            return None
        if settings is None:
            return None
        folder = self.hosts_path.parent
        return Host(
            name=name,
            address=said.address,
            port=said.port,
            user=said.user,
            identity_file=given_path(said.identity_file, folder) if said.identity_file else None,
            known_hosts_file=given_path(said.known_hosts_file or "~/.ssh/known_hosts", folder),
            groups=said.groups,
            settings=settings,
        )

    def group_layers(self, host: str, entry: Node) -> Iterator[Node | None]:
        """The files of a machine's groups in the order of its list: each overrides those before it."""
        groups = entry.child("groups")
        members = groups.value if groups is not None and isinstance(groups.value, list) else []
        for index, member in enumerate(members):
            group = member.value
            place: tuple[Step, ...] = ("hosts", host, "groups", index)
            if not isinstance(group, str) or self.hosts is None or not _is_group(group):
                continue
            if group in LAB_GROUPS and not self.is_lab:
                sentence = f"'{group}' is a group of the lab alone; write another one"
                self.problems.append(self.hosts.problem(place, sentence))
                continue
            if not (self.root / "group_data" / f"{group}.yml").exists():
                self.problems.append(self.hosts.problem(place, self.no_group(group)))
                yield None
                continue
            if group not in self.groups:
                self.groups[group] = self.read(self.root / "group_data" / f"{group}.yml")
            yield self.groups[group]

    def no_group(self, group: str) -> str:
        """The sentence for a group without a file."""
        known = {path.stem for path in (self.root / "group_data").glob("*.yml")} - {"all", "hosts", *LAB_GROUPS}
        meant = nearest_word(group, known)
        return f"there is no group_data/{group}.yml; create it" + (f", or write '{meant}'" if meant else "")

    def settings(self, layers: Sequence[Node | None], data: Mapping[str, str], host: str = LOCAL) -> Settings | None:
        """The merged and checked layers, or None; their problems are recorded.

        If a layer could not be read, each value of the others is checked by itself: the lost layer may hold a missing
        key, or resolve a conflict.
        """
        known = [layer for layer in layers if layer is not None]
        if not known:
            return None
        merged = reduce(merge, known)
        for path, text in data.items():
            try:
                merged = lay_on(merged, path, text, settings_schema())
            except SettingsError as error:
                self.problems.extend(error.problems)
        found: list[Problem] = []
        settings = _validated(Settings, merged, settings_schema(), found)
        if self.unread or len(known) < len(layers):
            found = [problem for problem in found if not problem.message.startswith("is missing; add it")]
        if len(known) == len(layers):
            rules = ((place, sentence) for place, sentence in findings(merged) if not merged.nearest(place).broken)
            found.extend(merged.problem(place, sentence) for place, sentence in rules)
        self.problems.extend(self.as_written(problem, host) for problem in found)
        return None if found or self.unread or len(known) < len(layers) else settings

    def as_written(self, problem: Problem, host: str) -> Problem:
        """A problem with its path in the file: a machine's own settings are further inside there."""
        if self.hosts is None or problem.file != self.hosts.file:
            return problem
        return replace(problem, path=f"hosts.{host}.settings.{problem.path}")


def _validated(model: type[Model], root: Node, schema: Schema, problems: list[Problem]) -> Model | None:
    """The checked model, or None; its problems are recorded."""

    def wrong(tree: Node) -> list[ErrorDetails]:
        try:
            model.model_validate_json(json.dumps(plain(tree)))
        except ValidationError as error:
            return error.errors(include_url=False)
        return []

    try:
        return model.model_validate_json(json.dumps(plain(root)))
    except ValidationError:
        problems.extend(explain(wrong, root, schema))
        return None


def _is_group(name: str) -> bool:
    """Whether it can be the name of a group, and so of a file; if not, the check of the entry reports it."""
    try:
        GROUP.validate_python(name)
    except ValidationError:
        return False
    return True


def _text_at(node: Node, key: str) -> str | None:
    """The text at a key, None if there is none or another type."""
    child = node.child(key)
    return child.value if child is not None and isinstance(child.value, str) else None


def _own_layer(entry: Node) -> list[Node]:
    """A machine's own settings, if any."""
    own = entry.child("settings")
    return [own] if own is not None and isinstance(own.value, dict) else []


def _local_entry() -> Node:
    """A minimal entry of hosts.yml for this machine."""
    return Node({"address": Node(LOCAL, "group_data/hosts.yml")}, "group_data/hosts.yml")
