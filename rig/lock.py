"""Pins of models: what the hub says of files that the settings name by branch or without a hash, put into the YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import requests

from rig.settings.problems import show
from rig.settings.tree import Node, parse, plain

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
TIMEOUT = 30
"""Seconds that the hub may take to answer."""


class CannotLock(Exception):
    """The message says why, and what to do."""


class CannotAsk(CannotLock):
    """The hub does not say it."""


@dataclass(frozen=True)
class Pin:
    """What makes a file of the hub unmistakable."""

    revision: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One entry of models.catalogue, as it stands in the file."""

    name: str
    node: Node

    def said(self, key: str) -> str | None:
        """A value as it was typed."""
        found = self.node.child(key)
        return None if found is None else found.text

    @property
    def pinned(self) -> bool:
        """Whether it lacks nothing."""
        shapes = {"revision": COMMIT, "size": re.compile(r"[0-9]+"), "sha256": SHA256}
        return all(shape.fullmatch(self.said(key) or "") for key, shape in shapes.items())


def locked(text: str, shown: str, pins: Mapping[str, Pin]) -> str:
    """The file's text with all pins in it. Raises CannotLock."""
    for name, pin in pins.items():
        # Read anew each time, as a line that is added moves those below it.
        (entry,) = entries(parse(text, shown), [name])
        text = edited(text, entry, pin)
    return text


def entries(tree: Node, names: Sequence[str]) -> list[Entry]:
    """The entries to pin: those of these names, or without names all that are not pinned yet. Raises CannotLock."""
    catalogue = tree.at(("models", "catalogue"))
    there = catalogue.value if catalogue is not None and isinstance(catalogue.value, dict) else {}
    for name in names:
        if name not in there:
            raise CannotLock(f"models.catalogue of {tree.file} has no {name}; write repository and file of it there")
    found = [Entry(name, node) for name, node in there.items() if not names or name in names]
    return [entry for entry in found if names or not entry.pinned]


def ask(hub: str, entry: Entry, revision: str | None, token: str | None) -> Pin:
    """What the hub has now, at the entry's branch or at another revision. Raises CannotLock."""
    repository, file = entry.said("repository"), entry.said("file")
    if not repository or not file:
        raise CannotLock(f"{_place(entry)}: repository and file are needed; write both")
    at = revision or entry.said("revision") or "main"
    url = f"{hub}/{repository}/resolve/{at}/{file}"
    try:
        answer = requests.head(
            url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=TIMEOUT,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise CannotAsk(f"{hub} does not answer ({type(error).__name__}); is models.hub right?") from None
    if answer.status_code in (401, 403):
        raise CannotAsk(f"{repository} is gated: accept its licence at {hub}/{repository}, and set HF_TOKEN")
    if answer.status_code >= 400:
        raise CannotAsk(
            f"{hub} answers {answer.status_code} for {file} of {repository} at {at}; are these three right?"
        )
    return _pin(url, answer)


def _pin(url: str, answer: requests.Response) -> Pin:
    commit = answer.headers.get("X-Repo-Commit", "")
    size = answer.headers.get("X-Linked-Size", "")
    digest = answer.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
    if not (COMMIT.fullmatch(commit) and SHA256.fullmatch(digest) and size.isdecimal()):
        raise CannotAsk(f"the hub does not say commit, size and hash of {url}; write them yourself")
    return Pin(commit, int(size), digest)


def edited(text: str, entry: Entry, pin: Pin) -> str:
    """The file's text with the pin in the entry; everything else, comments too, stays as it is. Raises CannotLock."""
    lines = text.splitlines(keepends=True)
    values = {"revision": pin.revision, "size": str(pin.size), "sha256": pin.sha256}
    file = entry.node.child("file")
    assert file is not None and file.line is not None
    indent = re.match(r" *", lines[file.line - 1])
    assert indent is not None
    missing = []
    for key, value in values.items():
        node = entry.node.child(key)
        if node is None:
            missing.append(f"{indent[0]}{key}: {value}\n")
        else:
            assert node.line is not None
            lines[node.line - 1] = _with_value(lines[node.line - 1], key, value, entry)
    if not re.match(r" *file:", lines[file.line - 1]):
        raise CannotLock(f"{_place(entry)} stands on one line; write a line for each of its keys")
    return "".join([*lines[: file.line], *missing, *lines[file.line :]])


def _with_value(line: str, key: str, value: str, entry: Entry) -> str:
    match = re.fullmatch(rf"( *{key}: *)([^\s#]*)(.*\n?)", line)
    if match is None:
        raise CannotLock(f"{_place(entry)}.{key} is written as {show(line.strip())}; write '{key}: value' on a line")
    return f"{match[1]}{value}{match[3]}"


def hub_of(tree: Node) -> str:
    """The hub that the file names. Raises CannotLock."""
    found = tree.at(("models", "hub"))
    address = None if found is None else plain(found)
    if not isinstance(address, str):
        raise CannotLock(f"models.hub is missing in {tree.file}; write it there, or set HF_ENDPOINT")
    return address


def _place(entry: Entry) -> str:
    return f"{entry.node.file}:{entry.node.line}: models.catalogue.{entry.name}"
