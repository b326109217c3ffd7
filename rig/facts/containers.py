"""Facts of the container engine: its packages, and its configuration."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any

from pyinfra.api import FactBase, FactProcessError

from rig.containers import Offered

DAEMON = "/etc/docker/daemon.json"


class Daemon(FactBase[dict[str, Any]]):
    """Content of daemon.json; empty when it is missing. A file that is not a JSON object raises FactProcessError."""

    @staticmethod
    def default() -> dict[str, Any]:
        return {}

    def command(self) -> str:
        return f"cat {DAEMON} 2>/dev/null || true"

    def process(self, output: list[str]) -> dict[str, Any]:
        text = "\n".join(output).strip()
        try:
            content = json.loads(text or "{}")
        except ValueError as error:
            raise FactProcessError(f"{DAEMON} is not JSON ({error}); correct it, or move it away") from error
        if not isinstance(content, dict):
            raise FactProcessError(f"{DAEMON} is not a JSON object; correct it, or move it away")
        return content


class Offers(FactBase[dict[str, Offered]]):
    """The named packages that apt knows, each with its installed and its candidate version."""

    @staticmethod
    def default() -> dict[str, Offered]:
        return {}

    def command(self, packages: Iterable[str]) -> str:
        names = shlex.join(packages)
        return f"LC_ALL=C apt-cache policy {names} 2>/dev/null; apt-mark showhold {names} 2>/dev/null"

    def process(self, output: list[str]) -> dict[str, Offered]:
        held = frozenset(line for line in output if re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", line))
        found = {}
        for name, *lines in re.findall(r"(?m)^(\S+):\n  Installed: (.*)\n  Candidate: (.*)$", "\n".join(output)):
            installed, candidate = (None if version == "(none)" else version for version in lines)
            found[name] = Offered(installed, candidate, name in held)
        return found


class Translating(FactBase[bool]):
    """Whether the kernel has Docker's own rules, or Docker may have none: it writes them when it starts, and never
    looks at them again."""

    def command(self) -> str:
        return (
            "nft list table ip docker-bridges >/dev/null 2>&1 || "
            f"grep -qsE '\"iptables\" *: *false' {DAEMON} || "
            "[ \"$(systemctl is-active docker.service)\" != active ] || for table in nat filter; do "
            "iptables-save -t $table 2>/dev/null | grep -q -e '-j DOCKER' || echo $table; done"
        )

    @staticmethod
    def default() -> bool:
        return True

    def process(self, output: list[str]) -> bool:
        return not output
