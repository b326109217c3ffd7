"""Tests of one machine, chosen by --hosts, against the settings that made it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

import pytest

from rig.operator import remote
from rig.settings import Host, Settings, SettingsError, active_inventory
from rig.settings.engines import ContainerEngine, NativeEngine, VllmEngine
from rig.settings.hosts import LOCAL
from rig.settings.loading import load_local
from tests.host.machine import Machine, TestinfraHost

ROOT = Path(__file__).resolve().parents[2]
CHOSEN = pytest.StashKey[Host]()
SSH = pytest.StashKey[Path]()

KNOWING = 100_000_000
"""Minimum of parameters for knowledge from school books; smaller models here are random numbers."""

HOW = "name one machine: --hosts=ssh://NAME, as in group_data/hosts.yml, or --hosts=local://"

# Parameters for repeated tests: the name of the argument, and the settings' names for it.
EACH: dict[str, Callable[[Settings], Iterable[object]]] = {
    "engine": lambda settings: settings.enabled_engines,
    "llama": lambda settings: _running_as(settings, ContainerEngine, NativeEngine),
    "vllm": lambda settings: _running_as(settings, VllmEngine),
    "group": lambda settings: settings.alternatives,
    "container": lambda settings: _running_as(settings, ContainerEngine, VllmEngine),
    "computing": lambda settings: [name for name, engine in settings.enabled_engines.items() if engine.on_card],
    "service": lambda settings: _running_as(settings, NativeEngine),
    "knowing": lambda settings: [name for name in settings.enabled_engines if _parameters(settings, name) >= KNOWING],
    "model": lambda settings: settings.needed_models,
    "consumer": lambda settings: settings.consumers,
    "user": lambda settings: settings.machine.users,
    "package": lambda settings: settings.machine.packages,
    "parameter": lambda settings: [key for key, value in settings.machine.sysctl.items() if value is not None],
    "folder": lambda settings: ["models", "backup"],
    "mounted_folder": lambda settings: [name for name in ("models", "backup") if _is_mount(settings, name)],
}


def _running_as(settings: Settings, *kinds: type) -> list[str]:
    return [name for name, engine in settings.enabled_engines.items() if isinstance(engine, kinds)]


def _parameters(settings: Settings, engine: str) -> int:
    """Parameters of an engine's model, as far as the catalogue knows them."""
    shape = settings.models.catalogue[settings.engines[engine].model].shape
    return 0 if shape is None else shape.parameters


def _is_mount(settings: Settings, name: str) -> bool:
    folder = settings.storage.models if name == "models" else settings.storage.backup
    return folder.must_be_mount or folder.mount is not None


def pytest_configure(config: pytest.Config) -> None:
    spec = urlsplit(config.getoption("hosts", default=None) or "")
    if (spec.scheme not in ("ssh", "local")) or (spec.scheme == "ssh" and not spec.hostname) or "," in spec.netloc:
        pytest.exit(HOW, returncode=2)
    try:
        if spec.scheme == "local":
            chosen = load_local(ROOT).machine(LOCAL)
        else:
            inventory = active_inventory(os.environ, data={})
            try:
                chosen = inventory.machine(spec.hostname or "")
            except SettingsError as error:
                remark = f"\n{inventory.remark}" if inventory.remark else ""
                pytest.exit(f"{error.report()}{remark}", returncode=2)
    except SettingsError as error:
        pytest.exit(error.report(), returncode=2)
    config.stash[CHOSEN] = chosen
    if spec.scheme == "ssh" and not config.getoption("ssh_config"):
        config.stash[SSH] = _ssh_config(chosen)
        config.option.ssh_config = str(config.stash[SSH])


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Report a machine that is off in one sentence, not as a failure of each test."""
    if session.config.option.collectonly or not session.items:
        return
    try:
        remote.run(session.config.stash[CHOSEN], "true", 60)
    except remote.CannotLook as error:
        pytest.exit(str(error), returncode=2)


def pytest_unconfigure(config: pytest.Config) -> None:
    written = config.stash.get(SSH, None)
    if written is not None:
        name = config.stash[CHOSEN].name
        subprocess.run(["ssh", "-F", str(written), "-O", "exit", name], capture_output=True, check=False)
        for path in written.parent.iterdir():
            path.unlink(missing_ok=True)
        written.parent.rmdir()


def _ssh_config(chosen: Host) -> Path:
    """The deploy's route to the machine, for ssh: one connection that all commands share."""
    folder = Path(mkdtemp(prefix="rig-"))
    identity = f"    IdentityFile {chosen.identity_file}\n" if chosen.identity_file else ""
    (folder / "config").write_text(
        f"Host {chosen.name}\n"
        f"    HostName {chosen.address}\n"
        f"    Port {chosen.port}\n"
        f"    User {chosen.user}\n"
        f"{identity}"
        f"    UserKnownHostsFile {chosen.known_hosts_file}\n"
        "    StrictHostKeyChecking yes\n"
        "    BatchMode yes\n"
        f"    ControlPath {folder}/mux\n",
        encoding="utf-8",
    )
    return folder / "config"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    settings = metafunc.config.stash[CHOSEN].settings
    for argument, names in EACH.items():
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, list(names(settings)), scope="module")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests with nothing to repeat over, such as tests of users on a machine without any."""
    empty = [item for item in items if any("got empty parameter set" in _reason(mark) for mark in item.own_markers)]
    config.hook.pytest_deselected(items=empty)
    items[:] = [item for item in items if item not in empty]


def _reason(mark: pytest.Mark) -> str:
    return str(mark.kwargs.get("reason", "")) if mark.name == "skip" else ""


@pytest.fixture(scope="module")
def machine(host: TestinfraHost) -> Machine:
    """The machine under test."""
    return Machine(host)


@pytest.fixture(autouse=True)
def _only_engines_that_run(request: pytest.FixtureRequest, machine: Machine, settings: Settings) -> None:
    """Skip a stopped engine if the owner chose an alternative: that is correct."""
    for argument in ("engine", "llama", "vllm", "container", "computing", "service", "knowing"):
        if argument in request.fixturenames:
            skip_stopped(machine, settings, request.getfixturevalue(argument))


def skip_stopped(machine: Machine, settings: Settings, engine: str) -> None:
    """Skip the test of an engine that should not run."""
    instead = machine.instead_of(settings, engine)
    if instead is not None:
        pytest.skip(f"{engine} is stopped, as {instead} was chosen on the machine")


@pytest.fixture(scope="session")
def settings(pytestconfig: pytest.Config) -> Settings:
    """The settings of the machine."""
    return pytestconfig.stash[CHOSEN].settings
