"""pyinfra's list of its own arguments, computed once instead of for every fact and every operation."""

from __future__ import annotations

from functools import cache

from pyinfra.api import arguments


def list_once() -> None:
    """Cache the list: pyinfra evaluates the annotations of three classes for each, a sixth of a run without changes."""
    if not hasattr(arguments.all_global_arguments, "cache_info"):
        arguments.all_global_arguments = cache(arguments.all_global_arguments)
