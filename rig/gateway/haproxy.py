"""HAProxy's configuration and what it reads beside it, computed from the settings."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from rig.capacity.units import size_bytes
from rig.gateway.doors import BATCHES, asks, lists
from rig.gateway.log import FORMAT, UNPARSED
from rig.gateway.refusals import ERRORS, REFUSALS
from rig.gateway.times import longest_answer
from rig.render import own_file, render
from rig.settings import Settings
from rig.settings.gateway import Pattern
from rigd.gateway.config import MAP, TLS, Config, Limits, Remote

CONFIGURATION = "/etc/rig/gateway"
"""A folder of our own: the package's own files stay as they are."""
RUN = "/run/rig-gateway"
"""Its sockets."""
ENGINE_KEYS = f"{CONFIGURATION}/engines.map"
"""The engines' own keys, by their names: the one secret in the folder."""
CERTIFICATE = f"{TLS}/remote.pem"
"""Certificate, chain and key for other machines."""
BATCH = "/run/rig-batch/batch.sock"
"""The socket of the batch server."""

SEEN = 256 * 1024
"""Bytes of a request that are seen: a prompt of some 60,000 tokens."""
CONNECTIONS = 512
"""Connections at the same time: each may hold some buffers of `SEEN` bytes, and all have to fit in its memory."""
REMOTE = 128
"""Connections from other machines, each of up to 20 streams of HTTP/2: they leave room for this one's own programs."""
EPOCH = 1_790_000_000_000
"""Milliseconds of a day in September 2026, from which tenths of a second are counted in 32 bits: until 2040."""


def packages(settings: Settings) -> tuple[str, ...]:
    """The distribution's packages that the settings need."""
    return ("haproxy",) if settings.gateway_wanted else ()


def made(settings: Settings) -> dict[str, str]:
    """Files that the configuration names and programs on the machine make, each with its program."""
    certificate = dict.fromkeys(certificates(settings), "/usr/local/bin/rig-gateway-certificate")
    return {MAP: "/usr/local/bin/rig-keys apply", **certificate}


def certificates(settings: Settings) -> tuple[str, ...]:
    """Certificates whose end is of interest."""
    return (CERTIFICATE,) if settings.gateway_wanted and settings.gateway.remote.enabled else ()


@dataclass(frozen=True)
class Engine:
    """One engine as Lua knows it."""

    name: str
    fallback: str | None

    @property
    def lua(self) -> str:
        """The fallback in Lua's language."""
        return "nil" if self.fallback is None else f'"{self.fallback}"'


@dataclass(frozen=True)
class Pool:
    """A backend of HAProxy's: an engine alone, or with its fallback."""

    name: str
    engine: str
    timeout: int
    """Seconds of silence that are allowed."""
    servers: tuple[str, ...]


def pools(settings: Settings) -> list[Pool]:
    """The backends of every enabled engine, in the order of the settings.

    No passive health: with a single engine, one prompt that it cannot take would take it from everybody.
    """
    times = {name: longest_answer(settings, name) for name in settings.enabled_engines}
    found = []
    for name, engine in settings.enabled_engines.items():
        server = f"{name} {engine.address}:{engine.port}"
        found.append(Pool(f"engine_{name}", name, times[name], (f"{server} check inter 1s fall 2 rise 1",)))
        other = settings.gateway.fallbacks.get(name)
        if other is not None:
            joint = (
                f"{server} track engine_{name}/{name}",
                f"{other} unix@{RUN}/to-{other}.sock track engine_{other}/{other} backup",
            )
            found.append(Pool(f"fallback_{name}", name, max(times[name], times[other]), joint))
    return found


def texts(settings: Settings, *, batch: bool = False) -> dict[str, str]:
    """The text of every file of the folder by its name, without the engines' keys; the file that names the others last.

    `batch`: whether there is a batch server.
    """
    engines = [Engine(name, settings.gateway.fallbacks.get(name)) for name in settings.enabled_engines]
    others = {
        "engines.lua": render(f"{CONFIGURATION}/engines.lua", engines=engines, names=_names(settings)),
        "gateway.lua": own_file(f"{CONFIGURATION}/gateway.lua"),
        "patterns.map": "".join(f"{_key(pattern)} {pattern.name}\n" for pattern in settings.gateway.input.patterns),
    }
    values = _values(settings, batch)
    mark = _hash(render(f"{CONFIGURATION}/haproxy.cfg", fingerprint="", **values), *others.values())
    return {**others, "haproxy.cfg": render(f"{CONFIGURATION}/haproxy.cfg", fingerprint=mark, **values)}


def fingerprint(texts: Mapping[str, str]) -> str:
    """SHA-256 over all these files, which the gateway that runs with them shows."""
    found = re.search(r'string "([0-9a-f]{64})" if { path /fingerprint }', texts["haproxy.cfg"])
    assert found is not None
    return found[1]


def _values(settings: Settings, batch: bool) -> dict[str, object]:
    gateway = settings.gateway
    every = pools(settings)
    return {
        "connections": CONNECTIONS,
        "longest": max((pool.timeout for pool in every), default=0),
        "run": RUN,
        "seen": SEEN,
        "configuration": CONFIGURATION,
        "keys": MAP,
        "engine_keys": ENGINE_KEYS,
        "batch": BATCH,
        "port": gateway.port,
        "metrics_port": gateway.metrics.port,
        "wrong_keys": gateway.limits.wrong_keys,
        "epoch": -EPOCH,
        "longest_body": size_bytes(gateway.body.request),
        "longest_upload": size_bytes(gateway.body.upload),
        "log_format": FORMAT,
        "unparsed": UNPARSED,
        "asks": " ".join(asks(settings)),
        "lists": " ".join(lists(settings)),
        "batches": BATCHES if batch else (),
        "refusals": {name: refusal.rule for name, refusal in REFUSALS.items()},
        "errors": [error.answer for error in ERRORS],
        "patterns": gateway.input.patterns,
        "block": gateway.input.block,
        "beyond": "" if gateway.input.patterns else " !by_path",
        "pools": every,
        "standins": sorted(set(gateway.fallbacks.values())),
        "remote": gateway.remote if gateway.remote.enabled else None,
        "remote_connections": REMOTE,
        "certificate": CERTIFICATE,
    }


def _names(settings: Settings) -> list[dict[str, object]]:
    return [
        {"name": name, "split": "true" if served.split else "false", "engines": served.engines.items()}
        for name, served in settings.served_names.items()
    ]


def _key(pattern: Pattern) -> str:
    """The pattern as the key of a map, which ends at the first space and must not look like a comment."""
    return pattern.regex.replace(" ", r"\x20").replace("#", r"\x23")


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8) + part.encode())
    return digest.hexdigest()


def config(settings: Settings) -> Config:
    """The settings of the gateway's programs on the machine."""
    limits, wished = settings.gateway.limits, settings.gateway.remote
    remote = None
    if wished.enabled:
        own = wished.certificate
        remote = Remote(wished.names, None if own is None else own.chain, None if own is None else own.key)
    return Config(tuple(settings.enabled_engines), Limits(limits.rate, limits.burst, limits.concurrency), remote)
