"""Files of the settings: owned by root, readable by all, and complete at every moment."""

from __future__ import annotations

import difflib
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from pyinfra import host, logger, state
from pyinfra.api import FileUploadCommand, operation

from rig.facts.files import FileState, Written, WrittenTogether
from rig.facts.machine import FileText
from rig.operations import Commands
from rig.render import upload

ACCESS = "644 root:root"
"""Access of every file of the settings. None of them holds a secret."""


@operation()
def written(path: str, text: str, first: Sequence[str] = ()) -> Commands:
    """The file at ``path`` holds ``text``; it is written beside its place and renamed, so that nobody reads half of it.

    ``first``: commands that check PATH.rig-new; unless they succeed it is not renamed. pyinfra's own ``files.put``
    takes three round trips instead of one, and overwrites the file while others read it.
    """
    if not holds(path, text):
        yield from prepared(path, text)
        yield from first
        yield replace(path)


@operation()
def written_together(texts: Mapping[str, str]) -> Commands:
    """Every file holds its text, by path. One round trip reads all of them."""
    there: dict[str, FileState] = host.get_fact(WrittenTogether, paths=tuple(texts))
    for path in differing(there, texts):
        yield from prepared(path, texts[path])
        yield replace(path)


def holds(path: str, text: str) -> bool:
    """Whether the file at ``path`` is as an operation would write it."""
    there: FileState | None = host.get_fact(Written, path=path)
    return there == _wanted(text)


def differing(there: Mapping[str, FileState], texts: Mapping[str, str]) -> list[str]:
    """The paths in ``texts`` whose files are missing or differ."""
    return [path for path, text in texts.items() if there.get(path) != _wanted(text)]


def _wanted(text: str) -> FileState:
    return FileState(ACCESS, hashlib.sha256(text.encode()).hexdigest())


def replaced_together(folder: str, texts: Mapping[str, str], checks: Sequence[str]) -> Commands:
    """The files of a folder hold ``texts``, by name; if one of ``checks`` refuses the new ones, nothing changes.

    ``checks``: commands that run in the folder of the new files.
    """
    wanted = {f"{folder}/{name}": text for name, text in texts.items()}
    there: dict[str, FileState] = host.get_fact(WrittenTogether, paths=tuple(wanted))
    if not differing(there, wanted):
        return
    new = f"{folder}.new"
    yield f"rm -rf {new} && install -d -m 0755 {new} {folder}"
    for name, text in texts.items():
        yield FileUploadCommand(upload(text), f"{new}/{name}")
    yield f"cd {new} && chown root:root * && chmod 0644 * && {' && '.join(checks)}"
    moves = [f"mv --no-target-directory {name} {folder}/{name}" for name in texts]
    yield f"cd {new} && sync * && {' && '.join(moves)} && sync {folder} && rm -r {new}"


def beside(path: str) -> str:
    """Path of the new file until it is renamed. A fixed name: the next run removes whatever a killed run left."""
    return f"{path}.rig-new"


def prepared(path: str, text: str) -> Commands:
    """The new file lies beside its place."""
    _show_difference(path, text)
    new = beside(path)
    folder = shlex.quote(str(PurePosixPath(path).parent))
    yield f"mkdir -p {folder}"
    yield _replaceable(path)
    yield FileUploadCommand(upload(text), new)
    quoted = shlex.quote(new)
    yield f"chown root:root {quoted} && chmod 0644 {quoted} && sync {quoted}"


def replace(path: str) -> str:
    """A command that puts the new file in its place."""
    # The folder, too: if a power cut undoes the rename, the name is still the old file's.
    folder = shlex.quote(str(PurePosixPath(path).parent))
    return f"mv --no-target-directory {shlex.quote(beside(path))} {shlex.quote(path)} && sync {folder}"


def _replaceable(path: str) -> str:
    """A command that fails with a sentence if the path holds something that is not replaced."""
    quoted = shlex.quote(path)
    script = (
        f'if [ -d {quoted} ] && [ ! -L {quoted} ]; then echo "$1 is a folder, and Rig writes a file there; '
        'look what is in it, move it away, and deploy again" >&2; exit 1; fi; '
        f'for part in {quoted} {shlex.quote(str(PurePosixPath(path).parent))}; do '
        'case $(lsattr -d "$part" 2>/dev/null | cut -d " " -f 1) in *[ia]*) '
        'echo "$part is immutable (chattr +i or +a), and Rig has to write $1; '
        'take that off with: sudo chattr -i -a $part" >&2; exit 1 ;; esac; done'
    )
    return f"sh -c {shlex.quote(script)} - {quoted}"


def _show_difference(path: str, text: str) -> None:
    """Log the difference, for ``--diff``."""
    if not state.config.DIFF:
        return
    there = host.get_fact(FileText, path=path)
    for line in difflib.unified_diff((there or "").splitlines(), text.splitlines(), path, path, lineterm=""):
        logger.info(f"{host.print_prefix}  {line}")
