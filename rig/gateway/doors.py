"""The doors: every method and path that the gateway passes on. All others are 404, whatever lies behind them."""

from __future__ import annotations

from dataclasses import dataclass

from rig.settings import Settings

ASKS = ("chat/completions", "completions", "embeddings", "responses")
"""Paths below /v1 that engines answer, by POST."""


@dataclass(frozen=True)
class Door:
    """Methods and paths of the batch server; `path` is a regular expression, `methods` are separated by spaces."""

    methods: str
    path: str


BATCHES = (
    Door("GET POST", "^/v1/(files|batches)$"),
    Door("GET", "^/v1/(files|batches)/[A-Za-z0-9_-]{1,64}$"),
    Door("DELETE", "^/v1/files/[A-Za-z0-9_-]{1,64}$"),
    Door("GET", "^/v1/files/[A-Za-z0-9_-]{1,64}/content$"),
    Door("POST", "^/v1/batches/[A-Za-z0-9_-]{1,64}/cancel$"),
)
"""OpenAI's paths of files and batches."""


def asks(settings: Settings) -> list[str]:
    """Paths of requests to engines: by the model in the body, and by the engine's name in the path."""
    bases = ["/v1", *(f"/engines/{name}/v1" for name in settings.enabled_engines)]
    return [f"{base}/{ask}" for base in bases for ask in ASKS]


def lists(settings: Settings) -> list[str]:
    """Paths of the lists of models: all of a key's, and those of an engine."""
    return ["/v1/models", *(f"/engines/{name}/v1/models" for name in settings.enabled_engines)]
