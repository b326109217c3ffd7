"""A script run as root on a machine of the inventory, without a deploy."""

from __future__ import annotations

import os
import subprocess

from rig.operator.connection import explained
from rig.settings import Host


class CannotLook(Exception):
    """The machine cannot be examined; the text has the reason and the remedy."""


def run(host: Host, script: str, seconds: int) -> list[str]:
    """The output lines of a shell script run as root on the machine. Raises CannotLook."""
    command = (
        ["sh", "-s"] if host.user == "root" or (host.is_local and os.geteuid() == 0) else ["sudo", "-n", "sh", "-s"]
    )
    words = command if host.is_local else ["ssh", *_options(host), f"{host.user}@{host.address}", *command]
    text = f"export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n{script}"
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotLook(f"{host.name} did not answer within {seconds} s; is it overloaded?") from None
    except OSError as error:
        raise CannotLook(f"{words[0]} cannot be run here: {error.strerror}") from None
    if done.returncode != 0:
        raise CannotLook(_cause(host, done.returncode, done.stderr))
    return done.stdout.splitlines()


def _options(host: Host) -> list[str]:
    """The deploy's connection options for the machine; an unknown or different host key is refused."""
    identity = ["-i", str(host.identity_file)] if host.identity_file else []
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "10",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": host.known_hosts_file,
    }
    return [
        "-p",
        str(host.port),
        *identity,
        *(word for key, value in options.items() for word in ("-o", f"{key}={value}")),
    ]


def _cause(host: Host, code: int, errors: str) -> str:
    said = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), f"exit status {code}")
    if code == 255 and "Host key verification failed" in errors:
        return f"{host.name}: {explained(host, 'SSH host key error (another one, or none is known)')}"
    if code == 255 and "Permission denied" in errors:
        return f"{host.name}: {explained(host, 'Authentication error ()')}"
    if code == 255:
        return f"{host.name}: {explained(host, 'Could not connect ()')} ({said})"
    return f"{host.name}: {said}"
