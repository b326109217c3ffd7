"""Keys of Docker's daemon.json: their types, and those that would open the machine or undo Rig's settings."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from rig.settings.problems import show
from rig.settings.types import one_line
from rig.settings.words import nearest_word

KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(
        (
            *("allow-direct-routing", "debug", "experimental", "icc", "init", "ip-forward", "ip-forward-no-drop"),
            *("ip-masq", "ip6tables", "iptables", "ipv6", "live-restore", "no-new-privileges", "raw-logs", "rootless"),
            *("selinux-enabled", "tls", "tlsverify", "userland-proxy", "validate"),
        ),
        (bool,),
    ),
    **dict.fromkeys(
        (
            *("cpu-rt-period", "cpu-rt-runtime", "max-concurrent-downloads", "max-concurrent-uploads"),
            *("max-download-attempts", "mtu", "network-control-plane-mtu", "network-diagnostic-port"),
            *("oom-score-adjust", "shutdown-timeout"),
        ),
        (int,),
    ),
    **dict.fromkeys(
        (
            *("api-cors-header", "bip", "bip6", "bridge", "bridge-accept-fwmark", "cgroup-parent", "containerd"),
            *("containerd-namespace", "containerd-plugins-namespace", "data-root", "default-cgroupns-mode"),
            *("default-gateway", "default-gateway-v6", "default-ipc-mode", "default-runtime", "exec-root"),
            *("firewall-backend", "fixed-cidr", "fixed-cidr-v6", "group", "host-gateway-ip", "init-path", "ip"),
            *("log-driver", "log-format", "log-level", "metrics-addr", "pidfile", "seccomp-profile", "storage-driver"),
            *("swarm-default-advertise-addr", "tlscacert", "tlscert", "tlskey", "userland-proxy-path", "userns-remap"),
            *("http-proxy", "https-proxy", "no-proxy", "resolv-conf"),
        ),
        (str,),
    ),
    **dict.fromkeys(
        (
            *("allow-nondistributable-artifacts", "authorization-plugins", "cdi-spec-dirs", "default-address-pools"),
            *("dns", "dns-opts", "dns-search", "exec-opts", "host-gateway-ips", "hosts", "insecure-registries"),
            *("labels", "node-generic-resources", "registry-mirrors", "storage-opts"),
        ),
        (list,),
    ),
    **dict.fromkeys(
        ("builder", "default-network-opts", "default-ulimits", "features", "log-opts", "proxies", "runtimes"), (dict,)
    ),
    "default-shm-size": (str, int),
}
"""Docker's known keys (its daemon/config, and dockerd's reference), and the JSON types of their values."""

WORDS: dict[type, str] = {
    bool: "true or false, without quotes",
    int: "a whole number, without quotes",
    str: "text, in quotes",
    list: "a list, such as [a, b]",
    dict: "a mapping, such as {key: value}",
}

OPENS = "opens Docker, and so the whole machine, to whoever reaches that port"
RULES = "keeps Docker from writing the packet filter's rules, without which containers have no network"
CARD = "keeps containers from the graphics card"
PLACES = "is where Rig and Docker's own unit look for it"


def _false(reason: str) -> Callable[[Any], str | None]:
    return lambda value: reason if value is False else None


def _always(reason: str) -> Callable[[Any], str | None]:
    return lambda value: reason


def _not_on_loopback(value: Any) -> str | None:
    """Refuse metrics that are readable from outside this machine."""
    host = str(value).rpartition(":")[0].strip("[]")
    try:
        inside = ipaddress.ip_address(host).is_loopback
    except ValueError:
        inside = host == "localhost"
    return None if inside else "shows Docker's figures to the network; begin it with 127.0.0.1:"


def _features(value: Any) -> str | None:
    return CARD if isinstance(value, dict) and value.get("cdi") is False else None


def _specifications(value: Any) -> str | None:
    return None if {"/var/run/cdi", "/run/cdi"} & set(map(str, value)) else CARD


REFUSED: Mapping[str, Callable[[Any], str | None]] = {
    "hosts": _always(f"{OPENS}, and Docker's unit already names its socket"),
    **dict.fromkeys(("tls", "tlsverify", "tlscacert", "tlscert", "tlskey"), _always("is of use with hosts only")),
    "api-cors-header": _always("lets web pages command Docker"),
    "allow-direct-routing": lambda value: "opens containers to whoever routes to them" if value is True else None,
    "iptables": _false(RULES),
    "ip6tables": _false(RULES),
    "ip-forward": _false("keeps containers from every network"),
    "ip-masq": _false("keeps containers from every network"),
    "bridge": lambda value: "takes containers their network" if value == "none" else None,
    "features": _features,
    "cdi-spec-dirs": _specifications,
    "metrics-addr": _not_on_loopback,
    "seccomp-profile": lambda value: "lets containers call all of the kernel" if value == "unconfined" else None,
    "default-cgroupns-mode": lambda value: "shows containers the limits of all others" if value == "host" else None,
    "default-ipc-mode": lambda value: "lets containers read each other's memory" if value == "host" else None,
    "authorization-plugins": _always("gives another program the last word on every container"),
    **dict.fromkeys(("containerd", "exec-root", "pidfile", "containerd-namespace"), _always(PLACES)),
    "rootless": lambda value: "is for a Docker that is not root's" if value is True else None,
    "validate": _always("is an option of the command line, with which Docker exits at once"),
}
"""Keys, each with a check of its value: why it is refused, as the end of a sentence; None if it is accepted."""


def problems(daemon: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    """Each problem as key and sentence. A key unlike any known one is left to Docker itself."""
    for key, value in daemon.items():
        kinds = KINDS.get(key)
        if kinds is None:
            if (meant := nearest_word(key, KINDS)) is not None:
                yield key, f"unknown key of Docker's; write '{meant}'"
        elif not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            yield key, f"must be {WORDS[kinds[0]]}, not {_shown(value)}; write that, or remove the key"
        elif (reason := REFUSED[key](value) if key in REFUSED else None) is not None:
            yield key, f"{reason}; remove it"
        elif (wrong := _inside(key, value)) is not None:
            yield key, wrong


def _inside(key: str, value: JsonValue) -> str | None:
    """What is wrong inside a value of the right type: options are text, and features true or false."""
    if isinstance(value, dict):
        wanted = bool if key == "features" else str if key == "log-opts" else None
        for name, part in value.items():
            if wanted is not None and not isinstance(part, wanted):
                return f"has {_shown(part)} at '{name}', which must be {WORDS[wanted]}; write that"
    texts = ("dns", "dns-opts", "dns-search", "exec-opts", "insecure-registries", "labels", "registry-mirrors")
    if isinstance(value, list) and key in (*texts, "storage-opts", "cdi-spec-dirs"):
        for part in value:
            if not isinstance(part, str):
                return f"has {_shown(part)} in its list, which must be {WORDS[str]}; write that"
    return None


def visible(value: JsonValue) -> JsonValue:
    """The value; raises ValueError if any text in it is not one visible line."""
    if isinstance(value, str):
        one_line(value)
    elif isinstance(value, list):
        for part in value:
            visible(part)
    elif isinstance(value, dict):
        for name, part in value.items():
            one_line(name)
            visible(part)
    return value


def _shown(value: object) -> str:
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else show(value)
