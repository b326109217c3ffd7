"""A root shell on the machine under test; tests check its output, and no key is ever in it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from testinfra.host import Host as TestinfraHost  # type: ignore[import-untyped]

from rig.settings import Settings

KEYS = "/etc/rig/keys.env"

# Defines `keys`, which prints every key, a line each; an empty line would match everything. Keys go only through pipes
# and variables of the shell: in an argument, everyone on the machine would see them; in a test's output, everyone who
# reads it.
_KEYS = f"keys() {{ sed -n 's/^RIG_KEY_[A-Z0-9_]*=\\(..*\\)/\\1/p' {KEYS}; }}\n"


class Failed(AssertionError):
    """A command that should have succeeded did not."""


__all__ = ["KEYS", "Failed", "Machine", "TestinfraHost"]


@dataclass(frozen=True)
class Machine:
    """The machine of --hosts, as root."""

    host: TestinfraHost

    @cached_property
    def _is_root(self) -> bool:
        return bool(self.host.check_output("id -u") == "0")

    def run(self, script: str) -> str:
        """Run a script as root and return its output; it must succeed."""
        code, output, errors = self.attempt(script)
        if code != 0:
            raise Failed(f"{script.strip()!r} ended with {code}: {errors.strip() or output.strip()}")
        return output.strip()

    def attempt(self, script: str) -> tuple[int, str, str]:
        """Run a script as root; return exit status, output and errors."""
        shell = "sh -c %s" if self._is_root else "sudo -n sh -c %s"
        done = self.host.run(shell, f"export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin\n{script}")
        return done.rc, done.stdout, done.stderr

    def lines(self, script: str) -> list[str]:
        """Run a script as root and return its output by line."""
        return self.run(script).splitlines()

    def instead_of(self, settings: Settings, engine: str) -> str | None:
        """The alternative that the owner chose instead of this engine; None if this engine should run."""
        group = settings.rivals(engine)
        shown = self.run(f"systemctl is-enabled {' '.join(map(settings.unit, group))} || true") if group else ""
        enabled = [name for name, state in zip(group, shown.split(), strict=False) if state == "enabled"]
        return None if engine in enabled or not enabled else enabled[0]

    def running(self, settings: Settings) -> list[str]:
        """Names of the engines that should run now."""
        return [name for name in settings.enabled_engines if self.instead_of(settings, name) is None]

    def json(self, script: str) -> Any:
        """Run a script as root and parse its output as JSON."""
        return json.loads(self.run(script))

    def unit(self, name: str, *properties: str) -> dict[str, str]:
        """Properties of a systemd unit."""
        shown = self.lines(f"systemctl show --property={','.join(properties)} {shlex.quote(name)}")
        return dict(line.split("=", 1) for line in shown)

    def stat(self, path: str) -> str:
        """Mode, owner and group of a file, such as ``600 root root``; ``missing`` without a file."""
        return self.run(f"stat -c '%a %U %G' {shlex.quote(path)} 2>/dev/null || echo missing")

    def with_keys(self, script: str) -> str:
        """Run a script that may call ``keys``."""
        return self.run(_KEYS + script)

    def keys_in(self, producer: str) -> int:
        """Number of lines in the output of ``producer`` that contain a key. Fails if the machine has no keys."""
        return int(
            self.with_keys(
                '[ -n "$(keys)" ] || { echo "there are no keys to look for" >&2; exit 9; }\n'
                f"{{ {producer}\n}} | {{ keys | grep --text -cF -f - /dev/fd/3 || [ $? = 1 ]; }} 3<&0"
            )
        )

    def process(self, pid: str) -> dict[str, str]:
        """Fields of /proc/PID/status."""
        pairs = (line.split(":", 1) for line in self.lines(f"cat /proc/{int(pid)}/status"))
        return {name: value.strip() for name, value in pairs}

    @cached_property
    def listeners(self) -> dict[tuple[str, int], str]:
        """Processes that listen on TCP, by address and port."""
        found = {}
        for line in self.lines("ss -Hltnp"):
            _, _, _, local, _, *users = line.split(None, 5)
            address, _, port = local.rpartition(":")
            names = re.findall(r'\("([^"]+)"', users[0] if users else "")
            found[address.strip("[]").partition("%")[0], int(port)] = ",".join(sorted(set(names)))
        return found
