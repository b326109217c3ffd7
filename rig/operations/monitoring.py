"""The monitoring taken away where the owner does not want it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from pyinfra import host
from pyinfra.api import operation

from rig.facts.files import WrittenTogether
from rig.operations import Commands, packages


@operation()
def retired(names: list[str], drop_ins: Iterable[str]) -> Commands:
    """None of the packages ``names`` is installed, and our files for their units are gone; what was measured stays.

    The files go last: a package that is still there would listen on every address without them.
    """
    yield from packages.absent._inner(packages=names)
    there = host.get_fact(WrittenTogether, paths=tuple(drop_ins))
    if there:
        yield f"rm -f {shlex.join(there)} && systemctl daemon-reload"
