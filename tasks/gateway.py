"""Concern gateway: HAProxy before the engines, with keys of its own for each client."""

from __future__ import annotations

from pyinfra.api.deploy import deploy as concern

from rig.gateway import haproxy as wanted
from rig.operations import gateway, gateway_keys, units
from rig.operations.files import written_together
from rig.render import own_file, render
from rig.settings import Settings
from rig.settings.secrets import key_variable
from rigd.gateway.config import GROUP, PATH, UNIT, dump
from tasks import gateway_reader

UNITS = "/etc/systemd/system"
FILE = f"{UNITS}/{UNIT}"
RENEWAL = "rig-gateway-certificate"
RENEWALS = (f"{UNITS}/{RENEWAL}.service", f"{UNITS}/{RENEWAL}.timer")


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
        gateway.unscheduled(name="Remove the renewal of the certificate", timer=f"{RENEWAL}.timer", files=RENEWALS)
        gateway.retired(name="Remove the gateway", unit=UNIT, files=[PATH])
        return
    variables = {engine: key_variable(engine) for engine in settings.enabled_engines}
    gateway.ground(name="Give the gateway an account and the keys of the engines", engines=variables)
    made = wanted.made(settings)
    memory = settings.gateway.memory
    unit = render(FILE, configuration=wanted.CONFIGURATION, user=GROUP, memory=memory, before=made.values())
    texts = {FILE: unit, PATH: dump(wanted.config(settings))}
    written_together(name="Write the gateway's unit and the settings of rig-keys", texts=texts)
    configuration = wanted.texts(settings)
    gateway.configured(name=f"Write {wanted.CONFIGURATION}", texts=configuration, made=made)
    gateway.running(
        name="Run the gateway",
        unit=UNIT,
        files=[PATH, wanted.ENGINE_KEYS, *(f"{wanted.CONFIGURATION}/{name}" for name in configuration)],
        port=settings.gateway.metrics.port,
        fingerprint=wanted.fingerprint(configuration),
    )
    gateway_keys.in_force(name="Bring the recorded keys of clients into force")
    _renewal(settings)
    gateway_reader.deploy(settings)


def _renewal(settings: Settings) -> None:
    timer = f"{RENEWAL}.timer"
    if not settings.gateway.remote.enabled:
        gateway.unscheduled(name="Remove the renewal of the certificate", timer=timer, files=RENEWALS)
        return
    texts = {path: own_file(path) for path in RENEWALS}
    written_together(name="Write the units of the certificate's renewal", texts=texts)
    service = f"{RENEWAL}.service"
    units.running(name="Schedule the renewal of the certificate", unit=timer, files=[RENEWALS[1]], starts=[service])
