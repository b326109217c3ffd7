"""Names of the metrics in a Prometheus query."""

from __future__ import annotations

import re

WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "offset", "bool"}


def names(expression: str) -> set[str]:
    """Every metric in the query: every word that is no label, text, span or function."""
    asked = re.sub(r'"(?:[^"\\]|\\.)*"', "", expression)
    # Names given by a pattern are in the text of a label.
    chosen = re.findall(r'__name__=~?"([^"]*)"', expression)
    asked = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", asked)
    asked = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", asked)
    found = re.findall(r"(?<![\w.:$])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", asked)
    return {name for name in found if name not in WORDS} | {name for names in chosen for name in names.split("|")}
