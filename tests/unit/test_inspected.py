"""A container that is not what compose would make is seen, whatever its labels say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import pytest

from rig.engines import compose
from rig.engines.inspected import differences
from tests.unit.sample import settings

MADE = settings({})
SERVICE = compose.service(MADE, "one", compose.engines(MADE)["one"])


def _made(service: Mapping[str, Any]) -> dict[str, Any]:
    """The description by Docker 26 and compose 2.26 of a container that they made from such a service."""
    size = int(service["mem_limit"].rstrip("g")) * 2**30
    address, port, inside = service["ports"][0].split(":")
    return {
        "HostConfig": {
            "Binds": None,
            "Mounts": [
                {"Type": "bind", "Source": mount["source"], "Target": mount["target"], "ReadOnly": True}
                for mount in service["volumes"]
            ],
            "NetworkMode": "rig_rig",
            "PortBindings": {f"{inside}/tcp": [{"HostIp": address, "HostPort": port}]},
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 0},
            "CapAdd": None,
            "CapDrop": ["ALL"],
            "PidMode": "",
            "UsernsMode": "",
            "UTSMode": "",
            "Privileged": False,
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges=true"],
            "Memory": size,
            "MemorySwap": size,
            "NanoCpus": 0,
            "CpuQuota": service["cpu_quota"],
            "CpusetCpus": "",
            "PidsLimit": service["pids_limit"],
            "Devices": None,
        },
        "Networks": {"rig_rig": {}},
        "User": service["user"],
        "Cmd": list(map(str, service["command"])),
        "Image": service["image"],
    }


def test_a_container_that_compose_made_is_as_wanted() -> None:
    assert differences(SERVICE, _made(SERVICE)) == []
    assert differences(SERVICE, {}) == []


def test_a_limit_that_the_kernel_does_not_have_is_no_difference() -> None:
    found = _made(SERVICE)
    found["HostConfig"].update(Memory=0, MemorySwap=-1, CpuQuota=0, PidsLimit=None)
    assert differences(SERVICE, found | {"Unlimited": ["memory", "swap", "cpus", "processes"]}) == []
    assert differences(SERVICE, found | {"Unlimited": ["cpus", "processes"]}) == ["memory", "swap"]


DRIFTS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "privileged": ("privileges", lambda found: found["HostConfig"].update(Privileged=True)),
    "a capability": ("capabilities", lambda found: found["HostConfig"].update(CapAdd=["CAP_SYS_ADMIN"])),
    "no capability dropped": ("capabilities", lambda found: found["HostConfig"].update(CapDrop=None)),
    "no seccomp": (
        "security options",
        lambda found: found["HostConfig"]["SecurityOpt"].append("seccomp=unconfined"),
    ),
    "writable": ("write access to its image", lambda found: found["HostConfig"].update(ReadonlyRootfs=False)),
    "a further network": ("networks", lambda found: found["Networks"].update(bridge={})),
    "the host's processes": ("namespaces", lambda found: found["HostConfig"].update(PidMode="host")),
    "a further bind": ("mounts", lambda found: found["HostConfig"].update(Binds=["/:/host"])),
    "a writable model": ("mounts", lambda found: found["HostConfig"]["Mounts"][0].update(ReadOnly=False)),
    "a device": ("devices", lambda found: found["HostConfig"].update(Devices=[{"PathOnHost": "/dev/sda"}])),
    "every address": (
        "ports",
        lambda found: [entry.update(HostIp="") for (entry,) in found["HostConfig"]["PortBindings"].values()],
    ),
    "docker update --memory": ("memory", lambda found: found["HostConfig"].update(Memory=2**20)),
    "docker update --memory-swap": ("swap", lambda found: found["HostConfig"].update(MemorySwap=-1)),
    "docker update --cpu-quota": ("cpus", lambda found: found["HostConfig"].update(CpuQuota=1000)),
    "docker update --cpus": ("cpus", lambda found: found["HostConfig"].update(NanoCpus=10**9)),
    "docker update --cpuset-cpus": ("cpus", lambda found: found["HostConfig"].update(CpusetCpus="0")),
    "docker update --pids-limit": ("processes", lambda found: found["HostConfig"].update(PidsLimit=7)),
    "docker update --restart": ("restarts", lambda found: found["HostConfig"]["RestartPolicy"].update(Name="no")),
    "root": ("user", lambda found: found.update(User="0:0")),
    "an argument": ("command", lambda found: found["Cmd"].append("--slots")),
    "another image": ("image", lambda found: found.update(Image="llama.cpp:latest")),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_what_was_changed_about_a_container_is_named(drift: str) -> None:
    name, change = DRIFTS[drift]
    found = deepcopy(_made(SERVICE))
    change(found)
    assert differences(SERVICE, found) == [name]
