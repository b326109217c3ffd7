"""State of the keys on a machine: names and verdicts, never a key."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

from rig.engines.served import FOLDER as SERVED

KEYS = "/etc/rig/keys.env"
NATIVE = "/etc/rig/keys"


@dataclass(frozen=True)
class KeyState:
    """Verdicts on /etc/rig/keys.env and on the files derived from it for native engines."""

    file: str
    """Mode and owner of the store, such as ``600 root:root``; empty when it is missing."""
    directory: str
    """Mode and owner of the directory of derived files."""
    missing: tuple[str, ...]
    """Variables without a line."""
    malformed: tuple[str, ...]
    """Variables whose line holds no valid key, or that occur twice."""
    stale: tuple[str, ...]
    """Native engines whose own file is missing, differs from the store, or has a wrong mode."""
    vanished: bool = False
    """The store is missing or empty on a machine that has had keys: an engine has a copy, or has served."""


class Keys(FactBase[KeyState]):
    """State of the keys, compared on the machine by shell builtins: no key leaves it, and none is an argument."""

    def command(self, variables: Iterable[str], native: dict[str, str]) -> str:
        owners = " ".join(f"{shlex.quote(engine)}={variable}" for engine, variable in native.items())
        return f"""
stat -c "file %a %U:%G" {KEYS} 2>/dev/null; stat -c "directory %a %U:%G" {NATIVE} 2>/dev/null
[ -s {KEYS} ] || [ -z "$(ls {NATIVE} {SERVED} 2>/dev/null | grep -v ":" | grep .)" ] || echo "vanished keys"
for variable in {shlex.join(variables)}; do
  count=$(grep -c "^$variable=" {KEYS} 2>/dev/null)
  if [ "${{count:-0}}" = 0 ]; then echo "missing $variable"
  elif [ "$count" != 1 ] || ! grep -Eq "^$variable=[A-Za-z0-9_-]{{43,}}\\$" {KEYS}; then echo "malformed $variable"; fi
done
for pair in {owners}; do
  engine=${{pair%%=*}}; variable=${{pair#*=}}; own={NATIVE}/$engine
  if [ "$(stat -c "%a %U" "$own" 2>/dev/null)" != "600 root" ] ||
     [ "$(cat "$own")" != "$(sed -n "s/^$variable=//p" {KEYS} 2>/dev/null)" ]; then echo "stale $engine"; fi
done
true
"""

    def process(self, output: list[str]) -> KeyState:
        found: dict[str, list[str]] = {}
        for line in output:
            verdict, _, name = line.partition(" ")
            found.setdefault(verdict, []).append(name)
        return KeyState(
            file="".join(found.get("file", [])),
            directory="".join(found.get("directory", [])),
            missing=tuple(found.get("missing", [])),
            malformed=tuple(found.get("malformed", [])),
            stale=tuple(found.get("stale", [])),
            vanished="vanished" in found,
        )
