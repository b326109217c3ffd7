"""The loader of settings files that a deploy writes for a program, by the types of a dataclass.

Programs and settings files differ in age during a deploy, or after one that failed. So an unknown key is ignored, and a
missing one takes the field's default. A value of the wrong type is refused in one sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from rigd.base.errors import BadInput

T = TypeVar("T")

REMEDY = "run a deploy to write it again"


class Unusable(ValueError):
    """An unusable value; the message names its place."""


@dataclass(frozen=True)
class Shape:
    """Text that matches a regular expression; `what` completes "must be"."""

    pattern: str
    what: str


@dataclass(frozen=True)
class AtLeast:
    """A number with a minimum."""

    least: float


def read(path: str | Path, parse: Callable[[str], T]) -> T:
    """Parse a settings file. Raises BadInput if it is missing, unreadable or unusable."""
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"there is no {path}; a deploy writes it") from None
    except PermissionError:
        raise BadInput(f"{path} may not be read by this user; use sudo") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be used ({error}); {REMEDY}") from None


def parse(kind: type[T], text: str, **override: object) -> T:
    """Parse a JSON text as the dataclass `kind`. Raises Unusable for the first wrong value.

    ``override``: values that replace the file's, and are checked like them.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"it is not JSON: {error}") from None
    if isinstance(document, dict):
        document |= override
    found: T = _value(kind, document, "")
    return found


def _value(kind: Any, value: Any, where: str) -> Any:
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return None if value is None else _value(inside[0], value, where)
    if origin is tuple:
        items = _typed(list, value, where, "a list")
        return tuple(_value(inside[0], item, f"{where}[{number}]") for number, item in enumerate(items))
    if origin is Mapping:
        entries = _typed(dict, value, where, "an object")
        return {name: _value(inside[1], item, f"{where}.{name}".lstrip(".")) for name, item in entries.items()}
    if origin is Annotated:
        return _ruled(inside[1], _value(inside[0], value, where), where)
    if is_dataclass(kind):
        return _section(kind, _typed(dict, value, where, "an object"), where)
    if kind is str:
        return _typed(str, value, where, "text")
    if kind is bool:
        return _typed(bool, value, where, "true or false")
    if isinstance(value, bool):
        raise Unusable(f"{where} must be a number, not {value!r}")
    return _typed((int, float) if kind is float else int, value, where, "a number")


def _section(kind: Any, values: dict[str, Any], where: str) -> Any:
    at = f"{where}." if where else ""
    known = {part.name: part for part in fields(kind)}
    for name, part in known.items():
        if name not in values and part.default is MISSING and part.default_factory is MISSING:
            raise Unusable(f"{at}{name} is missing")
    hints = _hints(kind)
    return kind(**{name: _value(hints[name], values[name], at + name) for name in known if name in values})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    """Cached: without the cache, this lookup for each of 10,000 files took longer than all else."""
    return get_type_hints(kind, include_extras=True)


def _ruled(rule: Shape | AtLeast, value: Any, where: str) -> Any:
    if isinstance(rule, Shape):
        if not re.fullmatch(rule.pattern, value):
            raise Unusable(f"{where} must be {rule.what}, not {value!r}")
    elif value < rule.least:
        raise Unusable(f"{where} must be a number from {rule.least} on, not {value!r}")
    return value


def _typed(kind: Any, value: Any, where: str, what: str) -> Any:
    if not isinstance(value, kind):
        raise Unusable(f"{where or 'it'} must be {what}, not {value!r}")
    return value
