"""The settings of the batch server; the deploy writes the JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated

from rigd.base import configuration
from rigd.base.configuration import AtLeast

PATH = "/etc/rig/batch.json"
SOCKET = "/run/rig-batch/batch.sock"

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
"""The endpoints that an engine can have."""


@dataclass(frozen=True)
class Engine:
    """A model server on this machine."""

    name: str
    url: str
    """Its address without /v1."""
    models: tuple[str, ...]
    """The models that it serves, by the names that clients use."""
    concurrency: Annotated[int, AtLeast(1)]
    """Most requests at a time."""
    key: str | None = None
    """File with its key; None if it needs none."""
    priority: int | None = None
    """Value of `priority` in each request: greater than 0 is later than interactive requests, where the engine
    schedules by it. None leaves requests as they are."""
    timeout: Annotated[float, AtLeast(0.1)] = 600.0
    """Seconds until an answer must be complete."""


@dataclass(frozen=True)
class Limits:
    """Limits of one file and one line. The first two are OpenAI's."""

    file_bytes: Annotated[int, AtLeast(1)] = 200 << 20
    lines: Annotated[int, AtLeast(1)] = 50_000
    line_bytes: Annotated[int, AtLeast(1)] = 8 << 20
    """A line is parsed in memory, which takes up to 30 times its size."""
    answer_bytes: Annotated[int, AtLeast(1)] = 16 << 20
    """A longer answer counts as a stream without end."""
    findings: Annotated[int, AtLeast(1)] = 1000
    """Most invalid lines that a failed batch lists."""
    nesting: Annotated[int, AtLeast(1)] = 200
    """Most objects and lists within each other in a line."""


@dataclass(frozen=True)
class Patience:
    """How long the server waits for an engine that is in trouble, before a line is blamed for it."""

    strikes: Annotated[int, AtLeast(1)] = 3
    """Deaths or time-outs of the engine with a line before that line is given up."""
    tries: Annotated[int, AtLeast(1)] = 8
    """Answers 5xx to a line before that line is given up."""
    seconds: Annotated[float, AtLeast(0)] = 900.0
    """A line whose failures may be the engine's own is tried for so long, unless other lines succeed meanwhile."""
    probe: Annotated[float, AtLeast(0.01)] = 0.5
    """Seconds between two probes of an engine that is away."""
    pause: Annotated[float, AtLeast(0.001)] = 0.5
    """Seconds of the first pause after an overload; doubles up to 30."""


@dataclass(frozen=True)
class Config:
    """The settings of the server."""

    data: str
    """Folder for the queue and the files, on the data disk."""
    engines: tuple[Engine, ...] = ()
    socket: str | None = SOCKET
    port: int | None = None
    """A port on 127.0.0.1 beside the socket; None for none."""
    metrics: int | None = None
    """A port on 127.0.0.1 for Prometheus; None for none."""
    limits: Limits = Limits()
    patience: Patience = Patience()
    window: Annotated[int, AtLeast(1)] = 512
    """Lines that are ordered by their beginnings at a time."""
    grace: Annotated[float, AtLeast(0)] = 600.0
    """Seconds that requests in flight get to finish after a cancellation."""
    reserve: Annotated[int, AtLeast(0)] = 256 << 20
    """Bytes that stay free on the data disk: below it, the engines get no further lines."""


def dump(config: Config) -> str:
    """The settings as the file's text."""
    return json.dumps(asdict(config), indent=1) + "\n"


def parse(text: str) -> Config:
    """The settings in the file's text. Raises Unusable."""
    return configuration.parse(Config, text)
