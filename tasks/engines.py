"""Concern engines: the model servers, in containers and as sandboxed services."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern

from rig.engines import compose, modes, native, vllm
from rig.engines.served import Served
from rig.facts.secrets import NATIVE
from rig.models.fetch import markers
from rig.operations import downloads, engines
from rig.operations.files import written
from rig.render import own_file, render
from rig.settings import Settings
from rig.settings.engines import CommonEngine, Containerised, NativeEngine
from rig.settings.secrets import key_variable
from rigd.modes import config

COMPOSE = compose.PATH
UNITS = "/etc/systemd/system"
CONTAINER_UNIT = f"{UNITS}/rig-container@.service"
NATIVE_UNIT = f"{UNITS}/rig-native@.service"


@concern("engines")
def deploy(settings: Settings) -> None:
    """Every enabled engine runs with its settings and answers; every other one is gone."""
    containers, services = compose.engines(settings), native.engines(settings)
    wanted = [f"rig-container@{name}.service" for name in containers]
    wanted += [f"rig-native@{name}.service" for name in services]
    for name, container in containers.items():
        # Before any file names it: a failed pull leaves the engine as it is, after a boot too.
        engines.image(name=f"Pull the image of {name}", reference=str(container.image))
    for name, native_engine in services.items():
        _archive(name, native_engine)
    # After every download, so that an unreachable registry costs no engine; before every start, so that an engine's
    # port and memory are free for its successor.
    engines.retired(name="Retire engines that are no longer enabled", wanted=wanted)

    if containers:
        written(name=f"Write {CONTAINER_UNIT}", path=CONTAINER_UNIT, text=own_file(CONTAINER_UNIT))
    records = {name: _container(settings, name, container) for name, container in containers.items()}

    if services:
        written(name=f"Write {NATIVE_UNIT}", path=NATIVE_UNIT, text=own_file(NATIVE_UNIT))
    records |= {name: _service(settings, name, service) for name, service in services.items()}
    # Last: it describes the files above.
    written(name=f"Write {config.PATH}", path=config.PATH, text=config.dump(modes.modes(settings, records)))


def _container(settings: Settings, name: str, engine: Containerised) -> Served:
    dest = f"{UNITS}/rig-container@{name}.service.d/models.conf"
    text = render(
        f"{UNITS}/rig-container@ENGINE.service.d/models.conf",
        models=settings.storage.models.path,
        markers=markers(engine.model_names),
        exclusion=modes.exclusion(settings, name),
        card=compose.CARD if engine.on_card else None,
        cache=compose.cache(name, engine),
        user=vllm.USER,
    )
    written(name=f"Write {dest}", path=dest, text=text)
    # One after the other, each just before its trial: wherever a run ends, a boot starts no other untried engine.
    engines.defined(
        name=f"Define {name} in {COMPOSE}",
        engine=name,
        wanted=compose.document(settings),
        alternatives=tuple(other for other in compose.engines(settings) if settings.rivals(other)),
    )
    service = compose.service(settings, name, engine)
    asked = _asked(engine) | {"on_card": engine.on_card}
    record = Served(compose.fingerprint(settings, name, engine), asked, service, {dest: text})
    engines.serving(name=f"Run {name} in a container", wanted=_wanted(settings, name, record))
    return record


def _archive(name: str, engine: NativeEngine) -> None:
    assert engine.archive is not None
    downloads.archive(
        name=f"Install llama.cpp for {name}",
        url=engine.archive.url,
        sha256=engine.archive.sha256,
        directory=str(native.directory(engine)),
        program=engine.archive.binary,
    )


def _service(settings: Settings, name: str, engine: NativeEngine) -> Served:
    text, fingerprint = _drop_in(settings, name, engine)
    dest = native.drop_in(name)
    written(name=f"Write {dest}", path=dest, text=text)
    # As the engine's own unit: all engines share the template, and later ones in this run start from the new one.
    own = f"{UNITS}/{settings.unit(name)}"
    record = Served(fingerprint, _asked(engine), None, {dest: text, own: own_file(NATIVE_UNIT)})
    engines.serving(name=f"Run {name} as a service", wanted=_wanted(settings, name, record))
    return record


def _asked(engine: CommonEngine) -> dict[str, str | int | bool]:
    return {"address": engine.address, "port": engine.port, "model": engine.model}


def _wanted(settings: Settings, name: str, record: Served) -> engines.Wanted:
    engine = settings.engines[name]
    return engines.Wanted(
        engine=name,
        unit=settings.unit(name),
        variable=key_variable(name),
        timeout=engine.health_timeout,
        record=record,
        rivals=tuple(map(settings.unit, settings.rivals(name))),
    )


def _drop_in(settings: Settings, name: str, engine: NativeEngine) -> tuple[str, str]:
    """The drop-in, and the fingerprint in it: a hash of the drop-in without it and of the template unit."""
    values = {
        "engine": name,
        "models": settings.storage.models.path,
        "in_home": native.hidden(settings.storage.models.path),
        "markers": markers(engine.model_names),
        "exclusion": modes.exclusion(settings, name),
        "backup": settings.storage.backup.path,
        "timezone": settings.machine.timezone,
        "key": f"{NATIVE}/{name}",
        "exec_start": native.exec_start(native.command_line(settings, engine)),
        "memory": engine.memory,
        "cpu_percent": round(engine.cpus * 100),
    }
    template = f"{UNITS}/rig-native@ENGINE.service.d/engine.conf"
    fingerprint = native.fingerprint(
        render(template, fingerprint="", **values),
        own_file(NATIVE_UNIT),
    )
    return render(template, fingerprint=fingerprint, **values), fingerprint
