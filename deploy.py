"""The deploy: every concern of the machine, in the order in which it is set up."""

from os import environ

from pyinfra import config, host, state

from rig.operator import arguments, connection, interrupt, isolation, progress, reads
from tasks import (
    backup,
    containers,
    engines,
    firewall,
    gateway,
    gpu,
    machine,
    models,
    monitoring,
    preflight,
    secrets,
    storage,
)


def close() -> None:
    """Close the machine first: packages start programs, and a started program must not be reachable."""
    monitoring.close(settings=settings)
    gateway.close(settings=settings)
    machine.deploy(settings=settings)
    firewall.deploy(settings=settings)


def begin() -> None:
    """Begin the slow parts: a reboot for the driver, then the fetch of the models, which runs in the background."""
    storage.deploy(settings=settings)
    models.install()
    # Restore the keys of an earlier installation before new ones are made.
    backup.guard(settings=settings)
    gpu.deploy(settings=settings, found=found)
    models.begin(settings=settings)


def build() -> None:
    """Set up whatever does not need the models, while they arrive."""
    containers.deploy(settings=settings, found=found)
    secrets.deploy(settings=settings)


def serve() -> None:
    """Wait for the models, start the engines and the gateway to them, then monitor and back up."""
    models.finish(settings=settings)
    engines.deploy(settings=settings)
    gateway.deploy(settings=settings)
    monitoring.deploy(settings=settings)
    backup.deploy(settings=settings)


arguments.list_once()
interrupt.install()
connection.tune(host)
progress.show(state)
reads.install(state, environ)

with isolation.alone(state, host):
    settings, found = preflight.check(host, config)
    close()
    begin()
    build()
    serve()
