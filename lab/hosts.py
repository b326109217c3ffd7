"""The files that make the lab a host like any other: keys, SSH configuration, its entry as a machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.spec import SSH_PORT, Network

# A socket address ends at 108 bytes, and ssh appends 17 of its own while it creates one.
_LONGEST = 108 - 17 - len("/mux") - 1


@dataclass(frozen=True)
class Remembered:
    """The options of a lab's last run."""

    release: str
    index: int
    gpu: bool = False
    vm: bool = False

    def may_become(self, release: str, gpu: bool, vm: bool) -> bool:
        """True if its disk can start with these options: the same ones, or a whole machine, with a kernel, from a
        container."""
        same = (self.gpu, self.vm) == (gpu, vm)
        return self.release == release and (same or (vm and not self.vm and not self.gpu))

    def __str__(self) -> str:
        kind = "whole machine" if self.vm else "machine"
        return f"a {kind} with Debian {self.release} {'and' if self.gpu else 'without'} the graphics card"


def remembered(directory: Path) -> Remembered | None:
    try:
        return Remembered(**json.loads((directory / "state.json").read_text()))
    except OSError:
        return None


def keys(directory: Path) -> None:
    """Make the user's key and the machine's own before the first boot, so that the first login is already verified."""
    for name in ("id_ed25519", "ssh_host_ed25519_key"):
        if not (directory / name).exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rig-lab", "-f", str(directory / name)],
                check=True,
                stdin=subprocess.DEVNULL,
            )


def forget(directory: Path) -> None:
    """Remove a stopped lab from the hosts."""
    (directory / "hosts.yml").unlink(missing_ok=True)


def write(directory: Path, state: Remembered, settings: dict[str, Any]) -> None:
    """Write all files that name the running machine; hosts.yml last, because readers wait for it."""
    network = Network(state.index)
    _place(directory / "state.json", json.dumps(asdict(state)) + "\n")
    host_key = " ".join((directory / "ssh_host_ed25519_key.pub").read_text().split()[:2])
    _place(directory / "known_hosts", f"{network.machine} {host_key}\n")
    _place(directory / "ssh_config", _ssh_config(directory, network))
    host = {
        "address": network.machine,
        "port": SSH_PORT,
        "user": "rig",
        "identity_file": str(directory / "id_ed25519"),
        "known_hosts_file": str(directory / "known_hosts"),
        "groups": ["lab", *(["lab-gpu"] if state.gpu else []), *(["lab-vm"] if state.vm else [])],
        "settings": settings,
    }
    text = yaml.safe_dump({"hosts": {"rig-lab": host}}, sort_keys=False)
    _place(
        directory / "hosts.yml",
        "# Written by the lab at every start: its machine, and what its stand-ins serve.\n" + text,
    )


def _ssh_config(directory: Path, network: Network) -> str:
    return f"""# Written by the lab at every start.
Host rig-lab
    HostName {network.machine}
    Port {SSH_PORT}
    User rig
    IdentityFile "{directory}/id_ed25519"
    IdentitiesOnly yes
    UserKnownHostsFile "{directory}/known_hosts"
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    ControlMaster auto
    ControlPath "{_control_directory(directory)}/mux"
    ControlPersist 60
    ServerAliveInterval 10
"""


def _control_directory(directory: Path) -> Path:
    if len(str(directory)) <= _LONGEST:
        return directory
    name = hashlib.sha256(str(directory).encode()).hexdigest()[:12]
    short = Path(tempfile.gettempdir()) / f"rig-lab-{os.getuid()}-{name}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid != os.getuid():
        raise PermissionError(f"{short} belongs to somebody else; remove it, or use a directory with a shorter path")
    return short


def _place(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(text)
    beside.rename(path)
