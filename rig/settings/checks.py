"""Rules between settings, which no single value can break alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from rig.settings import daemon
from rig.settings.backup import Backup
from rig.settings.containers import Containers
from rig.settings.engines import Containerised, Engine, LlamaEngine, NativeEngine, VllmEngine
from rig.settings.firewall import Firewall
from rig.settings.fitting import Finding, misfits
from rig.settings.folders import KERNEL
from rig.settings.gateway import Gateway
from rig.settings.gateway import contradictions as gateway_contradictions
from rig.settings.machine import Hardware
from rig.settings.models import Model, Models, contradictions
from rig.settings.monitoring import NOBODY, Email, Monitoring, Receiver
from rig.settings.packages import CONFLICTING, DRIVERS, MONITORING_PACKAGES, VENDOR
from rig.settings.storage import Folder, Storage
from rig.settings.thermal import Thermal, misordered
from rig.settings.tree import Node, plain
from rig.settings.words import nearest_word

Part = TypeVar("Part")

UNPINNED = "is missing although the engine is enabled"
BACKUP = TypeAdapter(Backup)
ENGINE: TypeAdapter[Engine] = TypeAdapter(Engine)
FIREWALL = TypeAdapter(Firewall)
GATEWAY = TypeAdapter(Gateway)
HARDWARE = TypeAdapter(Hardware)
CONTAINERS = TypeAdapter(Containers)
MODEL = TypeAdapter(Model)
RECEIVER: TypeAdapter[Receiver] = TypeAdapter(Receiver)
LARGEST_CONTEXT = 2**31 - 1
"""Tokens that llama-server can count (an int32_t: n_ctx of its common_params)."""
MONITORING = TypeAdapter(Monitoring)
STORAGE = TypeAdapter(Storage)


@dataclass(frozen=True)
class _Sound:
    """The valid parts of the settings; rules about invalid parts have to wait."""

    backup: Backup | None
    containers: Containers | None
    engines: dict[str, Engine]
    firewall: Firewall | None
    gateway: Gateway | None
    hardware: Hardware | None
    catalogue: dict[str, Model]
    names: frozenset[str]
    """Models in the catalogue, valid or not."""
    monitoring: Monitoring | None
    receivers: dict[str, Receiver]
    storage: Storage | None
    users: frozenset[str]
    packages: tuple[str, ...]


def findings(tree: Node) -> Iterator[Finding]:
    """Every broken rule, as path and sentence."""
    sound = _sound_parts(tree)
    enabled = {name: engine for name, engine in sound.engines.items() if engine.enabled}
    yield from _unpinned(enabled)
    listeners = {} if sound.monitoring is None else sound.monitoring.listeners
    listeners |= {} if sound.gateway is None else sound.gateway.listeners
    yield from _port_clashes(enabled, sound.firewall, listeners)
    yield from _name_clashes(enabled, listeners)
    yield from _unknown_models(sound.engines, sound.names)
    yield from _unpinned_models(enabled, sound.catalogue)
    yield from _too_many_tokens(sound.engines)
    yield from _lonely(enabled, _groups(tree))
    if sound.firewall is not None:
        yield from _opened_engines(enabled, sound.firewall)
        yield from _opened_in_vain(listeners, sound.firewall)
    if sound.monitoring is not None:
        yield from _thermal(sound.monitoring.thermal, enabled)
    if sound.gateway is not None:
        firewall = sound.firewall is None or sound.firewall.enabled
        for path, sentence in gateway_contradictions(sound.gateway, enabled, firewall=firewall):
            yield ("gateway", *path), sentence
    yield from _impossible_receivers(sound.receivers)
    if sound.hardware is not None:
        yield from misfits(enabled, Models.model_construct(catalogue=sound.catalogue), sound.hardware)
    if sound.containers is not None:
        yield from ((("containers", "daemon", key), said) for key, said in daemon.problems(sound.containers.daemon))
    yield from _removed_packages(sound)
    if sound.storage is not None and sound.backup is not None:
        yield from _backup_of_itself(sound.backup, sound.storage)
    if sound.backup is not None:
        yield from _endless_backup(sound.backup)
    if sound.storage is not None:
        yield from _shared_folder(sound.storage)
        yield from _one_disk(sound.storage)
        yield from _homes(sound.storage, sound.users)
        yield from _closed_models(enabled, sound.storage.models)


def _sound_parts(tree: Node) -> _Sound:
    """Each part that is valid on its own, so that one wrong value does not hide broken rules elsewhere."""
    packages = tree.at(("machine", "packages"))
    listed = packages.value if packages is not None and isinstance(packages.value, list) else []
    return _Sound(
        backup=_sound(BACKUP, tree.child("backup")),
        containers=_sound(CONTAINERS, tree.child("containers")),
        engines=_sound_members(ENGINE, tree.child("engines")),
        firewall=_sound(FIREWALL, tree.child("firewall")),
        gateway=_sound(GATEWAY, tree.child("gateway")),
        hardware=_sound(HARDWARE, tree.at(("machine", "hardware"))),
        catalogue=_sound_members(MODEL, tree.at(("models", "catalogue"))),
        names=frozenset(_members(tree.at(("models", "catalogue")))),
        monitoring=_sound(MONITORING, tree.child("monitoring")),
        receivers=_sound_members(RECEIVER, tree.at(("monitoring", "receivers"))),
        storage=_sound(STORAGE, tree.child("storage")),
        users=frozenset(_members(tree.at(("machine", "users")))),
        packages=tuple(str(package.value) for package in listed),
    )


def _members(node: Node | None) -> dict[str, Node]:
    """The members of a mapping; none without a node."""
    return node.value if node is not None and isinstance(node.value, dict) else {}


def _sound_members(kind: TypeAdapter[Part], node: Node | None) -> dict[str, Part]:
    """The members of a mapping that are valid in themselves."""
    judged = {name: _sound(kind, member) for name, member in _members(node).items()}
    return {name: member for name, member in judged.items() if member is not None}


def _sound(kind: TypeAdapter[Part], node: Node | None) -> Part | None:
    """The part as its type, or None if it is invalid."""
    try:
        return None if node is None else kind.validate_json(json.dumps(plain(node)))
    except ValidationError:
        return None


def _shared_folder(storage: Storage) -> Iterator[Finding]:
    """Folders of models and backups that are equal or nested: the models would be their own backup."""
    models, backup = storage.models.path, storage.backup.path
    if models == backup:
        yield ("storage", "backup", "path"), "is the folder of the models too; write another one"
    elif _overlap(models, backup):
        sentence = f"{backup} and the folder of the models, {models}, hold each other; write one apart from it"
        yield ("storage", "backup", "path"), sentence


def _one_disk(storage: Storage) -> Iterator[Finding]:
    """Models and backups on one disk, which would be lost together."""
    models, backup = storage.models.mount, storage.backup.mount
    if models is not None and backup is not None and models.source.lower() == backup.source.lower():
        sentence = (
            f"is {backup.source}, the disk of the models, which are lost with it; write another disk, or mount: null"
        )
        yield ("storage", "backup", "mount", "source"), sentence


def _homes(storage: Storage, users: Collection[str]) -> Iterator[Finding]:
    """Folders that are somebody's home, whose owner and permissions would change."""
    for name, path in (("models", storage.models.path), ("backup", storage.backup.path)):
        user = next((user for user in users if path == f"/home/{user}"), None)
        if user is not None:
            sentence = f"{path} is the home of {user}, who could not log in any more; write a folder inside it"
            yield ("storage", name, "path"), sentence


def _closed_models(engines: Mapping[str, Engine], folder: Folder) -> Iterator[Finding]:
    """Permissions of the models' folder that exclude native engines: each runs as a user of its own."""
    native = next((name for name, engine in engines.items() if isinstance(engine, NativeEngine)), None)
    if native is not None and not int(folder.mode[-1]) & 1:
        remedy = f"write {folder.mode[:-1]}{int(folder.mode[-1]) | 5} in quotes"
        sentence = f"{folder.mode} keeps out engine {native}, which runs as a user of its own; {remedy}"
        yield ("storage", "models", "mode"), sentence


def _endless_backup(backup: Backup) -> Iterator[Finding]:
    """Folders whose content the kernel generates while it is read."""
    for number, path in enumerate(backup.paths):
        folder = next((folder for folder in KERNEL if _overlap(folder, path)), None)
        if folder is not None and PurePosixPath(path).is_relative_to(folder):
            sentence = f"{path} lies in {folder}, which is in memory only and made up while it is read; remove it"
            yield ("backup", "paths", number), sentence


def _too_many_tokens(engines: Mapping[str, Engine]) -> Iterator[Finding]:
    """Contexts that llama-server cannot count: it gets the total of all sequences as one number of 32 bits."""
    for name, engine in engines.items():
        if isinstance(engine, LlamaEngine) and engine.total_context > LARGEST_CONTEXT:
            sentence = (
                f"{engine.context} tokens x {engine.sequences} sequences are more than the {LARGEST_CONTEXT} that "
                f"llama-server can count; write {LARGEST_CONTEXT // engine.sequences} or less"
            )
            yield ("engines", name, "context"), sentence


def _removed_packages(sound: _Sound) -> Iterator[Finding]:
    """Packages that the deploy itself removes, or installs from elsewhere: they would come and go on every run."""
    gone: dict[str, str] = {}
    if sound.containers is not None:
        vendor = sound.containers.source == "vendor"
        reason = f"containers.source: {sound.containers.source} "
        gone |= dict.fromkeys(CONFLICTING if vendor else VENDOR, f"{reason}removes it")
        gone |= dict.fromkeys(VENDOR if vendor else (), f"{reason}installs it by itself")
    if sound.monitoring is not None and not sound.monitoring.enabled:
        gone |= dict.fromkeys(MONITORING_PACKAGES, "monitoring.enabled: false removes it")
    for number, package in enumerate(sound.packages):
        if package in gone:
            yield ("machine", "packages", number), f"is '{package}', and {gone[package]}; remove it here"
        elif package.startswith(DRIVERS):
            yield (
                ("machine", "packages", number),
                f"is '{package}', and gpu installs the driver by itself; remove it here",
            )


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are equal, or one contains the other."""
    return PurePosixPath(one).is_relative_to(other) or PurePosixPath(other).is_relative_to(one)


def _backup_of_itself(backup: Backup, storage: Storage) -> Iterator[Finding]:
    """Folders to back up that contain the backup, or are in it."""
    folder = storage.backup.path
    for number, path in enumerate(backup.paths):
        if _overlap(folder, path):
            sentence = f"{path} and the backup in {folder} hold each other; write folders that are apart from it"
            yield ("backup", "paths", number), sentence


def _thermal(thermal: Thermal, engines: Mapping[str, Engine]) -> Iterator[Finding]:
    """Thresholds in the wrong order, and an engine to stop that does not run."""
    for path, sentence in misordered(thermal):
        yield ("monitoring", "thermal", *path), sentence
    stopped = thermal.on_critical.stop_engine
    if thermal.enabled and stopped is not None and stopped not in engines:
        meant = nearest_word(stopped, engines)
        remedy = f"write '{meant}' or null" if meant else "write null"
        yield ("monitoring", "thermal", "on_critical", "stop_engine"), f"'{stopped}' is no enabled engine; {remedy}"


def _unpinned(engines: Mapping[str, Engine]) -> Iterator[Finding]:
    """Enabled engines whose image or archive is not pinned."""
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
    """Ports with two listeners: SSH, the monitoring programs and the gateway (`listeners`), and enabled engines."""
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
    """An engine whose container would have Grafana's name."""
    if "monitoring.grafana" in listeners and isinstance(engines.get("grafana"), Containerised):
        sentence = "is the name of the container of monitoring.grafana; give the engine another name"
        yield ("engines", "grafana"), sentence


def _unknown_models(engines: Mapping[str, Engine], models: Collection[str]) -> Iterator[Finding]:
    """Engines whose model or projector is not in the catalogue."""
    for name, engine in engines.items():
        projector = engine.projector if isinstance(engine, LlamaEngine) else None
        for key, wanted in (("model", engine.model), ("projector", projector)):
            if wanted is None or wanted in models:
                continue
            meant = nearest_word(wanted, models)
            remedy = f"write '{meant}'" if meant else "add it there or write one of its names"
            yield ("engines", name, key), f"'{wanted}' is not in models.catalogue; {remedy}"


def _groups(tree: Node) -> list[object]:
    """The group of alternatives of every engine with one, including engines that are invalid otherwise."""
    engines = tree.child("engines")
    written = engines.value if engines is not None and isinstance(engines.value, dict) else {}
    said = [engine.child("alternatives") for engine in written.values()]
    return [group.value for group in said if group is not None and group.value is not None]


def _lonely(engines: Mapping[str, Engine], groups: list[object]) -> Iterator[Finding]:
    """Engines without an alternative: the group's name is mistyped, or its other engine is gone."""
    for name, engine in engines.items():
        if engine.alternatives is not None and groups.count(engine.alternatives) == 1:
            others = {str(group) for group in groups} - {engine.alternatives}
            meant = nearest_word(engine.alternatives, others)
            remedy = f"write '{meant}'" if meant else "write it at another engine too, or null"
            yield (
                ("engines", name, "alternatives"),
                f"'{engine.alternatives}' is the group of this engine alone; {remedy}",
            )


def _unpinned_models(engines: Mapping[str, Engine], models: Mapping[str, Model]) -> Iterator[Finding]:
    """Entries of the catalogue that contradict themselves, and unpinned files of enabled engines."""
    for name, model in models.items():
        for path, sentence in contradictions(name, model):
            yield ("models", "catalogue", name, *path), sentence
    for engine, entry in engines.items():
        for name in entry.model_names:
            found = models.get(name)
            if found is not None and found.chosen.files == ():
                sentence = f"are not known yet, and engine {engine} needs them; run rig lock {name}"
                yield ("models", "catalogue", name, "files"), sentence
            elif found is not None and not found.chosen.pinned:
                sentence = f"is missing, and engine {engine} needs it; write it, or run rig lock {name}"
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
    for place, allowed in firewall.opened.items():
        if allowed.protocol == "tcp" and allowed.port in holders:
            owner = holders[allowed.port]
            sentence = f"{allowed.port} is the port of engine '{owner}', which must not be opened; remove it"
            yield ("firewall", *place, "port"), sentence


def _impossible_receivers(receivers: Mapping[str, Receiver]) -> Iterator[Finding]:
    """Receivers whose name is taken, and logins without a password, or over an unencrypted connection."""
    for name, receiver in receivers.items():
        if name == NOBODY:
            sentence = "is the name of the receiver that hears of nothing; give the receiver another name"
            yield ("monitoring", "receivers", name), sentence
        if not isinstance(receiver, Email) or receiver.user is None:
            continue
        if not receiver.secret:
            sentence = "has no password to log in with; write secret: true, or user: null"
            yield ("monitoring", "receivers", name, "user"), sentence
        if not receiver.tls:
            sentence = "must be true for a login, as a password is not sent in the clear; write true, or user: null"
            yield ("monitoring", "receivers", name, "tls"), sentence


def _opened_in_vain(listeners: Mapping[str, int], firewall: Firewall) -> Iterator[Finding]:
    """Firewall rules for ports that answer only the machine itself."""
    holders = {port: key for key, port in listeners.items() if key != "gateway.remote"}
    for place, allowed in firewall.opened.items():
        if allowed.protocol == "tcp" and allowed.port in holders:
            sentence = (
                f"{allowed.port} is the port of {holders[allowed.port]}, which answers this machine only; "
                "remove it, and reach it through SSH"
            )
            yield ("firewall", *place, "port"), sentence
