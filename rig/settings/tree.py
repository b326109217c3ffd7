"""YAML with the position of each value, and the merging of files."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rig.settings.problems import UNSEEN, Problem, SettingsError, show

Scalar = str | int | float | bool | None
Step = str | int

OWN_TAGS = "tag:yaml.org,2002:"
SCALAR_TAGS = {OWN_TAGS + kind for kind in ("str", "int", "float", "bool", "null")}
KNOWN_TAGS = {yaml.MappingNode: {f"{OWN_TAGS}map"}, yaml.SequenceNode: {f"{OWN_TAGS}seq"}, yaml.ScalarNode: SCALAR_TAGS}
DEEPEST = 50
"""Most levels of nested mappings and lists, more than any settings have."""
NO_TEXT = "holds half of a character (a surrogate); write whole ones"
LARGEST = 2**63
"""Upper bound of all numbers in the settings; results computed from smaller ones stay within machine arithmetic."""


@dataclass(frozen=True, slots=True)
class Node:
    """A YAML value with the file and line of its key; `text` is a scalar as it was typed.

    ``broken``: it could not be read, which has been reported, so no other problem of it is reported.
    """

    value: Scalar | dict[str, Node] | list[Node]
    file: str
    line: int | None = None
    text: str | None = None
    broken: bool = False

    def child(self, step: Step) -> Node | None:
        """The value one step down, or None."""
        if isinstance(self.value, dict):
            return self.value.get(str(step))
        if isinstance(self.value, list) and isinstance(step, int) and step < len(self.value):
            return self.value[step]
        return None

    def at(self, path: Sequence[Step]) -> Node | None:
        """The value at `path`, or None."""
        node: Node | None = self
        for step in path:
            node = None if node is None else node.child(step)
        return node

    def nearest(self, path: Sequence[Step]) -> Node:
        """The value at `path`, or its last existing parent: a missing key belongs there."""
        return self.at(path) or self.nearest(path[:-1])

    def problem(self, path: Sequence[Step], message: str) -> Problem:
        """A problem of the value at `path`, placed where that value was written."""
        node = self.nearest(path)
        return Problem(node.file, node.line, ".".join(str(step) for step in path), message)


def plain(node: Node) -> Any:
    """The bare value, without positions."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def merge(base: Node, over: Node) -> Node:
    """`over` merged over `base`: mappings merge key by key, all else (lists and null too) is replaced whole.

    A merged mapping keeps the lower one's place: a key missing in both belongs there.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    merged = dict(base.value)
    for key, child in over.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, base.file, base.line)


def replaced(root: Node, path: Sequence[Step], value: Scalar) -> Node:
    """The same tree with another scalar at `path`, whose last step may be new to a mapping."""
    if not path:
        return Node(value, root.file, root.line, None if value is None else str(value))
    step, below = path[0], path[1:]
    if isinstance(root.value, list) and isinstance(step, int):
        items = [replaced(item, below, value) if at == step else item for at, item in enumerate(root.value)]
        return Node(items, root.file, root.line)
    members = dict(root.value) if isinstance(root.value, dict) else {}
    members[str(step)] = replaced(members.get(str(step), Node(None, root.file, root.line)), below, value)
    return Node(members, root.file, root.line)


def read(path: Path, shown: str) -> Node:
    """The mapping in a YAML file; `shown` is its name in problems. Raises SettingsError."""
    root, problems = read_what_can_be(path, shown)
    if problems:
        raise SettingsError(problems)
    return root


def read_what_can_be(path: Path, shown: str) -> tuple[Node, list[Problem]]:
    """The mapping in a YAML file, with broken nodes for unreadable values, and the problems of these.

    Raises SettingsError if nothing can be read.
    """
    try:
        written = path.read_bytes()
        text = written.decode("utf-8")
    except FileNotFoundError:
        raise SettingsError([Problem(shown, None, "", "the file is missing; create it or restore it")]) from None
    except UnicodeDecodeError as error:
        line = written.count(b"\n", 0, error.start) + 1
        sentence = f"has the byte 0x{written[error.start]:02x}, which is not UTF-8 text; save the file as UTF-8"
        raise SettingsError([Problem(shown, line, "", sentence)]) from None
    except OSError as error:
        sentence = f"cannot be read ({error.strerror}); make it readable"
        raise SettingsError([Problem(shown, None, "", sentence)]) from None
    return parse_what_can_be(text, shown)


def parse(text: str, shown: str) -> Node:
    """The mapping in a YAML text, with positions. Raises SettingsError with every problem of the file."""
    root, problems = parse_what_can_be(text, shown)
    if problems:
        raise SettingsError(problems)
    return root


def parse_what_can_be(text: str, shown: str) -> tuple[Node, list[Problem]]:
    """The mapping in a YAML text, with broken nodes, and the problems of these. Raises SettingsError if all is lost."""
    forbidden = yaml.reader.Reader.NON_PRINTABLE.search(text)
    if forbidden is not None:
        line = text.count("\n", 0, forbidden.start()) + 1
        sentence = f"has the character U+{ord(forbidden[0]):04X}, which YAML does not allow; remove it"
        raise SettingsError([Problem(shown, line, "", sentence)])
    try:
        reader = _Reader(text, shown)
        root = reader.document()
    except yaml.YAMLError as error:
        raise SettingsError([_syntax_problem(error, shown)]) from None
    if not isinstance(root.value, dict):
        sentence = f"must be a mapping, not {show(plain(root))}; write lines of the form 'key: value'"
        raise SettingsError([*reader.problems, Problem(shown, root.line, "", sentence)])
    return root, reader.problems


def parse_scalar(text: str, shown: str) -> Node:
    """A single value from a command line, read by YAML's rules; text if YAML refuses it."""
    try:
        reader = _Reader(text, shown)
        node = reader.document()
    except yaml.YAMLError:
        return Node(text, shown, text=text)
    value = node.value if text.strip() and not reader.problems else text
    return Node(value, shown, text=text)


class _Loader(yaml.SafeLoader):
    """YAML without dates (they stay text), without aliases (a value has one place), and with limited depth."""

    depth = 0

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, shape) for tag, shape in resolvers if tag != f"{OWN_TAGS}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported", mark)
        if self.depth == DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"more than {DEEPEST} levels lie in each other", mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Reader:
    """Turns one YAML text into nodes and collects the problems of its keys."""

    def __init__(self, text: str, shown: str) -> None:
        self.loader = _Loader(text)
        self.shown = shown
        self.problems: list[Problem] = []

    def document(self) -> Node:
        root = self.loader.get_single_node()
        # Comments alone, also after the three dashes that some editors begin a file with.
        if root is None or (isinstance(root, yaml.ScalarNode) and root.value == ""):
            return Node({}, self.shown, 1)
        return self.convert(root, root.start_mark.line + 1, ())

    def convert(self, node: Any, line: int, path: tuple[Step, ...]) -> Node:
        if node.tag not in KNOWN_TAGS[type(node)]:
            tag = node.tag.replace(OWN_TAGS, "!!")
            self.complain(line, path, f"the tag {tag} is not supported; remove it")
            return Node(None, self.shown, line, broken=True)
        if isinstance(node, yaml.MappingNode):
            return Node(self.mapping(node, path), self.shown, line)
        if isinstance(node, yaml.SequenceNode):
            items = [
                self.convert(item, item.start_mark.line + 1, (*path, index)) for index, item in enumerate(node.value)
            ]
            return Node(items, self.shown, line)
        known = len(self.problems)
        value = self.scalar(node, line, path)
        return Node(value, self.shown, line, node.value, broken=len(self.problems) > known)

    def mapping(self, node: yaml.MappingNode, path: tuple[Step, ...]) -> dict[str, Node]:
        members: dict[str, Node] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.key(key_node, line, path)
            if key is None:
                continue
            if key in members:
                sentence = f"stands here a second time (first on line {members[key].line}); remove one of the two"
                self.complain(line, (*path, key), sentence)
                continue
            members[key] = self.convert(value_node, line, (*path, key))
        return members

    def key(self, node: Any, line: int, path: tuple[Step, ...]) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self.complain(line, path, "a key must be a single word; write 'key: value'")
            return None
        if not is_text(node.value):
            self.complain(line, path, f"the key {show(node.value)} {NO_TEXT}")
            return None
        unseen = next((c for c in node.value if unicodedata.category(c) in UNSEEN), None)
        if unseen is not None:
            self.complain(line, path, f"the key {show(node.value)} holds U+{ord(unseen):04X}; write visible letters")
            return None
        if node.tag != f"{OWN_TAGS}str":
            self.complain(line, (*path, node.value), f'YAML does not read this key as text; write "{node.value}"')
            return None
        return str(node.value)

    def scalar(self, node: Any, line: int, path: tuple[Step, ...]) -> Scalar:
        if not is_text(node.value):
            self.complain(line, path, f"the value {show(node.value)} {NO_TEXT}")
            return None
        try:
            value: Scalar = self.loader.construct_object(node)
        except (ValueError, LookupError):
            # A tag (!!bool x) that does not fit its value.
            self.complain(line, path, f"the value {show(node.value)} cannot be read; write it in quotes")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self.complain(line, path, "must be a finite number; write one")
            return None
        if isinstance(value, int) and abs(value) >= LARGEST:
            self.complain(line, path, "is too large for a number; write a smaller one, or text in quotes")
            return None
        return value

    def complain(self, line: int, path: tuple[Step, ...], sentence: str) -> None:
        self.problems.append(Problem(self.shown, line, ".".join(str(step) for step in path), sentence))


def is_text(value: str) -> bool:
    """Whether any file can hold it: YAML's "\\ud800" is half of a character, which none can."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _syntax_problem(error: yaml.YAMLError, shown: str) -> Problem:
    """The YAML parser's error, in a sentence."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Problem(shown, None, "", "is not YAML; write lines of the form 'key: value'")
    line = error.problem_mark.line + 1
    reason = error.problem or "unknown"
    if r"'\t'" in reason:
        return Problem(shown, line, "", "a tab stands where YAML wants spaces; replace it by spaces")
    if "another document" in reason or "<document start>" in reason:
        sentence = "a second YAML document begins here, which nothing reads; remove the line '---' or '...' before it"
        return Problem(shown, line, "", sentence)
    if "levels" in reason:
        return Problem(shown, line, "", f"{reason}; write it with fewer")
    if "alias" in reason:
        return Problem(shown, line, "", f"{reason}; write the value out")
    sentence = f"is not YAML here ({reason}); check indentation, colons and quotes on this line and the one before"
    return Problem(shown, line, "", sentence)
