"""Pins of models: revisions, sizes and hashes from the hub for files without them, written into the YAML."""

from __future__ import annotations

import hashlib
import re
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any
from urllib.parse import quote

import requests
from requests.auth import AuthBase
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from rig.settings.problems import SettingsError
from rig.settings.tree import Node, parse, plain
from rigd.models.gguf import parts
from rigd.models.hub import busy, refused, renamed, rest

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
TOKEN = re.compile(r"[!-~]+")
TIMEOUT = 30
"""Time limit in seconds for an answer of the hub."""
ATTEMPTS = 4
"""Requests to a busy hub."""
LONGEST_REST = 60.0
"""Longest wait between two of them, in seconds."""
PAGES = 100
"""Most pages of a list of files."""
NEEDED = (".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".txt")
"""Suffixes of the files that an engine reads: weights, configurations, the chat template, vocabularies."""
TWICE = "consolidated"
"""Prefix of a second copy of the weights, in their maker's own layout."""
NULL = "tag:yaml.org,2002:null"
VERSION_KEYS = ("revision", "file", "size", "sha256", "files")


class CannotLock(Exception):
    """The entry cannot be pinned; the message has the reason and the remedy."""


class CannotAsk(CannotLock):
    """The hub does not provide the answer."""


@dataclass(frozen=True)
class Pinned:
    """One file of a repository."""

    file: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Pin:
    """A version of a model, identified by its revision and its files."""

    revision: str
    files: tuple[Pinned, ...]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Entry:
    """One entry of models.catalogue in the file."""

    name: str
    node: Node

    def said(self, key: str) -> str | None:
        """A value as it was typed."""
        found = self.node.child(key)
        return None if found is None else found.text

    @property
    def whole(self) -> bool:
        """Whether its pin is a list of files: those of a repository, or the parts of a model."""
        return self.node.child("files") is not None or bool(parts(self.said("file") or ""))

    @property
    def pinned(self) -> bool:
        """Whether its pin is complete."""
        files = self.node.child("files")
        shapes = {"revision": COMMIT, "size": re.compile(r"[0-9]+")} | ({} if files else {"sha256": SHA256})
        known = bool(files.value) if files is not None else not self.whole
        return known and all(shape.fullmatch(self.said(key) or "") for key, shape in shapes.items())

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file of the current version, by name; empty unless all of them, revision and size are known.

        As typed: YAML reads digits alone as a number.
        """
        files = self.node.child("files")
        listed = files.value if files is not None and isinstance(files.value, list) else [self.node]
        named = {_text(file, "file"): _text(file, "sha256") for file in listed}
        complete = all(_text(self.node, key) for key in ("revision", "size"))
        return named if complete and all(SHA256.fullmatch(digest) for digest in named.values()) else {}

    @property
    def goes_back(self) -> bool:
        """Whether it serves its previous version."""
        return self.said("use") == "previous" and self.node.child("previous") is not None


def locked(text: str, shown: str, pins: Mapping[str, Pin]) -> str:
    """The file's text with all pins. Raises CannotLock."""
    for name, pin in pins.items():
        # Parsed again each time, as an added line moves those below it.
        (entry,) = entries(parse(text, shown), [name])
        text = edited(text, entry, pin)
        _require_said(text, shown, name, pin)
    return text


def _require_said(text: str, shown: str, name: str, pin: Pin) -> None:
    """Verify the edited lines: parsed, they must give the pin. Raises CannotLock."""
    try:
        (entry,) = entries(parse(text, shown), [name])
    except SettingsError as error:
        raise CannotLock(f"the lines of {name} in {shown} cannot be edited; write a line for each key") from error
    said = plain(entry.node)
    files = [{"file": file.file, "size": file.size, "sha256": file.sha256} for file in pin.files]
    found = said.get("files") if entry.whole else [{key: said.get(key) for key in ("file", "size", "sha256")}]
    if (said.get("revision"), said.get("size"), found) != (pin.revision, pin.size, files):
        raise CannotLock(f"{_place(entry)} cannot be edited as it is written; write a line for each of its keys")


def entries(tree: Node, names: Sequence[str]) -> list[Entry]:
    """The entries to pin: those with these names, or without names all unpinned ones. Raises CannotLock."""
    catalogue = tree.at(("models", "catalogue"))
    there = catalogue.value if catalogue is not None and isinstance(catalogue.value, dict) else {}
    for name in names:
        if name not in there:
            raise CannotLock(f"models.catalogue of {tree.file} has no {name}; write repository and file of it there")
    found = [Entry(name, node) for name, node in there.items() if not names or name in names]
    return [entry for entry in found if names or not entry.pinned]


# Requests to the hub


def ask(hub: str, entry: Entry, revision: str | None, token: str | None) -> Pin:
    """The hub's current pin for the entry, at its own branch or at another revision. Raises CannotLock."""
    repository, file = entry.said("repository"), entry.said("file")
    if not repository or not (file or entry.whole):
        raise CannotLock(f"{_place(entry)}: repository and file are needed; write both, or files: [] for all of it")
    if token and not TOKEN.fullmatch(token):
        # The message does not show the token.
        raise CannotLock("HF_TOKEN holds a blank, a line break or a letter that no token has; set it again")
    at = _Revision(hub, repository, revision or entry.said("revision") or "main", token)
    if file is None:
        return at.repository_pin()
    return at.parts_pin(parts(file)) if parts(file) else at.file_pin(file)


@dataclass(frozen=True)
class _Revision:
    """A repository at a revision of a hub."""

    hub: str
    repository: str
    revision: str
    token: str | None

    def file_pin(self, file: str) -> Pin:
        """One file's pin, from the headers of the hub's answer: nothing is downloaded."""
        commit, headers = self._promise(file)
        size = headers.get("X-Linked-Size", "")
        digest = headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
        if not (SHA256.fullmatch(digest) and size.isdecimal()):
            raise CannotAsk(f"the hub does not say size and hash of {self._url(file)}; write them yourself")
        return Pin(commit, (Pinned(file, int(size), digest),))

    def parts_pin(self, files: Sequence[str]) -> Pin:
        """All parts of a model, at the commit of the first one."""
        first = self.file_pin(files[0])
        at = replace(self, revision=first.revision)
        return Pin(first.revision, (*first.files, *(at.file_pin(file).files[0] for file in files[1:])))

    def repository_pin(self) -> Pin:
        """The files that an engine needs. Small ones have only git's hash on the hub: they are read and hashed."""
        listed = [entry for entry in self._tree(self.revision) if needed(entry.get("path", ""))]
        if not any(entry["path"].endswith(".safetensors") for entry in listed):
            raise CannotAsk(f"{self.repository} at {self.revision} has no *.safetensors; is it a model for vLLM?")
        commit, _ = self._promise(listed[0]["path"])
        at = replace(self, revision=commit)
        listed = [entry for entry in at._tree(commit) if needed(entry.get("path", ""))]
        return Pin(commit, tuple(at._pinned(entry) for entry in sorted(listed, key=lambda entry: str(entry["path"]))))

    def _pinned(self, entry: Mapping[str, Any]) -> Pinned:
        path = str(entry["path"])
        large = entry.get("lfs")
        if large:
            size, digest = large.get("size"), str(large.get("oid"))
            if not isinstance(size, int) or not SHA256.fullmatch(digest):
                raise CannotAsk(f"the hub does not say size and hash of {self._url(path)}; write them yourself")
            return Pinned(path, size, digest)
        content = self._request("GET", self._url(path), path, follow=True).content
        # git's name of a blob: SHA-1 of a header and the content.
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if blob != entry.get("oid"):
            raise CannotAsk(f"{self._url(path)} is not what the hub lists; ask again, or find out who changed it")
        return Pinned(path, len(content), hashlib.sha256(content).hexdigest())

    def _tree(self, revision: str) -> list[dict[str, Any]]:
        """The hub's whole list of files, page by page."""
        url: str | None = f"{self.hub}/api/models/{self.repository}/tree/{revision}?recursive=true"
        found: list[dict[str, Any]] = []
        for _ in range(PAGES):
            if url is None:
                break
            answer = self._request("GET", url, "the list of files", follow=True)
            try:
                page = answer.json()
            except ValueError:
                page = None
            if not isinstance(page, list) or not all(isinstance(entry, dict) for entry in page):
                raise CannotAsk(f"{self.hub} answers with no list of files; is models.hub the address of a hub?")
            found += page
            url = answer.links.get("next", {}).get("url")
            if url is not None and not url.startswith(f"{self.hub}/"):
                # Only the hub may get the token.
                raise CannotAsk(f"{self.hub} leads elsewhere for the list of files; set HF_ENDPOINT to that address")
        return found

    def _promise(self, file: str) -> tuple[str, Mapping[str, str]]:
        """The commit of a file, and the headers of the hub's answer."""
        answer = self._request("HEAD", self._url(file), file, follow=False)
        commit = answer.headers.get("X-Repo-Commit", "")
        if not COMMIT.fullmatch(commit):
            raise CannotAsk(f"the hub does not say the commit of {self._url(file)}; write it yourself")
        return commit, answer.headers

    def _url(self, file: str) -> str:
        return f"{self.hub}/{self.repository}/resolve/{self.revision}/{quote(file)}"

    def _request(self, method: str, url: str, what: str, follow: bool) -> requests.Response:
        answer = self._answer(method, url, follow)
        reached = answer.headers.get("Location", "") if answer.is_redirect else answer.url
        if (other := renamed(reached, self.repository)) is not None:
            raise CannotAsk(f"{self.repository} is called {other} now; write that as its repository")
        if (refusal := refused(answer.headers, self.repository, self.revision, what)) is not None:
            raise CannotAsk(f"{self.hub} answers {answer.status_code}: {refusal}")
        if answer.status_code in (401, 403):
            page = f"{self.hub}/{self.repository}"
            raise CannotAsk(f"{self.repository} is gated: accept its licence at {page}, and set HF_TOKEN")
        if answer.status_code >= 400:
            raise CannotAsk(
                f"{self.hub} answers {answer.status_code} for {what} of {self.repository} at {self.revision}; "
                "check all three"
            )
        return answer

    def _answer(self, method: str, url: str, follow: bool) -> requests.Response:
        """A final answer: a busy hub gets a pause as long as it wants, but no longer than a minute."""
        for attempt in range(ATTEMPTS):
            try:
                answer = requests.request(
                    method,
                    url,
                    auth=_Token(self.token),
                    timeout=TIMEOUT,
                    allow_redirects=follow,
                )
            except requests.RequestException as error:
                raise CannotAsk(f"{self.hub} does not answer ({type(error).__name__}); is models.hub right?") from None
            if not busy(answer.status_code):
                return answer
            wanted = rest(answer.headers) or 2.0**attempt
            if attempt + 1 == ATTEMPTS or wanted > LONGEST_REST:
                break
            time.sleep(wanted)
        raise CannotAsk(f"{self.hub} is busy ({answer.status_code}); run this again in {wanted:.0f} s or later")


class _Token(AuthBase):
    """The owner's token, or none; requests would otherwise use a password of ~/.netrc."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def needed(path: str) -> bool:
    """Whether an engine reads a file of a repository: weights, configuration and tokenizer, at its top.

    Folders are left out: they hold other formats of the same weights (original/, onnx/).
    """
    return "/" not in path and path.endswith(NEEDED) and not path.startswith(TWICE)


# Edits of the file


def edited(text: str, entry: Entry, pin: Pin) -> str:
    """The file's text with the pin in the entry; every other line stays as it is. Raises CannotLock.

    The served version becomes the previous one when its files differ. Files are compared by their hashes, whatever the
    revision, so without a commit, too. Only the entry's own lines go through a YAML writer, which keeps its comments
    but not every blank, so that nobody's file is reformatted.
    """
    lines = text.splitlines(keepends=True)
    if entry.node.line is None:
        raise CannotLock(f"{_place(entry)} has no line of its own; write it with a line for each of its keys")
    start = _start(lines, entry)
    end = next(
        (
            number
            for number, line in enumerate(lines)
            if number > start and line.strip() and _indent(line) <= _indent(lines[start])
        ),
        len(lines),
    )
    # Blank lines after the entry are not part of it.
    while not lines[end - 1].strip():
        end -= 1
    margin = " " * _indent(lines[start])
    yaml = _writer()
    try:
        document = yaml.load(textwrap.dedent("".join(lines[start:end])))
        block = document[entry.name]
        _pin(block, entry, pin)
        out = StringIO()
        yaml.dump(document, out)
    except (YAMLError, KeyError, TypeError, AttributeError):
        raise CannotLock(f"{_place(entry)} cannot be edited as it is written; write a line for each key") from None
    return "".join([*lines[:start], textwrap.indent(out.getvalue(), margin), *lines[end:]])


def _start(lines: list[str], entry: Entry) -> int:
    """The index of the line with the entry's name; its mapping begins there or on the next. Raises CannotLock."""
    assert entry.node.line is not None
    for number in range(entry.node.line - 1, -1, -1):
        if re.match(rf"""\s*['"]?{re.escape(entry.name)}['"]?\s*:""", lines[number]):
            return number
    raise CannotLock(f"{_place(entry)} cannot be edited as it is written; write a line for each key")


def _writer() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10**6
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda writer, _: writer.represent_scalar(NULL, "null"))
    return yaml


def _pin(block: CommentedMap, entry: Entry, pin: Pin) -> None:
    """Put a pin into the entry's mapping."""
    before = CommentedMap((key, block[key]) for key in VERSION_KEYS if key in block)
    digests = {file.file: file.sha256 for file in pin.files}
    _put(block, "revision", pin.revision)
    _put(block, "size", pin.size)
    if entry.whole:
        files = CommentedSeq(CommentedMap(file=f.file, size=f.size, sha256=f.sha256) for f in pin.files)
        for file in files:
            file.fa.set_flow_style()
        _put(block, "files", files)
    else:
        _put(block, "sha256", pin.files[0].sha256)
    if entry.hashes and entry.hashes != digests:
        if not entry.goes_back:
            _put(block, "previous", before)
        if entry.said("use") is not None:
            _put(block, "use", "current")


def _put(block: CommentedMap, key: str, value: object) -> None:
    """Set a key; a new one goes after the keys of the version."""
    if key in block or not (last := [name for name in block if name in VERSION_KEYS]):
        block[key] = value
    else:
        block.insert(list(block).index(last[-1]) + 1, key, value)


def _text(node: Node, key: str) -> str:
    """A value as it was typed; empty if it is missing or null."""
    found = node.child(key)
    return "" if found is None or found.value is None else found.text or ""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def hub_of(tree: Node) -> str:
    """The settings' hub. Raises CannotLock."""
    found = tree.at(("models", "hub"))
    address = None if found is None else plain(found)
    if not isinstance(address, str):
        raise CannotLock(f"models.hub is missing in {tree.file}; write it there, or set HF_ENDPOINT")
    return address


def _place(entry: Entry) -> str:
    return f"{entry.node.file}:{entry.node.line}: models.catalogue.{entry.name}"
