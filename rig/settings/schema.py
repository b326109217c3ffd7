"""The settings' JSON Schema: for editors, for near matches of keys, and for values of `--data`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from rig.settings.tree import Node, Step

Schema = dict[str, Any]


def known_keys(schema: Schema, root: Node, path: Sequence[Step]) -> dict[str, str]:
    """Keys of the mapping at `path`, with their descriptions; none if names are free."""
    return {
        key: _description(schema, member)
        for variant in variants_at(schema, root, path)
        for key, member in variant.get("properties", {}).items()
    }


def types_at(schema: Schema, root: Node, path: Sequence[Step]) -> set[str]:
    """JSON types of the value at `path`."""
    return {variant["type"] for variant in variants_at(schema, root, path) if "type" in variant}


def variants_at(schema: Schema, root: Node, path: Sequence[Step]) -> list[Schema]:
    """Schemas for the value at `path`; `root` decides between kinds of mappings (engine runtimes)."""
    found = list(_variants(schema, schema, root))
    node: Node | None = root
    for step in path:
        node = None if node is None else node.child(step)
        found = [
            variant for above in found for member in _member(above, step) for variant in _variants(schema, member, node)
        ]
    return found


def _description(whole: Schema, schema: Schema) -> str:
    """The meaning of a key: its own description, or that of the type behind it."""
    said = (schema, *_variants(whole, schema, None))
    return next((str(part["description"]) for part in said if "description" in part), "")


def _member(schema: Schema, step: Step) -> Iterator[Schema]:
    """The schema of one key or item."""
    if isinstance(step, int):
        yield from [schema["items"]] if isinstance(schema.get("items"), dict) else []
    elif step in schema.get("properties", {}):
        yield schema["properties"][step]
    elif isinstance(schema.get("additionalProperties"), dict):
        yield schema["additionalProperties"]
    else:
        yield from list(schema.get("patternProperties", {}).values())[:1]


def _variants(whole: Schema, schema: Schema, node: Node | None) -> Iterator[Schema]:
    """A schema with references resolved and alternatives expanded."""
    if "$ref" in schema:
        yield from _variants(whole, whole["$defs"][schema["$ref"].rsplit("/", 1)[1]], node)
        return
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    if alternatives is None:
        yield schema
        return
    chosen = _chosen(schema, node)
    for alternative in alternatives if chosen is None else [{"$ref": chosen}]:
        yield from _variants(whole, alternative, node)


def _chosen(schema: Schema, node: Node | None) -> str | None:
    """The reference that the discriminating key of the mapping selects, if any."""
    discriminator = schema.get("discriminator")
    kind = None if discriminator is None or node is None else node.child(discriminator["propertyName"])
    if discriminator is None or kind is None:
        return None
    reference: str | None = discriminator["mapping"].get(str(kind.value))
    return reference


def editor_schema(model: type[BaseModel], title: str, defaults: Any = None) -> Schema:
    """The schema for editors: any part may be written alone; defaults are those of all.yml."""
    whole = model.model_json_schema()
    schema = _inlined(whole, whole)
    _set_defaults(schema, defaults)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title}


def _inlined(whole: Schema, schema: Any) -> Any:
    """A schema without references, titles and required keys; a type may have another default elsewhere."""
    if isinstance(schema, list):
        return [_inlined(whole, part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        target = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]]
        return _inlined(whole, {**target, **{key: part for key, part in schema.items() if key != "$ref"}})
    dropped = {"$defs", "required", "discriminator"} | ({"title"} if isinstance(schema.get("title"), str) else set())
    renamed = {"oneOf": "anyOf"}
    return {renamed.get(key, key): _inlined(whole, part) for key, part in schema.items() if key not in dropped}


def _set_defaults(schema: Schema, defaults: Any) -> None:
    """Write `defaults` at every key of the schema that is not a mapping of fixed keys itself."""
    for key, member in schema.get("properties", {}).items():
        if not isinstance(defaults, dict) or key not in defaults:
            continue
        if "properties" in member:
            _set_defaults(member, defaults[key])
        else:
            member["default"] = defaults[key]
