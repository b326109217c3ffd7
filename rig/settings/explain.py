"""Turns the validator's findings into sentences: what is wrong, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rig.settings.problems import Problem, show
from rig.settings.schema import Schema, known_keys
from rig.settings.tree import Node, Step
from rig.settings.words import either, nearest_word

Details = dict[str, Any]


def explain(error: ValidationError, root: Node, schema: Schema) -> Iterator[Problem]:
    """A problem for each finding of the validator, placed where the offending value was written."""
    for found in error.errors(include_url=False):
        path = _path_in(root, found)
        node = root.nearest(path)
        if found["type"] == "extra_forbidden":
            yield root.problem(path, _unknown_key(path, known_keys(schema, root, path[:-1])))
        elif found["type"] == "missing":
            description = known_keys(schema, root, path[:-1]).get(str(path[-1]), "")
            yield root.problem(path, f"is missing; add it: {description}".rstrip(": "))
        else:
            yield root.problem(path, _sentence(found, node))


def _path_in(root: Node, found: ErrorDetails) -> tuple[Step, ...]:
    """The finding's place in the tree; steps that name no value there (a kind of union) are left out."""
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
    """The key that decides which kind of mapping it is."""
    return str(found["ctx"]["discriminator"]).strip("'")


def _unknown_key(path: Sequence[Step], known: Schema) -> str:
    """The sentence for a key that nobody reads."""
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
    if isinstance(value, str) and re.fullmatch(r"0|-?[1-9][0-9]*", value):
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


def _tag_missing(value: object, details: Details, node: Node) -> str:
    return "is missing; write 'container', 'native' or 'vllm'"


def _tag_unknown(value: object, details: Details, node: Node) -> str:
    allowed = re.findall(r"'([^']*)'", str(details["expected_tags"]))
    meant = nearest_word(str(details["tag"]), allowed)
    return f"must be {either(allowed)}, {_not(details['tag'])}; write {either([meant] if meant else allowed)}"


def _too_few(value: object, details: Details, node: Node) -> str:
    return f"is empty; write at least {details['min_length']} entry"


def _bound(words: str, limit: str) -> Callable[[object, Details, Node], str]:
    def tell(value: object, details: Details, node: Node) -> str:
        return f"must be {words} {details[limit]:.15g}, {_not(value)}; write such a number"

    return tell


def _not(value: object) -> str:
    """'not 5', and for what stands empty the reason why it is null."""
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
    "union_tag_not_found": _tag_missing,
    "union_tag_invalid": _tag_unknown,
    "too_short": _too_few,
    "greater_than": _bound("more than", "gt"),
    "greater_than_equal": _bound("at least", "ge"),
    "less_than_equal": _bound("at most", "le"),
}
