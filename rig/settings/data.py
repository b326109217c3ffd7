"""Single settings on pyinfra's command line as `--data key=value`, merged over all files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rig.settings.problems import Problem, SettingsError
from rig.settings.schema import Schema, known_keys, types_at
from rig.settings.tree import Node, is_text, merge, parse_scalar
from rig.settings.words import either, nearest_word

SOURCE = "--data"
JSON_TYPES = {bool: "boolean", int: "integer", float: "number", type(None): "null", str: "string"}


def data_arguments(arguments: Sequence[str]) -> dict[str, str]:
    """Settings on pyinfra's command line, as typed: pyinfra itself would turn 1.10 into 1.1.

    `ssh_...` and `_...` are left out: they are pyinfra's own.
    """
    given: dict[str, str] = {}
    for option, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if option == "--":
            break
        written = following if option == SOURCE else option.removeprefix(f"{SOURCE}=")
        key, equals, value = written.partition("=")
        if option.partition("=")[0] == SOURCE and equals and not key.startswith(("ssh_", "_")):
            given[key] = value
    return given


def lay_on(settings: Node, dotted: str, text: str, schema: Schema) -> Node:
    """The settings with one typed value on top. Raises SettingsError if the key cannot take one."""
    if not is_text(text):
        raise SettingsError([Problem(SOURCE, None, dotted, "is not UTF-8 text; write it as such")])
    path = _split(settings, dotted, schema)
    if path is None:
        raise SettingsError([Problem(SOURCE, None, dotted, _unknown(settings, dotted, schema))])
    replaced = settings.at(path)
    if replaced is not None and isinstance(replaced.value, dict | list):
        sentence = f"holds several values and {SOURCE} gives one; write it in group_data"
        raise SettingsError([Problem(SOURCE, None, dotted, sentence)])
    wanted = types_at(schema, settings, path) or _types_of(replaced)
    over = _as_wanted(parse_scalar(text, SOURCE), wanted)
    for key in reversed(path):
        over = Node({key: over}, SOURCE)
    return merge(settings, over)


def _split(settings: Node, dotted: str, schema: Schema, above: tuple[str, ...] = ()) -> tuple[str, ...] | None:
    """The keys of a dotted path, None if unknown; keys themselves may have dots (vm.swappiness), hence the search."""
    here = settings.at(above)
    written = here.value if here is not None and isinstance(here.value, dict) else {}
    for key in sorted({*written, *known_keys(schema, settings, above)}, key=len, reverse=True):
        if dotted == key:
            return (*above, key)
        if dotted.startswith(f"{key}."):
            found = _split(settings, dotted.removeprefix(f"{key}."), schema, (*above, key))
            if found is not None:
                return found
    return None


def _unknown(settings: Node, dotted: str, schema: Schema) -> str:
    """The sentence for an unknown path: near matches at the point where it leaves the known ones."""
    steps = dotted.split(".")
    for count in range(len(steps) - 1, 0, -1):
        known = ".".join(steps[:count])
        above = _split(settings, known, schema)
        if above is None:
            continue
        here = settings.at(above)
        written = here.value if here is not None and isinstance(here.value, dict) else {}
        beside = [*{**known_keys(schema, settings, above), **written}]
        rest = ".".join(steps[count:])
        meant = nearest_word(rest, beside) or nearest_word(steps[count], beside)
        if meant is not None:
            return f"unknown key; write {known}.{meant}"
        return f"unknown key; write {either(beside)} below {known}" if beside else f"unknown key; write {known} alone"
    meant = nearest_word(dotted, _dotted_paths(settings)) or "a path such as machine.timezone"
    return f"unknown key; write {meant}"


def _dotted_paths(node: Node, above: str = "") -> Iterator[str]:
    """Every path to a value that is not a mapping."""
    if not isinstance(node.value, dict):
        yield above
        return
    for key, child in node.value.items():
        yield from _dotted_paths(child, f"{above}.{key}" if above else key)


def _types_of(node: Node | None) -> set[str]:
    """The type of a value whose key accepts anything."""
    return set() if node is None or isinstance(node.value, dict | list) else {JSON_TYPES[type(node.value)]}


def _as_wanted(node: Node, wanted: set[str]) -> Node:
    """A typed value as the type of its key: 1.10 stays text if the key wants text."""
    given = _types_of(node)
    fits = given & wanted or ("number" in wanted and "integer" in given)
    return node if fits or "string" not in wanted else Node(node.text, node.file, text=node.text)
