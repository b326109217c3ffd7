"""The machine, concern by concern, in the order in which they are made so."""

from os import environ

from pyinfra import config, host, state

from rig.operator import connection, progress, reads
from tasks import backup, containers, engines, firewall, gpu, machine, models, monitoring, preflight, secrets, storage

connection.tune(host)
progress.show(state)
reads.install(state, environ)

settings, found = preflight.check(host, config)

monitoring.prepare(settings=settings)
machine.deploy(settings=settings)
# Before anything can be reached, and before what may fail: no engine that does not start keeps a port open.
firewall.deploy(settings=settings)
storage.deploy(settings=settings)
models.install()
backup.prepare(settings=settings)
# Before the fetch of the models, which a reboot would cut short.
gpu.deploy(settings=settings, found=found)
models.start(settings=settings)
containers.deploy(settings=settings, found=found)
secrets.deploy(settings=settings)
models.deploy(settings=settings)
engines.deploy(settings=settings)
monitoring.deploy(settings=settings)
backup.deploy(settings=settings)
