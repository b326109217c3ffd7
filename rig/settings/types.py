"""Types of values that several concerns share, each with the sentence for an invalid value."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from rig.capacity.units import size_bytes
from rig.settings.problems import UNSEEN, show


def one_line(value: str) -> str:
    """Text as it is seen: a character that a program might take for the end of a line or of a text is refused."""
    for character in value:
        if unicodedata.category(character) in UNSEEN:
            name = "a line break" if character in "\n\r" else f"the invisible character U+{ord(character):04X}"
            raise ValueError(f"{show(value)} holds {name}; write it in one line, of visible characters")
    return value


class Section(BaseModel):
    """A mapping in the settings: only known keys, no guessing of types, unchangeable once read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Shape:
    """Text that matches a regular expression; `what` completes "is not ...", `write` is the correction."""

    pattern: str
    what: str
    write: str

    def check(self, value: str) -> str:
        one_line(value)
        if re.fullmatch(self.pattern, value):
            return value
        wrong = "is empty" if value == "" else f"{show(value)} is not {self.what}"
        raise ValueError(f"{wrong}; write {self.write}")

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


def _network(value: str) -> str:
    """A network in its canonical spelling; a single address is a network of one."""
    if "%" in value:
        sentence = f"{show(value)} names a network interface, which the packet filter does not take"
        raise ValueError(f"{sentence}; write {show(value.partition('%')[0])}")
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_interface(value).network
    except ValueError:
        raise ValueError(f"{show(value)} is not a network; write one such as 192.168.1.0/24 or fd00::/8") from None
    raise ValueError(f"{show(value)} is an address inside a network; write {meant}")


def _loopback(value: str) -> str:
    """An IPv4 loopback address: engines answer only this machine."""
    try:
        address = ipaddress.IPv4Address(value)
    except ValueError:
        raise ValueError(f"{show(value)} is not an IPv4 address; write 127.0.0.1") from None
    if not address.is_loopback:
        raise ValueError(f"{show(value)} is not on loopback, where engines must stay; write 127.0.0.1")
    return value


def _web_address(value: str) -> str:
    """A web address with a host and a valid port."""
    try:
        parts = urlsplit(value)
        sound = bool(parts.hostname) and parts.port != 0
        if ":" in (parts.hostname or ""):
            ipaddress.IPv6Address(parts.hostname or "")
        elif not re.fullmatch(HOST, parts.hostname or ""):
            sound = False
    except ValueError:
        sound = False
    if not sound:
        raise ValueError(f"{show(value)} has no usable host or port; write one such as https://example.org:8443/path")
    return value


def seconds_of(duration: str) -> int:
    """A duration of the settings, such as 15s, in seconds."""
    return int(duration[:-1]) * SECONDS[duration[-1]]


def sized(least: str, most: str, reason: str) -> AfterValidator:
    """A size within limits; `reason`: why there is a lower one, as a sentence without its full stop."""

    def check(value: str) -> str:
        if size_bytes(value) < size_bytes(least):
            raise ValueError(f"is {value}, and {reason}; write {least} or more")
        if size_bytes(value) > size_bytes(most):
            raise ValueError(f"is {value}, which no machine has; write {most} or less")
        return value

    return AfterValidator(check)


def lasting(least: str, most: str, reason: str = "nobody waits for so long") -> AfterValidator:
    """A duration within limits; `reason`: why there is an upper one, as a sentence without its full stop."""

    def check(value: str) -> str:
        if seconds_of(value) < seconds_of(least):
            raise ValueError(f"is {value}, which is too short; write {least} or more")
        if seconds_of(value) > seconds_of(most):
            raise ValueError(f"is {value}, and {reason}; write {most} or less")
        return value

    return AfterValidator(check)


SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
HOST = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
"""A host name, or an IPv4 address."""

Text = Annotated[str, AfterValidator(one_line)]
"""Text of any kind, in one line."""
Size = Annotated[
    str,
    # Below 2 to the power of 63 bytes, as the kernel counts them.
    Shape(
        r"[1-9]([0-9]{0,14}K|[0-9]{0,11}M|[0-9]{0,8}G|[0-9]{0,5}T)",
        "a size",
        "a whole number below 1000000T with K, M, G or T, such as 64G",
    ),
]
Duration = Annotated[
    str,
    Shape(r"[1-9][0-9]{0,7}[smhdw]", "a duration", "a whole number below 100000000 with s, m, h, d or w, such as 15s"),
]
Mode = Annotated[
    str,
    Shape(r"[0-7]{3,4}", "a file mode", 'three or four octal digits in quotes, such as "0755"'),
    AfterValidator(lambda mode: mode.zfill(4)),
]
AbsolutePath = Annotated[
    str,
    Shape(
        r"(?!.*/\.{1,2}(/|$))(?=.{1,1000}$)(/[A-Za-z0-9._@+-]{1,200})+",
        "an absolute path",
        "one such as /mnt/models, with neither spaces nor '..' nor a slash at the end",
    ),
]
Sha256 = Annotated[str, Shape(r"[0-9a-f]{64}", "a SHA-256", "its 64 lower-case hexadecimal digits")]
Url = Annotated[
    str,
    Shape(
        r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~%+@:=-]+)*",
        "a web address",
        "one such as https://example.org/path, without a slash at the end",
    ),
    AfterValidator(_web_address),
]
UserName = Annotated[
    str, Shape(r"[a-z_][a-z0-9_-]{0,31}", "a user or group name", "lower-case letters, digits, - and _ only")
]
Name = Annotated[
    str,
    Shape(
        r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?",
        "a usable name",
        "lower-case letters, digits and - only, 40 at most",
    ),
]
CatalogueName = Annotated[
    str,
    Shape(r"[a-z0-9][a-z0-9.-]{0,62}[a-z0-9]", "a usable name", "lower-case letters, digits, . and - only"),
]
Network = Annotated[Text, AfterValidator(_network)]
LoopbackAddress = Annotated[Text, AfterValidator(_loopback)]
Port = Annotated[int, Field(ge=1, le=65535)]
LocalPort = Annotated[int, Field(ge=1024, le=65535)]
"""A port that needs no privilege."""
