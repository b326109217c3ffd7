"""The machine, concern by concern, in the order in which they are made so."""

from os import environ

from pyinfra import config, host, state

from rig.operator import arguments, connection, interrupt, isolation, progress, reads
from tasks import backup, containers, engines, firewall, gpu, machine, models, monitoring, preflight, secrets, storage


def close() -> None:
    """What would be too late afterwards: packages start programs, and a program that starts must not be reachable."""
    monitoring.close(settings=settings)
    machine.deploy(settings=settings)
    firewall.deploy(settings=settings)


def begin() -> None:
    """What takes long: a reboot for the driver, and then the fetch of the models, which goes on by itself."""
    storage.deploy(settings=settings)
    models.install()
    # The keys of an earlier life of the machine are restored before new ones would be made.
    backup.guard(settings=settings)
    gpu.deploy(settings=settings, found=found)
    models.begin(settings=settings)


def build() -> None:
    """What can be made while models arrive."""
    containers.deploy(settings=settings, found=found)
    secrets.deploy(settings=settings)


def serve() -> None:
    """What needs the models: the fetch is waited for, engines answer, and they are watched and backed up."""
    models.finish(settings=settings)
    engines.deploy(settings=settings)
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
