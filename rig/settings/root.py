"""All concerns together, and values that follow from them without a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import Field

from rig.settings.backup import Backup
from rig.settings.containers import Containers
from rig.settings.engines import Engine, NativeEngine, alternatives
from rig.settings.firewall import Firewall
from rig.settings.gateway import Gateway
from rig.settings.gpu import Gpu
from rig.settings.machine import Machine
from rig.settings.models import Model, ModelFile, Models
from rig.settings.monitoring import Monitoring
from rig.settings.secrets import Secrets
from rig.settings.storage import Storage
from rig.settings.types import Name, Section
from rigd.models.manifest import version


@dataclass(frozen=True)
class ServedName:
    """The engines behind a name that clients ask for as a model, each with its weight.

    ``split``: requests are divided among them by weight; otherwise the first one that runs takes all.
    """

    engines: Mapping[str, int]
    split: bool


class Settings(Section):
    """The settings of one machine; one key per concern, in the order of all.yml."""

    machine: Machine = Field(description="The operating system.")
    storage: Storage = Field(description="Free space, and the folders of models and backups.")
    gpu: Gpu = Field(description="The graphics card's driver, and the card in containers.")
    containers: Containers = Field(description="The container engine.")
    secrets: Secrets = Field(description="Who gets a key of their own.")
    models: Models = Field(description="Model files, pinned.")
    engines: dict[Name, Engine] = Field(description="The llama.cpp servers, by name.")
    gateway: Gateway = Field(description="The one door to the engines.")
    firewall: Firewall = Field(description="The packet filter.")
    monitoring: Monitoring = Field(description="What is measured on the machine, kept and told.")
    backup: Backup = Field(description="What is copied to another disk, and when.")

    @property
    def enabled_engines(self) -> dict[str, Engine]:
        """Engines to run, by name."""
        return {name: engine for name, engine in self.engines.items() if engine.enabled}

    @property
    def alternatives(self) -> dict[str, tuple[str, ...]]:
        """Enabled engines of which one runs at a time, by the name of their group; groups of one are left out."""
        return alternatives(self.enabled_engines)

    def rivals(self, name: str) -> tuple[str, ...]:
        """The group of alternatives of an enabled engine, including itself; empty if it has none."""
        return next((group for group in self.alternatives.values() if name in group), ())

    def unit(self, name: str) -> str:
        """The systemd unit of an engine."""
        kind = "native" if isinstance(self.engines[name], NativeEngine) else "container"
        return f"rig-{kind}@{name}.service"

    @property
    def needed_models(self) -> dict[str, Model]:
        """Models of the catalogue that enabled engines serve, by catalogue name; each once."""
        named = [name for engine in self.enabled_engines.values() for name in engine.model_names]
        return {name: self.models.catalogue[name] for name in dict.fromkeys(named)}

    @property
    def consumers(self) -> tuple[str, ...]:
        """Everyone with a key: the enabled engines and those in secrets.consumers, each once."""
        return tuple(dict.fromkeys((*self.enabled_engines, *self.secrets.consumers)))

    @property
    def gateway_wanted(self) -> bool:
        """Whether there is a gateway: it is set on, and there are engines for it."""
        return self.gateway.enabled and bool(self.enabled_engines)

    @property
    def served_names(self) -> dict[str, ServedName]:
        """Names that clients ask for as a model: the models of enabled engines, and the gateway's routes."""
        found: dict[str, dict[str, int]] = {}
        for name, engine in self.enabled_engines.items():
            found.setdefault(engine.model, {})[name] = 1
        routes = {name: ServedName(engines, split=True) for name, engines in self.gateway.routes.items()}
        return {model: ServedName(engines, split=False) for model, engines in found.items()} | routes

    def aliases(self, name: str) -> tuple[str, ...]:
        """Further model names in requests to an enabled engine: of its routes, and of engines whose fallback it is."""
        if not self.gateway_wanted:
            return ()
        covered = [other for other, fallback in self.gateway.fallbacks.items() if fallback == name]
        found = [route for route, weights in self.gateway.routes.items() if {name, *covered} & set(weights)]
        found += [self.engines[other].model for other in covered]
        return tuple(alias for alias in dict.fromkeys(found) if alias != self.engines[name].model)

    def model_path(self, name: str) -> PurePosixPath:
        """An engine's path to a model of the catalogue: its one file, or the folder of its repository."""
        file = self.models.catalogue[name].chosen.file
        return self.model_folder(name) if file is None else self.model_folder(name) / file

    def model_folder(self, name: str) -> PurePosixPath:
        """The folder on the machine for the served version of a model, and for nothing else."""
        pinned = self.models.catalogue[name].chosen.pinned
        return PurePosixPath(self.storage.models.path) / name / version((file.file, file.sha256) for file in pinned)

    def model_files(self, name: str) -> dict[PurePosixPath, ModelFile]:
        """Each file of the served version of a model, by its path on the machine."""
        folder = self.model_folder(name)
        return {folder / pinned.file: pinned for pinned in self.models.catalogue[name].chosen.pinned}
