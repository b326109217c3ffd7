"""Settings of the concern `gateway`: the one door to the engines, for programs here and for clients elsewhere."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Annotated

from pydantic import AfterValidator, Field

from rig.settings.problems import show
from rig.settings.types import (
    HOST,
    AbsolutePath,
    CatalogueName,
    LocalPort,
    Name,
    Network,
    Section,
    Shape,
    Size,
    Text,
    sized,
)
from rig.settings.words import nearest_word
from rigd.gateway.rates import interval, window

LONGEST_PATTERN = 500
"""Characters of an input pattern: more than anybody reads."""


def _expressible(rate: int) -> int:
    interval(rate)
    return rate


def _pattern(value: str) -> str:
    """A regular expression that does not match every request. HAProxy's library is another one, and checks it again."""
    if len(value) > LONGEST_PATTERN:
        raise ValueError(f"has {len(value)} characters; write {LONGEST_PATTERN} at most")
    try:
        compiled = re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        remedy = f"write {show(re.escape(value))} for these very letters"
        raise ValueError(f"{show(value)} is not a regular expression ({error}); {remedy}") from None
    if compiled.search("") is not None:
        raise ValueError(f"{show(value)} matches every request; write one that needs at least one character")
    return value


class Limits(Section):
    """Limits of a key without limits of its own."""

    rate: Annotated[int, Field(ge=1, le=600), AfterValidator(_expressible)] = Field(
        description="Requests a minute, 1 to 600, such that 600 divided by it is a whole number."
    )
    burst: int = Field(ge=1, le=600, description="Requests at once after a pause, a number.")
    concurrency: int = Field(ge=1, le=500, description="Requests in progress at the same time, a number.")
    wrong_keys: int = Field(
        ge=1, le=10_000, description="Requests a minute with wrong keys that one address may send, a number."
    )


class Body(Section):
    """Largest bodies of requests."""

    request: Annotated[Size, sized("1M", "1G", "a conversation with one picture takes more")] = Field(
        description="Largest body of a request to an engine, a size such as 32M."
    )
    upload: Annotated[Size, sized("1M", "100G", "a batch of requests takes more")] = Field(
        description="Largest file that is uploaded, a size such as 200M."
    )


class Pattern(Section):
    """A pattern in the body of requests."""

    name: Name = Field(description="Name of the pattern in the log and in the header X-Rig-Flag.")
    regex: Annotated[Text, AfterValidator(_pattern)] = Field(
        description="Regular expression that the request's body holds; (?i) first ignores upper and lower case."
    )


class Input(Section):
    """Patterns in the bodies of requests."""

    patterns: tuple[Pattern, ...] = Field(description="Patterns that flag a request, each with name and regex.")
    block: bool = Field(description="Whether a flagged request is refused, true or false.")


class Certificate(Section):
    """A certificate of the owner's, with its key."""

    chain: AbsolutePath = Field(description="PEM file on the machine with the certificate and its intermediates.")
    key: AbsolutePath = Field(description="PEM file on the machine with the certificate's private key.")


HostName = Annotated[
    str, Shape(rf"(?=.{{1,253}}$){HOST}", "a host name or an IPv4 address", "one such as rig.example.org")
]
Interface = Annotated[
    str, Shape(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", "a network interface", "one such as wg0, as `ip link` lists them")
]


class Remote(Section):
    """Access from other machines, encrypted."""

    enabled: bool = Field(description="Whether other machines reach the gateway, true or false.")
    port: LocalPort = Field(description="TCP port for other machines, 1024 to 65535.")
    interface: Interface | None = Field(
        description="Network interface by which they come, such as wg0; null: any interface."
    )
    networks: tuple[Network, ...] = Field(description="Networks that may reach it, such as 10.8.0.0/24.")
    names: tuple[HostName, ...] = Field(
        description="Host names and IPv4 addresses by which clients call it, for the certificate that Rig makes."
    )
    certificate: Certificate | None = Field(
        description="The owner's certificate, chain and key; null: Rig makes one, signed by a CA of the machine's own."
    )


class Metrics(Section):
    """The gateway's own metrics."""

    port: LocalPort = Field(description="TCP port of its metrics at 127.0.0.1, 1024 to 65535.")


class Gateway(Section):
    """The gateway to the engines."""

    enabled: bool = Field(description="Whether there is a gateway before the engines, true or false.")
    port: LocalPort = Field(description="TCP port it listens on at 127.0.0.1, 1024 to 65535.")
    metrics: Metrics = Field(description="The gateway's own metrics.")
    memory: Annotated[Size, sized("256M", "1T", "it takes about 100M")] = Field(
        description="Memory it may take before it is killed, as a size such as 1G."
    )
    limits: Limits = Field(description="Limits of a key without limits of its own.")
    body: Body = Field(description="Largest bodies of requests.")
    input: Input = Field(description="Patterns in the bodies of requests.")
    fallbacks: dict[Name, Name] = Field(description="Fallback of an engine that is down, by that engine's name.")
    routes: dict[CatalogueName, dict[Name, Annotated[int, Field(ge=1, le=256)]]] = Field(
        description="Names that clients may ask for as a model, each with the weight of its engines."
    )
    remote: Remote = Field(description="Access from other machines.")

    @property
    def listeners(self) -> dict[str, int]:
        """TCP ports of an enabled gateway, by their settings."""
        if not self.enabled:
            return {}
        local = {"gateway": self.port, "gateway.metrics": self.metrics.port}
        return local | ({"gateway.remote": self.remote.port} if self.remote.enabled else {})


def contradictions(
    gateway: Gateway, engines: Collection[str], *, firewall: bool
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Keys of the gateway that contradict each other or the rest, as path and sentence.

    `engines`: the enabled ones. `firewall`: whether the packet filter is in force.
    """
    if not gateway.enabled:
        return
    try:
        window(gateway.limits.rate, gateway.limits.burst)
    except ValueError as error:
        yield ("limits", "burst"), str(error)
    for name, other in gateway.fallbacks.items():
        if name not in engines:
            yield ("fallbacks", name), _no_engine(name, engines, "remove it")
        if other == name:
            yield ("fallbacks", name), "is the engine itself; write another one, or remove it"
        elif other not in engines:
            yield ("fallbacks", name), _no_engine(other, engines, "remove it")
    for route, weights in gateway.routes.items():
        if not weights:
            yield ("routes", route), "has no engine; write one with its weight, such as {llama-8b: 1}, or remove it"
        for name in weights:
            if name not in engines:
                yield ("routes", route, name), _no_engine(name, engines, "remove it")
    if gateway.remote.enabled:
        yield from _remote(gateway.remote, firewall=firewall)


def _remote(remote: Remote, *, firewall: bool) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if not remote.networks:
        yield ("remote", "networks"), "is empty, so that nobody reaches it; write a network such as 10.8.0.0/24"
    if remote.certificate is None and not remote.names:
        sentence = "is empty, and the certificate that Rig makes needs a name; write one such as rig.example.org"
        yield ("remote", "names"), sentence
    if not firewall:
        sentence = "is true, and only the packet filter keeps others out; write firewall.enabled: true, or false here"
        yield ("remote", "enabled"), sentence


def _no_engine(name: str, engines: Collection[str], otherwise: str) -> str:
    meant = nearest_word(name, engines)
    remedy = f"write '{meant}'" if meant else otherwise
    return f"'{name}' is no enabled engine; {remedy}"
