"""What the deploy writes for a program: read whole, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rigd.base.errors import BadInput

T = TypeVar("T")


def read(path: str | Path, parse: Callable[[str], T]) -> T:
    """What `parse` makes of the file's text. Raises BadInput where there is none, or none that it can use."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"there is no {path}; a deploy writes it") from None
    except PermissionError:
        raise BadInput(f"{path} may not be read by this user; use sudo") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{path} cannot be used ({error}); write it anew with a deploy") from None
