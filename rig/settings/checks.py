"""What must hold between settings: rules that no single value can break alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from rig.settings.backup import Backup
from rig.settings.engines import Containerised, Engine, LlamaEngine, NativeEngine, VllmEngine
from rig.settings.firewall import Firewall
from rig.settings.fitting import Finding, misfits
from rig.settings.machine import Hardware
from rig.settings.models import Models, contradictions
from rig.settings.monitoring import Email, Monitoring
from rig.settings.storage import Storage
from rig.settings.thermal import Thermal, misordered
from rig.settings.tree import Node, plain
from rig.settings.words import nearest_word

Part = TypeVar("Part")

UNPINNED = "is missing although the engine is enabled"
BACKUP = TypeAdapter(Backup)
ENGINE: TypeAdapter[Engine] = TypeAdapter(Engine)
FIREWALL = TypeAdapter(Firewall)
HARDWARE = TypeAdapter(Hardware)
MODELS = TypeAdapter(Models)
MONITORING = TypeAdapter(Monitoring)
STORAGE = TypeAdapter(Storage)


@dataclass(frozen=True)
class _Sound:
    """The parts of the settings that are right in themselves; rules about wrong parts have to wait."""

    backup: Backup | None
    engines: dict[str, Engine]
    firewall: Firewall | None
    hardware: Hardware | None
    models: Models | None
    monitoring: Monitoring | None
    storage: Storage | None


def findings(tree: Node) -> Iterator[Finding]:
    """Every broken rule, as path and sentence."""
    sound = _sound_parts(tree)
    enabled = {name: engine for name, engine in sound.engines.items() if engine.enabled}
    yield from _unpinned(enabled)
    listeners = {} if sound.monitoring is None else sound.monitoring.listeners
    yield from _port_clashes(enabled, sound.firewall, listeners)
    yield from _name_clashes(enabled, listeners)
    if sound.models is not None:
        yield from _unknown_models(sound.engines, sound.models)
        yield from _unpinned_models(enabled, sound.models)
    yield from _lonely(enabled, _groups(tree))
    if sound.firewall is not None:
        yield from _opened_engines(enabled, sound.firewall)
        yield from _opened_in_vain(listeners, sound.firewall)
    if sound.monitoring is not None:
        yield from _thermal(sound.monitoring.thermal, enabled)
        yield from _impossible_logins(sound.monitoring)
    if sound.hardware is not None:
        yield from misfits(enabled, sound.models, sound.hardware)
    if sound.storage is not None and sound.backup is not None:
        yield from _backup_of_itself(sound.backup, sound.storage)
    if sound.storage is not None:
        yield from _shared_folder(sound.storage)


def _sound_parts(tree: Node) -> _Sound:
    """Each part that passes on its own, so that one wrong value does not hide the rules that others break."""
    engines = tree.child("engines")
    written = engines.value if engines is not None and isinstance(engines.value, dict) else {}
    judged = {name: _sound(ENGINE, node) for name, node in written.items()}
    return _Sound(
        backup=_sound(BACKUP, tree.child("backup")),
        engines={name: engine for name, engine in judged.items() if engine is not None},
        firewall=_sound(FIREWALL, tree.child("firewall")),
        hardware=_sound(HARDWARE, tree.at(("machine", "hardware"))),
        models=_sound(MODELS, tree.child("models")),
        monitoring=_sound(MONITORING, tree.child("monitoring")),
        storage=_sound(STORAGE, tree.child("storage")),
    )


def _sound(kind: TypeAdapter[Part], node: Node | None) -> Part | None:
    """The part as its type, or None when it is not one."""
    try:
        return None if node is None else kind.validate_json(json.dumps(plain(node)))
    except ValidationError:
        return None


def _shared_folder(storage: Storage) -> Iterator[Finding]:
    """Folders of models and backups that are one, or lie in each other: what is served would be its own copy."""
    models, backup = storage.models.path, storage.backup.path
    if models == backup:
        yield ("storage", "backup", "path"), "is the folder of the models too; write another one"
    elif _overlap(models, backup):
        sentence = f"{backup} and the folder of the models, {models}, hold each other; write one apart from it"
        yield ("storage", "backup", "path"), sentence


def _overlap(one: str, other: str) -> bool:
    """Whether one of two paths is the other, or lies in it."""
    return PurePosixPath(one).is_relative_to(other) or PurePosixPath(other).is_relative_to(one)


def _backup_of_itself(backup: Backup, storage: Storage) -> Iterator[Finding]:
    """Folders to be backed up that hold the backup, or lie in it."""
    folder = storage.backup.path
    for number, path in enumerate(backup.paths):
        if _overlap(folder, path):
            sentence = f"{path} and the backup in {folder} hold each other; write folders that are apart from it"
            yield ("backup", "paths", str(number)), sentence


def _thermal(thermal: Thermal, engines: Mapping[str, Engine]) -> Iterator[Finding]:
    """Thresholds in the wrong order, and an engine to be stopped that does not run."""
    for path, sentence in misordered(thermal):
        yield ("monitoring", "thermal", *path), sentence
    stopped = thermal.on_critical.stop_engine
    if thermal.enabled and stopped is not None and stopped not in engines:
        meant = nearest_word(stopped, engines)
        remedy = f"write '{meant}' or null" if meant else "write null"
        yield ("monitoring", "thermal", "on_critical", "stop_engine"), f"'{stopped}' is no enabled engine; {remedy}"


def _unpinned(engines: Mapping[str, Engine]) -> Iterator[Finding]:
    """Enabled engines without the pinned thing they run."""
    for name, engine in engines.items():
        if isinstance(engine, Containerised) and engine.image is None:
            yield (
                ("engines", name, "image"),
                f"{UNPINNED}; write repository:tag@sha256:..., or enabled: false",
            )
        if isinstance(engine, NativeEngine) and engine.archive is None:
            yield ("engines", name, "archive"), f"{UNPINNED}; write url and sha256 of it, or enabled: false"


def _port_clashes(
    engines: Mapping[str, Engine], firewall: Firewall | None, listeners: Mapping[str, int]
) -> Iterator[Finding]:
    """Ports on which two would listen: SSH, what monitors the machine (`listeners`), and enabled engines."""
    wanted = {} if firewall is None else {"firewall.ssh": firewall.ssh.port}
    wanted |= {**listeners, **{f"engines.{name}": engine.port for name, engine in engines.items()}}
    holders: dict[int, str] = {}
    for key, port in wanted.items():
        holder = holders.setdefault(port, key)
        if holder != key:
            free = next(port for port in range(8000, 65536) if port not in wanted.values())
            sentence = f"{port} is already the port of {holder}; write another, such as {free}"
            yield (*key.split("."), "port"), sentence


def _name_clashes(engines: Mapping[str, Engine], listeners: Mapping[str, int]) -> Iterator[Finding]:
    """An engine whose container would have the name of Grafana's."""
    if "monitoring.grafana" in listeners and isinstance(engines.get("grafana"), Containerised):
        sentence = "is the name of the container of monitoring.grafana; give the engine another name"
        yield ("engines", "grafana"), sentence


def _unknown_models(engines: Mapping[str, Engine], models: Models) -> Iterator[Finding]:
    """Engines whose model or projector the catalogue does not have."""
    for name, engine in engines.items():
        projector = engine.projector if isinstance(engine, LlamaEngine) else None
        for key, wanted in (("model", engine.model), ("projector", projector)):
            if wanted is None or wanted in models.catalogue:
                continue
            meant = nearest_word(wanted, models.catalogue)
            remedy = f"write '{meant}'" if meant else "add it there or write one of its names"
            yield ("engines", name, key), f"'{wanted}' is not in models.catalogue; {remedy}"


def _groups(tree: Node) -> list[object]:
    """The group of alternatives of every engine that has one, also of those that are wrong in something else."""
    engines = tree.child("engines")
    written = engines.value if engines is not None and isinstance(engines.value, dict) else {}
    said = [engine.child("alternatives") for engine in written.values()]
    return [group.value for group in said if group is not None and group.value is not None]


def _lonely(engines: Mapping[str, Engine], groups: list[object]) -> Iterator[Finding]:
    """Engines that are alternatives to nothing: the group's name is mistyped, or its other engine is gone."""
    for name, engine in engines.items():
        if engine.alternatives is not None and groups.count(engine.alternatives) == 1:
            others = {str(group) for group in groups} - {engine.alternatives}
            meant = nearest_word(engine.alternatives, others)
            remedy = f"write '{meant}'" if meant else "write it at another engine too, or null"
            yield (
                ("engines", name, "alternatives"),
                f"'{engine.alternatives}' is the group of this engine alone; {remedy}",
            )


def _unpinned_models(engines: Mapping[str, Engine], models: Models) -> Iterator[Finding]:
    """Entries of the catalogue that contradict themselves, and files that an enabled engine needs and nobody knows."""
    for name, model in models.catalogue.items():
        for path, sentence in contradictions(name, model):
            yield ("models", "catalogue", name, *path), sentence
    for engine, entry in engines.items():
        for name in entry.model_names:
            found = models.catalogue.get(name)
            if found is not None and found.chosen.files == ():
                sentence = f"are not known yet, and engine {engine} needs them; run python -m rig lock {name}"
                yield ("models", "catalogue", name, "files"), sentence
            elif found is not None and not found.chosen.pinned:
                sentence = f"is missing, and engine {engine} needs it; write it, or run python -m rig lock {name}"
                yield ("models", "catalogue", name, *found.place, "sha256"), sentence
            elif found is not None and found.file is None and isinstance(entry, LlamaEngine):
                sentence = f"is '{name}', a whole repository, and llama.cpp serves one GGUF file; write such a model"
                yield ("engines", engine, "model" if name == entry.model else "projector"), sentence
            elif found is not None and found.file is not None and isinstance(entry, VllmEngine):
                sentence = f"is '{name}', a single file, and vLLM serves the files of a repository; write such a model"
                yield ("engines", engine, "model"), sentence


def _opened_engines(engines: Mapping[str, Engine], firewall: Firewall) -> Iterator[Finding]:
    """Firewall rules that would open an engine's port."""
    holders = {engine.port: name for name, engine in engines.items()}
    for rule, allowed in firewall.allow.items():
        if allowed.protocol == "tcp" and allowed.port in holders:
            owner = holders[allowed.port]
            sentence = f"{allowed.port} is the port of engine '{owner}', which must not be opened; remove it"
            yield ("firewall", "allow", rule, "port"), sentence


def _impossible_logins(monitoring: Monitoring) -> Iterator[Finding]:
    """Logins at mail servers without a password, or with one that everybody on the way could read."""
    for name, receiver in monitoring.receivers.items():
        if not isinstance(receiver, Email) or receiver.user is None:
            continue
        if not receiver.secret:
            sentence = "has no password to log in with; write secret: true, or user: null"
            yield ("monitoring", "receivers", name, "user"), sentence
        if not receiver.tls:
            sentence = "must be true for a login, as a password is not sent in the clear; write true, or user: null"
            yield ("monitoring", "receivers", name, "tls"), sentence


def _opened_in_vain(listeners: Mapping[str, int], firewall: Firewall) -> Iterator[Finding]:
    """Firewall rules for ports on which only the machine itself is answered."""
    holders = {port: key for key, port in listeners.items()}
    for rule, allowed in firewall.allow.items():
        if allowed.protocol == "tcp" and allowed.port in holders:
            sentence = (
                f"{allowed.port} is the port of {holders[allowed.port]}, which answers this machine only; "
                "remove it, and reach it through SSH"
            )
            yield ("firewall", "allow", rule, "port"), sentence
