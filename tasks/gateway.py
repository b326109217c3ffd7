"""Concern gateway: HAProxy before the engines, with keys of its own for each client."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern

from rig.gateway import haproxy as wanted
from rig.operations import gateway, gateway_keys
from rig.operations.files import written_together
from rig.render import render
from rig.settings import Settings
from rig.settings.secrets import key_variable
from rigd.gateway.config import GROUP, PATH, UNIT, dump
from tasks import gateway_reader

FILE = f"/etc/systemd/system/{UNIT}"


@concern("gateway")
def close(settings: Settings) -> None:
    """Before the package, which would start a service of its own."""
    if settings.gateway_wanted:
        gateway.unstarted(name="Keep the distribution's haproxy.service from starting")


@concern("gateway")
def deploy(settings: Settings) -> None:
    """The gateway runs with its settings; or, with the gateway disabled, there is none, and the clients' keys stay."""
    if not settings.gateway_wanted:
        gateway_reader.deploy(settings)
        gateway.retired(name="Remove the gateway", unit=UNIT, files=[PATH])
        return
    variables = {engine: key_variable(engine) for engine in settings.enabled_engines}
    gateway.ground(name="Give the gateway an account and the keys of the engines", engines=variables)
    unit = render(FILE, configuration=wanted.CONFIGURATION, user=GROUP, memory=settings.gateway.memory)
    texts = {FILE: unit, PATH: dump(wanted.config(settings))}
    written_together(name="Write the gateway's unit and the settings of rig-keys", texts=texts)
    configuration = wanted.texts(settings)
    gateway.configured(name=f"Write {wanted.CONFIGURATION}", texts=configuration)
    gateway.running(
        name="Run the gateway",
        unit=UNIT,
        files=[PATH, wanted.ENGINE_KEYS, *(f"{wanted.CONFIGURATION}/{name}" for name in configuration)],
        port=settings.gateway.metrics.port,
        fingerprint=wanted.fingerprint(configuration),
    )
    gateway_keys.in_force(name="Bring the recorded keys of clients into force")
    gateway_reader.deploy(settings)
