"""Concern models: the files that enabled engines serve, verified before they take their name."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern

from rig.operations import downloads
from rig.settings import Settings


@concern("models")
def deploy(settings: Settings) -> None:
    """Every needed model. A wrong one ends the run here, before an engine could serve it."""
    for name, model in settings.needed_models.items():
        downloads.model(
            name=f"Download the model {name}",
            model=name,
            url=settings.models.url(name),
            path=str(settings.model_path(name)),
            size=model.size,
            sha256=model.sha256,
        )
