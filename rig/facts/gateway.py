"""State of the gateway on a machine: its account, its copies of the engines' keys, and the configuration in force."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

from rig.facts import in_force
from rig.facts.in_force import InForceState
from rig.facts.secrets import KEYS as STORE
from rig.gateway.haproxy import ENGINE_KEYS
from rigd.gateway.config import GROUP, HOME

FOLDER = f"750 root:{GROUP}"
FILE = f"640 root:{GROUP}"


@dataclass(frozen=True)
class GroundState:
    """What has to be there before the gateway; verdicts, never a key."""

    account: bool
    folder: str
    """Mode and owner of the folder of clients' keys, such as ``750 root:rig-gateway``; empty when it is missing."""
    stale: bool
    """The engines' keys are missing in the gateway's file, differ from the store's, or are readable by others."""


class Ground(FactBase[GroundState]):
    """The account, the folder, and the copies of keys, compared by the machine's shell: no key leaves it."""

    def command(self, engines: dict[str, str]) -> str:
        return f"""
id {GROUP} >/dev/null 2>&1 && echo account
stat -c "folder %a %U:%G" {HOME} 2>/dev/null
{listing(engines)}
if [ "$(stat -c "%a %U:%G" {ENGINE_KEYS} 2>/dev/null)" != "{FILE}" ] ||
   [ "$(cat {ENGINE_KEYS})" != "$(listing)" ]; then echo stale; fi
true
"""

    def process(self, output: list[str]) -> GroundState:
        folder = next((line.removeprefix("folder ") for line in output if line.startswith("folder ")), "")
        return GroundState("account" in output, folder, "stale" in output)

    @staticmethod
    def default() -> GroundState:
        return GroundState(False, "", False)


def listing(engines: dict[str, str]) -> str:
    """A shell function that prints each engine with its key; `engines`: name to variable of the store."""
    pairs = " ".join(f"{shlex.quote(engine)}={variable}" for engine, variable in engines.items())
    return f"""listing() {{
  for pair in {pairs}; do
    printf "%s %s\\n" "${{pair%%=*}}" "$(sed -n "s/^${{pair#*=}}=//p" {STORE} 2>/dev/null)"
  done
}}"""


class InForce(FactBase[InForceState]):
    """The gateway's own fingerprint; and the age of its files, as those with keys are in no fingerprint."""

    def command(self, unit: str, port: int, files: Iterable[str]) -> str:
        return in_force.script(f"curl --silent --max-time 10 http://127.0.0.1:{port}/fingerprint", unit, files)

    def process(self, output: list[str]) -> InForceState:
        return in_force.state(output)
