"""The password of the encrypted part: read it, prompt for it, and pass it to restic without an argument."""

from __future__ import annotations

import getpass
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rigd.base.errors import BadInput


def given(source: str | None) -> str:
    """The password from a file, from stdin (`-`) or from the terminal. Raises BadInput.

    White space is removed: people write long passwords in groups.
    """
    if source is not None and source != "-":
        return _sound(_of_file(Path(source)), source)
    if sys.stdin.isatty():
        try:
            typed = getpass.getpass("password of the backup: ")
        except EOFError:
            # Ctrl-D: the cursor is still behind the prompt.
            print(file=sys.stderr)
            typed = ""
        return _sound(typed, "what you typed")
    return _sound(sys.stdin.readline(), "the first line of stdin")


def own(path: str) -> str | None:
    """The machine's own password; None without one. Raises BadInput."""
    return _sound(_of_file(Path(path)), path) if Path(path).exists() else None


def required(path: str) -> str:
    """The machine's own password. Raises BadInput without one."""
    found = own(path)
    if found is None:
        raise BadInput(f"there is no password {path}; a deploy makes one, or says how to bring the old one back")
    return found


@contextmanager
def handed(password: str) -> Iterator[int]:
    """The descriptor of a nameless file in memory with the password; the program inherits it."""
    descriptor = os.memfd_create("password")
    try:
        os.write(descriptor, password.encode())
        yield descriptor
    finally:
        os.close(descriptor)


def keep(path: str, password: str) -> None:
    """Store the machine's own password: 0600 from its first byte, and whole at every moment."""
    new = Path(f"{path}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(password + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def _of_file(path: Path) -> str:
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadInput(f"{path} can be read by others; close it: chmod 600 {path}")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}; name one that holds the password, or none for a prompt") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} holds no password; it is a line of text") from None


def _sound(text: str, where: str) -> str:
    password = "".join(text.split())
    if not password:
        raise BadInput(f"{where} holds no password; it is a line of text")
    return password
