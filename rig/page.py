"""The computed part of a handwritten page, between a line that begins it and one that ends it."""

from __future__ import annotations

END = "<!-- End of what is computed. -->"


class NoPlace(Exception):
    """The page has no place for what is computed."""


def place(page: str, begin: str, computed: str, kind: str) -> str:
    """The page with the computed text after its line ``begin``. Raises NoPlace, which names the ``kind``."""
    before, found, rest = page.partition(f"{begin}\n")
    _, end, after = rest.partition(END)
    if not (found and end):
        raise NoPlace(f"has no place for the {kind}; write the lines '{begin}' and '{END}' where it belongs")
    return f"{before}{found}\n{computed}\n{end}{after}"
