"""Sentences for the validator's findings: what is wrong, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from rig.settings.problems import Problem, show
from rig.settings.schema import Schema, known_keys, variants_at
from rig.settings.tree import Node, Step, replaced
from rig.settings.words import either, nearest_word

Details = dict[str, Any]
WHOLE = r"0|-?[1-9][0-9]{0,17}"
"""A whole number as text."""
Validate = Callable[[Node], list[ErrorDetails]]
"""Returns the validator's findings on a tree; none if it is valid."""


def explain(validate: Validate, root: Node, schema: Schema) -> Iterator[Problem]:
    """A problem for each finding of the validator, placed at the offending value in its file.

    Each remedy is tried: if it would be refused as well, the second reason replaces the first; and problems that the
    first had hidden are reported with it.
    """
    first = {_path_in(root, found): found for found in validate(root)}
    mended = root
    for path, found in first.items():
        remedy = _remedy(found, path, root, schema)
        if remedy is not None:
            mended = replaced(mended, path, remedy)
    second = {} if mended is root else {_path_in(mended, found): found for found in validate(mended)}
    for path, found in first.items():
        if path in second and second[path]["type"] != found["type"]:
            yield from _problem(second[path], path, root, mended, schema)
        else:
            yield from _problem(found, path, root, root, schema)
    for path, found in second.items():
        if path not in first:
            yield from _problem(found, path, root, mended, schema)


def _problem(found: ErrorDetails, path: tuple[Step, ...], root: Node, seen: Node, schema: Schema) -> Iterator[Problem]:
    """The problem of a finding about the tree `seen`, placed in `root`; none if it has been reported already."""
    if root.nearest(path).broken:
        return
    node = seen.nearest(path)
    if found["type"] == "extra_forbidden":
        yield root.problem(path, _unknown_key(path, known_keys(schema, seen, path[:-1])))
    elif found["type"] == "missing":
        description = known_keys(schema, seen, path[:-1]).get(str(path[-1]), "")
        yield root.problem(path, f"is missing; add it: {description}".rstrip(": "))
    elif found["type"] == "union_tag_not_found":
        yield root.problem(path, f"is missing; write {either(_tags(found, path, seen, schema))}")
    elif found["type"] == "too_short" and isinstance(node.value, list) and node.value:
        # The validator counts only valid items; each invalid one has a problem of its own.
        return
    else:
        yield root.problem(path, _sentence(found, node))


def _remedy(found: ErrorDetails, path: tuple[Step, ...], root: Node, schema: Schema) -> str | int | None:
    """The value that the finding's sentence recommends; None if it leaves a choice."""
    node, kind = root.nearest(path), found["type"]
    if node.broken:
        return None
    if kind == "string_type" and isinstance(node.value, int | float):
        return node.text
    if kind in ("int_type", "int_from_float") and isinstance(node.value, str):
        return int(node.value) if re.fullmatch(WHOLE, node.value) else None
    if kind == "union_tag_invalid":
        return nearest_word(str(found.get("ctx", {})["tag"]), _tags(found, path, root, schema))
    if kind == "union_tag_not_found":
        return _likely_tag(found, path, root, schema)
    return None


def _tags(found: ErrorDetails, path: tuple[Step, ...], root: Node, schema: Schema) -> list[str]:
    """Accepted values of the key that decides the kind of mapping."""
    untagged = replaced(root, path, None)
    variants = variants_at(schema, untagged, path[:-1])
    return [str(variant["properties"][path[-1]]["const"]) for variant in variants]


def _likely_tag(found: ErrorDetails, path: tuple[Step, ...], root: Node, schema: Schema) -> str | None:
    """The first kind that has all the present keys; None if none has."""
    node = root.nearest(path)
    written = set(node.value) if isinstance(node.value, dict) else set()
    variants = variants_at(schema, root, path[:-1])
    fitting = [variant for variant in variants if written <= set(variant["properties"])]
    return str(fitting[0]["properties"][path[-1]]["const"]) if fitting else None


def _path_in(root: Node, found: ErrorDetails) -> tuple[Step, ...]:
    """The finding's place in the tree, without steps that name no value there (a kind of union)."""
    path: list[Step] = []
    node = root
    for step in found["loc"]:
        child = node.child(step)
        if child is not None:
            path.append(step)
            node = child
    if found["type"] == "missing":
        path.append(found["loc"][-1])
    if found["type"].startswith("union_tag"):
        discriminator = _discriminator(found)
        path.append(discriminator)
    return tuple(path)


def _discriminator(found: ErrorDetails) -> str:
    """The key that decides the kind of mapping."""
    return str(found["ctx"]["discriminator"]).strip("'")


def _unknown_key(path: Sequence[Step], known: Schema) -> str:
    """The sentence for an unknown key."""
    meant = nearest_word(str(path[-1]), known)
    if meant is not None:
        return f"unknown key; write '{meant}'"
    return f"unknown key; remove it, or write {either(known)}"


def _sentence(found: ErrorDetails, node: Node) -> str:
    """The sentence for a wrong value."""
    details: Details = found.get("ctx", {})
    teller = SENTENCES.get(found["type"])
    if teller is None:
        return f"{found['msg'][0].lower()}{found['msg'][1:]}; correct it"
    return teller(found["input"], details, node)


def _own_words(value: object, details: Details, node: Node) -> str:
    return str(details["error"])


def _not_text(value: object, details: Details, node: Node) -> str:
    if isinstance(value, int | float):
        seen = f"is {show(value)}" if isinstance(value, bool) else f"is the number {value}"
        return f'{seen}, because {node.text} stands without quotes; write "{node.text}"'
    return f"must be text, {_not(value)}; write it in one line"


def _not_whole(value: object, details: Details, node: Node) -> str:
    if isinstance(value, str) and re.fullmatch(WHOLE, value):
        return f'must be a number, and "{value}" in quotes is text; write {value}'
    return f"must be a whole number, {_not(value)}; write digits only"


def _not_number(value: object, details: Details, node: Node) -> str:
    return f"must be a number, {_not(value)}; write one such as 1.5"


def _not_bool(value: object, details: Details, node: Node) -> str:
    return f"must be true or false, {_not(value)}; write one of the two without quotes"


def _not_mapping(value: object, details: Details, node: Node) -> str:
    return f"must be a mapping, {_not(value)}; write lines of the form 'key: value' below it, or {{}} for none"


def _not_list(value: object, details: Details, node: Node) -> str:
    return f"must be a list, {_not(value)}; write it as [a, b], or [] for none"


def _not_listed(value: object, details: Details, node: Node) -> str:
    allowed = re.findall(r"'([^']*)'", str(details["expected"]))
    meant = nearest_word(str(value), allowed)
    return f"must be {either(allowed)}, {_not(value)}; write {either([meant] if meant else allowed)}"


def _tag_unknown(value: object, details: Details, node: Node) -> str:
    allowed = re.findall(r"'([^']*)'", str(details["expected_tags"]))
    meant = nearest_word(str(details["tag"]), allowed)
    return f"must be {either(allowed)}, {_not(details['tag'])}; write {either([meant] if meant else allowed)}"


def _too_few(value: object, details: Details, node: Node) -> str:
    return f"is empty; write at least {details['min_length']} entry"


def _too_long(value: object, details: Details, node: Node) -> str:
    return f"has {len(str(value))} letters; write {details['max_length']} at most"


def _bound(words: str, limit: str) -> Callable[[object, Details, Node], str]:
    def tell(value: object, details: Details, node: Node) -> str:
        return f"must be {words} {details[limit]:.15g}, {_not(value)}; write such a number"

    return tell


def _not(value: object) -> str:
    """'not 5'; for an empty value, the reason why it is null."""
    if value is None:
        return "and nothing (null) is written"
    if isinstance(value, dict):
        return "not a mapping"
    if isinstance(value, list):
        return "not a list"
    return f"not {show(value)}"


SENTENCES: dict[str, Callable[[object, Details, Node], str]] = {
    "value_error": _own_words,
    "string_type": _not_text,
    "int_type": _not_whole,
    "int_from_float": _not_whole,
    "float_type": _not_number,
    "bool_type": _not_bool,
    "dict_type": _not_mapping,
    "model_type": _not_mapping,
    "model_attributes_type": _not_mapping,
    "tuple_type": _not_list,
    "literal_error": _not_listed,
    "union_tag_invalid": _tag_unknown,
    "too_short": _too_few,
    "string_too_long": _too_long,
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than_equal": _bound("at most", "le"),
}
