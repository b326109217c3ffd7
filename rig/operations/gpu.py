"""NVIDIA's driver on a machine: installed, signed, loaded (with a reboot if needed), and available in containers."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence

from paramiko import SSHException
from pyinfra import host, logger
from pyinfra.api import FactError, FunctionCommand, Host, State, operation

from rig.facts.gpu import SLEEP, BootId, DriverFact, Masked
from rig.gpu import words
from rig.gpu.driver import TOOLKIT, Selection
from rig.gpu.state import Driver, Reboot, current, described, enrolment, initramfs_due, kernels, missing_headers, reboot
from rig.operations import Commands
from rig.operations.packages import INSTALL, UPDATE
from rig.operator import connection, progress
from rig.settings.hosts import LOCAL

CDI = "nvidia-cdi-refresh.service"
POLL = 3.0
"""Seconds between two attempts to reach a machine that is booting."""


@operation()
def enrolled(selection: Selection) -> Commands:
    """Firmware trusts the key that signs the module; or the deploy ends here, with the steps for a person."""
    seen: Driver = host.get_fact(DriverFact)
    match enrolment(seen.secure_boot, selection):
        case "missing":
            again = seen.secure_boot.certificate in seen.secure_boot.staged
            yield f"flock /etc/rig sh -c {shlex.quote(stage(again))}"
            yield FunctionCommand(_told, (words.enrolment(),), {})
        case "staged":
            yield FunctionCommand(_told, (words.enrolment(),), {})
        case "enrolled" if seen.secure_boot.password:
            yield f"rm -f {words.PASSWORD}"


def stage(again: bool) -> str:
    """A script that makes the key if there is none, and stages it with a new password; ``again``: it is staged now."""
    return _STAGE.replace("@REVOKE@", "mokutil --revoke-import" if again else "true")


# The password reaches mokutil through a pipe, and a person through a file of root's: it is in no argument and no log.
# Digits, as firmware takes every keyboard for an American one.
# Its file is in place before anybody needs it; and mokutil does not import a key again while it waits with another one.
_STAGE = f"""set -eu
umask 077
certificate=/var/lib/dkms/mok.pub
if command -v update-secureboot-policy >/dev/null; then
  certificate=/var/lib/shim-signed/mok/MOK.der
  [ -f "$certificate" ] || update-secureboot-policy --new-key
fi
if [ ! -f "$certificate" ]; then
  install -d -m 0755 /var/lib/dkms
  openssl req -new -x509 -nodes -days 36500 -newkey rsa:2048 -subj "/CN=DKMS module signing key" \\
    -keyout /var/lib/dkms/mok.key -outform DER -out "$certificate.new" 2>/dev/null
  sync /var/lib/dkms
  mv "$certificate.new" "$certificate"
fi
@REVOKE@
password=$(tr -dc 0-9 </dev/urandom | head -c 12)
printf "%s\\n" "$password" >{words.PASSWORD}.new
sync {words.PASSWORD}.new
mv {words.PASSWORD}.new {words.PASSWORD}
sync /etc/rig
printf "%s\\n%s\\n" "$password" "$password" | mokutil --import "$certificate" >/dev/null
"""


@operation()
def driver(selection: Selection, version: str, allowed: bool) -> Commands:
    """The driver is installed in the wanted branch or version, its module built, with the headers for it.

    ``allowed``: this run may reboot the machine; the module is for the kernel of that boot.
    """
    seen: Driver = host.get_fact(DriverFact)
    booting = allowed and host.name != LOCAL
    wanted = kernels(seen, booting)
    missing = missing_headers(seen, selection, wanted)
    unbuilt = [kernel.release for kernel in wanted if selection.built and not kernel.module]
    if not missing and not unbuilt and current(seen, selection, version):
        return
    yield f"sh -c {shlex.quote(UPDATE)}"
    for kernel, name in missing.items():
        yield _known(name, words.no_headers(kernel))
    if missing:
        yield f"{INSTALL} {shlex.join(missing.values())}"
    if not current(seen, selection, version):
        yield _known(selection.first, words.no_such_version(version))
        yield f"{INSTALL} {shlex.quote(selection.first)}"
        yield f"{INSTALL} {shlex.join(selection.packages)}"
    # The packages may be installed without a module: somebody removed it, or a later kernel had no headers.
    for kernel in unbuilt:
        yield f"dkms autoinstall -k {shlex.quote(kernel)} || true"
    yield FunctionCommand(_installed, (selection, version, booting), {})


def _known(package: str, otherwise: str) -> str:
    """A command that fails with a sentence if apt knows no such package."""
    known = f"apt-cache show --no-all-versions {shlex.quote(package)} >/dev/null 2>&1"
    return f"{known} || {{ echo {shlex.quote(otherwise)} >&2; exit 1; }}"


def _installed(state: State, host: Host, selection: Selection, version: str, booting: bool) -> bool:
    """The right version is installed, and the module is built for the kernels that need it."""
    found = words.not_installed(host.get_fact(DriverFact), selection, version, booting)
    return _told(state, host, [found]) if found else True


@operation()
def toolkit(version: str) -> Commands:
    """The toolkit's four packages are installed, all in one version."""
    seen: Driver = host.get_fact(DriverFact)
    if any(seen.packages.get(name) != version for name in TOOLKIT):
        yield f"sh -c {shlex.quote(UPDATE)}"
        yield f"{INSTALL} {shlex.join(f'{name}={version}' for name in TOOLKIT)}"


@operation()
def loaded(allowed: bool, timeout: int) -> Commands:
    """The installed driver is the one in the kernel, and nouveau is not; with one reboot if needed.

    ``allowed``: this run may reboot the machine; else the deploy ends here and reports the pending reboot. ``timeout``:
    seconds that a reboot may take.
    """
    seen: Driver = host.get_fact(DriverFact)
    if initramfs_due(seen):
        yield "update-initramfs -u -k all"
    what = reboot(seen)
    if what.futile:
        yield FunctionCommand(_told, ([words.futile(what)],), {})
    elif what.due and (not allowed or host.name == LOCAL):
        yield FunctionCommand(_told, ([words.pending(what)],), {})
    elif what.due:
        yield FunctionCommand(_said, (words.rebooting(what),), {})
        before = host.get_fact(BootId)
        # Through systemd, so that the command ends before its connection does: sudo kills its background processes.
        yield "systemd-run --quiet --on-active=1s --timer-property=AccuracySec=100ms systemctl reboot"
        yield FunctionCommand(_back, (before, timeout), {})
        yield f"timeout {timeout} systemctl is-system-running --wait || true"
        yield FunctionCommand(_settled, (), {})
        yield f"[ -e /sys/module/nvidia ] || {MODPROBE}"
    elif seen.loaded is None:
        yield MODPROBE


MODPROBE = f"modprobe nvidia || {{ echo {shlex.quote(words.NOT_LOADED)} >&2; exit 1; }}"


def _said(state: State, host: Host, line: str) -> bool:
    logger.info(f"{host.print_prefix}{line}")
    return True


def _back(state: State, host: Host, before: str, timeout: int) -> bool:
    """Wait until the machine has booted and accepts logins again."""
    deadline = time.monotonic() + timeout
    with progress.told_by_itself(host):
        while time.monotonic() < deadline:
            host.disconnect()
            time.sleep(POLL)
            host.connect(show_errors=False)
            # In its last moments the old system may still answer.
            if host.connected and _boot_id(host) not in ("", before):
                connection.tune(host)
                return True
    return _told(state, host, [words.not_back(timeout)])


def _boot_id(host: Host) -> str:
    """The machine's boot id; empty if the connection broke."""
    try:
        return str(host.get_fact(BootId))
    except (OSError, EOFError, SSHException, FactError):
        return ""


def _settled(state: State, host: Host) -> bool:
    """The reboot helped: nothing is due any more."""
    still = reboot(host.get_fact(DriverFact))
    if still.due or still.futile:
        return _told(state, host, [words.futile(Reboot(futile=(*still.futile, *still.due)))])
    return True


def _told(state: State, host: Host, lines: Iterable[str]) -> bool:
    """Log the lines as errors, and end the deploy of this machine."""
    for line in lines:
        logger.error(f"{host.print_prefix}{line}")
    return False


@operation()
def awake(targets: Sequence[str] = SLEEP) -> Commands:
    """The machine cannot sleep: its clients expect answers."""
    asleep = [target for target in targets if target not in host.get_fact(Masked, units=tuple(targets))]
    if asleep:
        yield f"systemctl mask {shlex.join(asleep)}"


@operation()
def shown() -> Commands:
    """The CDI specification exists, and matches the installed driver."""
    if not described(host.get_fact(DriverFact)):
        yield f"systemctl reset-failed {CDI} 2>/dev/null; systemctl restart {CDI}"
