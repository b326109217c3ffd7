"""Conditions on a machine before the first change: a plain function of settings and facts."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

from rig import containers
from rig.engines import compose, native
from rig.gpu.cards import CannotDrive
from rig.gpu.driver import handled, outdated, selection
from rig.monitoring import alertmanager, grafana, prometheus
from rig.preflight import lacking, overrides, used
from rig.preflight.machine import Listener, Login, Machine, Mounted, key_bodies
from rig.settings import Settings, size_bytes
from rig.settings.firewall import Ssh
from rig.settings.machine import User
from rig.systemd import mounts
from rigd.gateway.config import UNIT as GATEWAY

SUPPORTED: dict[tuple[str, str], str] = {
    ("debian", "12"): "Debian 12",
    ("debian", "13"): "Debian 13",
    ("ubuntu", "24.04"): "Ubuntu 24.04",
}
"""(ID, VERSION_ID) of /etc/os-release, and the name for people."""


ZONES = PurePosixPath("/usr/share/zoneinfo")
"""A machine's folder with a file for each known time zone."""
PACKAGES = size_bytes("2G")
"""The packages' part of storage.system_free: the rest is for images."""
FLOOR = size_bytes("1G")
"""Minimum free on / after the installation: the journal, updates and the deploy's files keep growing."""
PROGRAMS = size_bytes("1G")
BOOT = size_bytes("200M")
"""A new initramfs is written beside the old one; with drivers it has up to 100 MB."""
SYSTEM = ("/var", "/opt", "/boot")
"""System folders that are often separate file systems, and that a deploy writes into."""


NOBODY: Mapping[str, User] = MappingProxyType({})


def human(size: int) -> str:
    """Bytes for people, in powers of 1024."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def login_problems(
    login: Login,
    *,
    sudo_password: bool,
    ssh: Ssh | None,
    users: Mapping[str, User] = NOBODY,
    keys_only: bool | None = None,
) -> list[str]:
    """Why this login cannot carry a deploy.

    ``sudo_password``: pyinfra has one, or can prompt for it. ``ssh``: the firewall's SSH settings, None if the firewall
    is left alone. ``users``: the people in the settings. ``keys_only``: the setting of machine.ssh.
    """
    found: list[str] = []
    if not login.user:
        return [f"the login runs no commands, and answers '{login.chatter}'; give it a shell such as /bin/bash"]
    if login.chatter:
        found.append(
            f"the login shell of '{login.user}' prints '{login.chatter}' with every command, which would be taken for "
            "answers; have its files (such as ~/.bashrc) print only where somebody looks: [ -t 1 ] && ..."
        )
    person = users.get(login.user)
    listed = None if person is None or person.authorized_keys is None else key_bodies("\n".join(person.authorized_keys))
    if login.source is not None and login.keys and listed is not None and login.keys.isdisjoint(listed):
        key = f"machine.users.{login.user}.authorized_keys"
        found.append(
            f"{key} has none of the keys that log in as '{login.user}' now, so you would be locked out; add yours to "
            "it, or leave it out to keep those that are there"
        )
    if login.source is not None and keys_only and not login.keys:
        found.append(
            f"machine.ssh.keys_only is true, and no key logs in as '{login.user}', so you would be locked out; "
            "let yours in (ssh-copy-id), or write 'keys_only: null'"
        )
    if login.uid != 0 and not login.sudo and not sudo_password:
        found.append(
            f"the login '{login.user}' is not root and may not use sudo without a password; "
            f"add '{login.user} ALL=(ALL) NOPASSWD:ALL' to /etc/sudoers.d/rig with visudo, "
            "or run pyinfra with --same-sudo-password"
        )
    if login.source is not None and ssh is not None:
        source = ipaddress.ip_address(login.source.split("%", 1)[0])
        if isinstance(source, ipaddress.IPv6Address) and source.ipv4_mapped is not None:
            source = source.ipv4_mapped
        allowed = [ipaddress.ip_network(network) for network in ssh.networks]
        if not any(source in network for network in allowed if network.version == source.version):
            found.append(
                f"you are connected from {source}, which firewall.ssh.networks does not hold, so the firewall "
                f"would lock you out; add '{source}' to firewall.ssh.networks"
            )
    if login.port is not None and ssh is not None and login.port != ssh.port:
        found.append(
            f"you are connected to the machine's port {login.port}, and the firewall would open {ssh.port} only and "
            f"lock you out; write 'port: {login.port}' in firewall.ssh"
        )
    return found


def problems(settings: Settings, machine: Machine) -> list[str]:
    """Every reason not to start, each a sentence with its remedy; empty when the deploy may go on."""
    return [
        *_switch(machine),
        *_system(settings, machine),
        *_storage(settings, machine),
        *_space(settings, machine),
        *_ports(settings, machine),
        *_cards(settings, machine),
        *_held(settings, machine),
        *_owners_files(machine),
        *_secrets(settings, machine),
        *used.problems(settings, machine),
        *overrides.problems(settings, machine.overrides),
        *lacking.problems(settings, machine),
    ]


def _switch(machine: Machine) -> list[str]:
    """A running rig-mode has not chosen yet: a run would stop the engine on trial."""
    if machine.switch is None:
        return []
    return [f"rig-mode (PID {machine.switch}) is switching between alternatives; run again when it is done"]


def _system(settings: Settings, machine: Machine) -> list[str]:
    found: list[str] = []
    system = (machine.os_id, machine.os_version)
    if system not in SUPPORTED:
        supported = ", ".join(SUPPORTED.values())
        found.append(f"{machine.os_id} {machine.os_version} is not supported; install one of: {supported}")
    if machine.architecture != "amd64":
        found.append(f"the architecture {machine.architecture} is not supported; Rig is for amd64 (x86-64) machines")
    if settings.containers.source == "distribution" and system == ("debian", "12"):
        found.append(
            "Debian 12 has docker-compose 1.29 only, which cannot read our compose file; "
            "write 'containers.source: vendor'"
        )
    zone = settings.machine.timezone
    if not machine.sizes.get(str(ZONES / zone)):
        found.append(
            f"the machine knows no time zone {zone} (machine.timezone); write its present name, "
            "or install tzdata, and tzdata-legacy for old names"
        )
    return found


def _storage(settings: Settings, machine: Machine) -> list[str]:
    found: list[str] = []
    for name, place in (("models", settings.storage.models), ("backup", settings.storage.backup)):
        missing = str(place.path) not in machine.mounts and str(place.path) not in machine.automounts
        if place.must_be_mount and place.mount is None and missing:
            found.append(
                f"{place.path} is not a mount, and storage.{name}.must_be_mount asks for one; mount the disk, "
                f"or give storage.{name}.mount its UUID or label, or write 'must_be_mount: false'"
            )
        there = machine.mounts.get(str(place.path))
        if place.mount is not None and there is not None and not _is(there, place.mount.source, machine):
            stop = f"'rig-*@*' {mounts.unit_name(place.path)}" if name == "models" else mounts.unit_name(place.path)
            found.append(
                f"{place.path} has {there.device} mounted, and storage.{name}.mount.source asks for "
                f"{place.mount.source}; stop what uses it and unmount it (sudo systemctl stop {stop}), "
                "copy what you want to keep, and deploy again"
            )
    return found


def _is(there: Mounted, source: str, machine: Machine) -> bool:
    """Whether it is the settings' disk. A file system on several devices has all their names."""
    kind, _, value = source.partition("=")
    return value == (there.uuid if kind == "UUID" else there.label) or there.device == machine.disks.get(
        mounts.device(source)
    )


def _space(settings: Settings, machine: Machine) -> list[str]:
    """Free space against missing bytes, per file system, as several paths may share one."""
    needed: dict[str, int] = {}
    asks: dict[str, list[str]] = {}
    places: dict[str, list[str]] = {}

    def ask(path: str, size: int, what: str) -> None:
        if size > 0:
            device = machine.device[path]
            needed[device] = needed.get(device, 0) + size
            places.setdefault(device, []).append(path)
            asks.setdefault(device, []).append(f"{human(size)} for {what}")

    for path, size, what in _system_space(settings, machine):
        ask(path, size, what)
    for path, size, what in _floors(settings, machine):
        ask(path, size - needed.get(machine.device[path], 0), what)
    # A file system that is not mounted yet cannot be measured: its files do not count against another.
    models = settings.storage.models
    if models.mount is None or str(models.path) in machine.mounts:
        for name in settings.needed_models:
            files = settings.model_files(name)
            there = {
                path: max(machine.sizes.get(str(place), 0) for place in _places(settings, name, path)) for path in files
            }
            missing = sum(max(0, file.size - there[path]) for path, file in files.items())
            ask(str(models.path), missing, f"the model {name}")

    found: list[str] = []
    free_of = {machine.device[path]: free for path, free in machine.free.items()}
    for device, size in needed.items():
        if size > free_of[device]:
            paths = sorted(set(places[device]))
            larger = ", or put storage.models on a larger disk" if str(models.path) in paths else ""
            found.append(
                f"the file system of {', '.join(paths)} has {human(free_of[device])} free and {human(size)} are needed "
                f"({', '.join(asks[device])}); free the space{larger}"
            )
    return found


def _system_space(settings: Settings, machine: Machine) -> list[tuple[str, int, str]]:
    """Space for the rest of the installation: path, bytes, description. Earlier deploys' part does not count."""
    whole = size_bytes(settings.storage.system_free)
    packages = min(whole, PACKAGES)
    root = _data_root(settings) or machine.data_root
    images = (root if root in machine.device else "/", whole - packages, "images (storage.system_free, less packages)")
    if machine.docker:
        return [images] if machine.missing_images else []
    return [("/", packages, "packages (of storage.system_free)"), images]


def _floors(settings: Settings, machine: Machine) -> list[tuple[str, int, str]]:
    """Minimum free space on the file system of each path, the largest first, as several may share one."""
    found = [("/", FLOOR, "what grows by itself"), ("/var", FLOOR, "lists, packages and the journal")]
    if native.engines(settings):
        found.append(("/opt", PROGRAMS, "rigd and the archives of engines"))
    if handled(settings, machine.cards):
        found.append(("/boot", BOOT, "the kernel's first file system, which gets the driver's module"))
    return [entry for entry in found if entry[0] in machine.device]


def _ports(settings: Settings, machine: Machine) -> list[str]:
    found: list[str] = []
    ours = frozenset[int]().union(*machine.published.values())
    for name, engine in settings.enabled_engines.items():
        for listener in machine.listeners:
            if listener.port != engine.port:
                continue
            # Another engine of ours, too: if its runtime or port changes, it releases the old one in this run.
            # Without its proxy (userland-proxy: false), Docker holds a published port itself.
            holder = listener.process in ("docker-proxy", "dockerd")
            if listener.unit.startswith("rig-native@") or (holder and engine.port in ours):
                continue
            found.append(
                f"port {engine.port} of engine {name} is held by {_who(listener)}; "
                f"stop it, or give engines.{name}.port another number"
            )
    gateway = settings.gateway.listeners if settings.gateway_wanted else {}
    for key, port in (settings.monitoring.listeners | gateway).items():
        found += [
            f"port {port} of {key} is held by {_who(listener)}; stop it, or give {key}.port another number"
            for listener in machine.listeners
            if listener.port == port and not _is_own(key, listener)
        ]
    return list(dict.fromkeys(found))


def _is_own(key: str, listener: Listener) -> bool:
    """Whether the listener is the program of this key of the settings."""
    if key.startswith("gateway"):
        return listener.unit == GATEWAY
    if key == "monitoring.grafana":
        return listener.container == grafana.CONTAINER
    return listener.unit == prometheus.UNIT_OF[key]


def _cards(settings: Settings, machine: Machine) -> list[str]:
    """Cards that the settings cannot drive, and engines without the card that they need."""
    if not settings.gpu.enabled:
        return []
    if not machine.cards:
        return [
            f"engine {name} computes on a graphics card, and no NVIDIA card is on the PCI bus; seat it, or write "
            f"'engines.{name}.enabled: false'"
            for name, engine in settings.enabled_engines.items()
            if engine.on_card
        ]
    try:
        selection(settings, machine.cards, (machine.os_id, machine.os_version), machine.kernel)
    except CannotDrive as error:
        return [str(error)]
    return []


def _held(settings: Settings, machine: Machine) -> list[str]:
    """Packages on hold, which apt will not touch, and whose state differs from the settings."""
    found = [
        f"{name} is on hold, and containers.source: {settings.containers.source} replaces it; let it go "
        f"(sudo apt-mark unhold {name}), or write another containers.source"
        for name in containers.replaced(settings.containers, machine.held)
    ]
    others = containers.outdated(settings.containers, machine.held)
    if handled(settings, machine.cards):
        others += outdated(settings, machine.held)
    found += [
        f"{name} is on hold at {machine.held[name]}, and {key} asks for {wanted}; let it go "
        f"(sudo apt-mark unhold {name}), or write the version that is there"
        for name, key, wanted in others
    ]
    return found


def _who(listener: Listener) -> str:
    where = listener.unit or (listener.container and f"container {listener.container}")
    return f"{listener.process or 'another program'}{f' ({where})' if where else ''} on {listener.address}"


def _owners_files(machine: Machine) -> list[str]:
    """Owner's files that a deploy only adds to: an unreadable one is not replaced."""
    found: list[str] = []
    try:
        if machine.daemon.strip() and not isinstance(json.loads(machine.daemon), dict):
            found.append("/etc/docker/daemon.json is not a JSON object; correct it, or move it away")
    except ValueError as error:
        found.append(f"/etc/docker/daemon.json is not JSON ({error}); correct it, or move it away")
    if machine.malformed_keys:
        found.append(
            f"{', '.join(machine.malformed_keys)} in /etc/rig/keys.env is not one line of at least 43 letters, digits, "
            "'-' or '_'; delete the line to have a new key made, or put the right one there"
        )
    return found


def _secrets(settings: Settings, machine: Machine) -> list[str]:
    return [
        f"the receiver {name} has secret: true, and {path} is not there; write its password or token into it: "
        f"sudo install -D -m 0600 /dev/stdin {path}"
        for name, path in alertmanager.secrets(settings).items()
        if not machine.sizes.get(path)
    ]


def asked_paths(settings: Settings) -> tuple[str, ...]:
    """Directories whose file system preflight measures."""
    root = _data_root(settings)
    folders = (str(settings.storage.models.path), str(settings.storage.backup.path))
    return ("/", *SYSTEM, *folders, *([] if root is None else [root]))


def _data_root(settings: Settings) -> str | None:
    """The settings' folder for Docker's images."""
    root = settings.containers.daemon.get("data-root")
    return root if isinstance(root, str) and root.startswith("/") else None


def asked_disks(settings: Settings) -> tuple[str, ...]:
    """Device nodes of the disks in the settings."""
    folders = (settings.storage.models, settings.storage.backup)
    return tuple(mounts.device(folder.mount.source) for folder in folders if folder.mount is not None)


def asked_images(settings: Settings) -> tuple[str, ...]:
    """Container images that preflight looks for."""
    found = {engine.image for engine in compose.engines(settings).values()}
    return tuple(sorted(image for image in found if image is not None))


def asked_files(settings: Settings) -> tuple[PurePosixPath, ...]:
    """Files whose present size preflight reads: models, the time zone, the owner's secrets."""
    models = (
        place
        for name in settings.needed_models
        for path in settings.model_files(name)
        for place in _places(settings, name, path)
    )
    secrets = map(PurePosixPath, alertmanager.secrets(settings).values())
    return (*models, ZONES / settings.machine.timezone, *secrets, *lacking.files(settings))


def _places(settings: Settings, model: str, path: PurePosixPath) -> tuple[PurePosixPath, ...]:
    """Possible paths of a model file: its place, its unfinished download, or the model's folder without a version."""
    folder = settings.model_folder(model)
    return path, path.with_name(f"{path.name}.part"), folder.parent / path.relative_to(folder)
