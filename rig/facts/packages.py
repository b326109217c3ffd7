"""Which Debian packages are installed, and whether dpkg was interrupted."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pyinfra.api import FactBase

# Names that packages only provide, without the versions behind them.
_PROVIDED = r"""
dpkg-query -W -f='${db:Status-Abbrev}|${Provides}\n' | awk -F'|' -v names='@NAMES@' '
  BEGIN { split(names, listed, " "); for (at in listed) wanted[listed[at]] }
  substr($1, 2, 1) == "i" && $2 != "" {
    count = split($2, provided, / *, */)
    for (at = 1; at <= count; at++) {
      sub(/[ (].*/, "", provided[at])
      if (provided[at] in wanted) print "ii", provided[at]
    }
  }'
"""


class Installed(FactBase[frozenset[str]]):
    """Those of the named packages that are completely installed.

    ``provided``: a name that an installed package provides counts, too. apt installs that one for a virtual package,
    which would otherwise be missing in every run.
    """

    @staticmethod
    def default() -> frozenset[str]:
        return frozenset()

    def command(self, packages: Iterable[str], provided: bool = False) -> str:
        names = shlex.join(packages)
        virtual = _PROVIDED.replace("@NAMES@", names) if provided else ""
        return f"dpkg-query -W -f='${{db:Status-Abbrev}} ${{Package}}\\n' {names} 2>/dev/null;{virtual} true"

    def process(self, output: list[str]) -> frozenset[str]:
        # The first letter is what dpkg was told to do, h to hold it; the second what is there; a third what is broken.
        pairs = (line.split() for line in output)
        return frozenset(name for status, name in pairs if status[1:] == "i")


class HalfInstalled(FactBase[bool]):
    """Whether a killed dpkg left packages unpacked but not configured, or a journal of unfinished updates."""

    def command(self) -> str:
        return 'if [ -n "$(dpkg --audit)" ] || [ -n "$(ls /var/lib/dpkg/updates)" ]; then echo yes; else echo no; fi'

    def process(self, output: list[str]) -> bool:
        return output == ["yes"]
