"""The files that the stand-ins serve, and the settings that make a deploy use exactly those."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lab.cache import Cache
from lab.recipes import checkpoint, driver, engine, grafana, model, registry, smollm2, vendor, vllm
from lab.recipes.packing import sha256
from lab.spec import HUB, HUB_PORT, OPERATORS, REGISTRY, REGISTRY_PORT, Network


@dataclass(frozen=True)
class Goods:
    """Finished directories of the cache."""

    archive: Path
    images: Path
    model: Path
    checkpoint: Path
    smollm2: Path | None
    """None if it could not be fetched."""
    vendor: Path
    driver: Path
    registry: Path
    build: str

    @staticmethod
    def gather(cache: Cache) -> Goods:
        """All served artefacts; missing ones are made."""
        tree, python = engine.tree(cache), vllm.tree(cache)
        return Goods(
            archive=engine.archive(cache, tree),
            images=engine.images(cache, tree, python, grafana.tree(cache, python)),
            model=model.model(cache),
            checkpoint=checkpoint.checkpoint(cache),
            smollm2=smollm2.found(cache),
            vendor=vendor.repository(cache),
            driver=driver.repository(cache),
            registry=registry.program(cache),
            build=engine.build_number(tree),
        )

    @property
    def names(self) -> list[str]:
        """Names of the served artefacts, which change with their content."""
        found = (getattr(self, field.name) for field in fields(self))
        return [value.name if isinstance(value, Path) else str(value) for value in found]

    @property
    def archive_name(self) -> str:
        return f"llama-{self.build}-bin-linux.tar.gz"

    @property
    def registry_program(self) -> Path:
        return self.registry / "usr/bin/docker-registry"

    def registry_configuration(self, network: Network) -> dict[str, Any]:
        """The registry's configuration as JSON, which is YAML, too."""
        return {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.images)},
                "maintenance": {"readonly": {"enabled": True}},
            },
            "http": {"addr": f"{network.services}:{REGISTRY_PORT}"},
        }

    def hub_arguments(self) -> list[str]:
        about = json.loads((self.model / "about.json").read_text())
        models = [(model.REPOSITORY, about["revision"], model.FILE, str(self.model / model.FILE))]
        models += [
            (model.REPOSITORY, revision, model.FILE, str(self.model / revision / model.FILE))
            for revision in (model.UPDATE, model.SPOILT)
        ]
        models += [
            (checkpoint.REPOSITORY, checkpoint.REVISION, name, str(self.checkpoint / name))
            for name in (*checkpoint.SERVED, *checkpoint.OTHERS)
        ]
        if self.smollm2:
            source = smollm2.SOURCE
            models += [(smollm2.REPOSITORY, source.revision, source.file, str(self.smollm2 / source.file))]
        archives = ("--static", f"/archives/{self.archive_name}", str(self.archive / "llama.cpp.tar.gz"))
        return [
            f"--port={HUB_PORT}",
            *(word for each in models for word in ("--publish", *each)),
            *archives,
            *("--static", f"/{vendor.ROOT}/", str(self.vendor / vendor.ROOT)),
            *("--static", f"/{driver.CUDA}/", str(self.driver / driver.CUDA)),
            *("--static", f"/{driver.TOOLKIT}/", str(self.driver / driver.TOOLKIT)),
        ]

    def settings(self, network: Network) -> dict[str, Any]:
        """The values of `settings:` in the lab's hosts.yml: names, digests and hashes of the goods.

        The operator's machine does not know the names: its own downloads, which are written nowhere, use addresses.
        """
        hub = f"http://{HUB}:{HUB_PORT}"
        keys = f"http://{network.services}:{HUB_PORT}"
        registry_address = f"{REGISTRY}:{REGISTRY_PORT}"
        about = json.loads((self.model / "about.json").read_text())
        return {
            "gpu": {
                "driver": {
                    "repository": f"{hub}/{driver.CUDA}",
                    "key_source": f"{keys}/{driver.CUDA}",
                    "key_fingerprints": [(self.driver / "fingerprint").read_text()],
                },
                "toolkit": {
                    "repository": f"{hub}/{driver.TOOLKIT}",
                    "key_source": f"{keys}/{driver.TOOLKIT}",
                    "key_fingerprints": [(self.driver / "fingerprint-toolkit").read_text()],
                },
            },
            "containers": {
                "vendor": {
                    "repository": f"{hub}/docker/linux",
                    "key_source": f"{keys}/docker/linux",
                    "key_fingerprints": [(self.vendor / "fingerprint").read_text()],
                },
                "daemon": {"insecure-registries": [registry_address]},
            },
            "models": {
                "hub": hub,
                "catalogue": {
                    "tiny": {"repository": model.REPOSITORY, "file": model.FILE, **about},
                    # Not served in the lab; the tests fetch it.
                    "tiny-checkpoint": checkpoint.entry(self.checkpoint),
                    **({smollm2.NAME: smollm2.entry()} if self.smollm2 else {}),
                },
            },
            "engines": {
                "llama-70b": {"image": f"{registry_address}/{(self.images / 'reference').read_text()}"},
                "vllm-8b": {"image": f"{registry_address}/{(self.images / 'vllm-reference').read_text()}"},
                "llama-8b": {
                    "archive": {
                        "url": f"{hub}/archives/{self.archive_name}",
                        "sha256": sha256(self.archive / "llama.cpp.tar.gz"),
                        "binary": engine.BINARY,
                    }
                },
            },
            "monitoring": {
                "grafana": {"image": f"{registry_address}/{(self.images / 'grafana-reference').read_text()}"},
            },
            "firewall": {"ssh": {"networks": [OPERATORS]}},
        }
