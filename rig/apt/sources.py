"""apt's source entries on a machine, and the key ring that ours may name beside them. Plain functions of texts.

apt reads no package list at all where two entries name one repository with different options (apt 2.6.1 and 3.0.4): the
same suite at the same address, whatever the scheme, a slash at its end, the components, the architectures and the type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rig.apt import openpgp

TRUST = (
    "trusted",
    "check-valid-until",
    "valid-until-min",
    "valid-until-max",
    "check-date",
    "date-max-future",
    "inrelease-path",
)
"""Further options that must be equal in all entries of a repository; ours set none of them."""
INLINE = "-----BEGIN PGP"
_FINGERPRINT = re.compile(r"[0-9A-F]{40}!?", re.IGNORECASE)
_LINE = re.compile(r"\s*deb(?:-src)?\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)")
_OFF = ("no", "false", "without", "off", "disable", "0")


class CannotShare(Exception):
    """An owner's entry names the same repository with options that conflict with ours; the text has the remedy."""


@dataclass(frozen=True)
class Repository:
    """An apt repository as our entry names it, and its signing key."""

    address: str
    suite: str
    file: str
    """Our file of sources."""
    keyring: str
    """Our key ring, written unless an owner's entry brings its own."""
    key: str
    """Web address of the key."""
    fingerprints: Sequence[str]
    setting: str
    """The mapping of the settings that pins them, with `repository` and `key_fingerprints`."""


@dataclass(frozen=True)
class Entry:
    """One repository in one of the machine's entries."""

    file: str
    line: int
    address: str
    suite: str
    signed_by: str = ""
    """The value in the file, with its line breaks; empty if any key that the machine trusts may sign."""
    options: tuple[str, ...] = ()
    """The options of TRUST that it sets."""

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Sources:
    """Source files that name a server of ours, and the key rings in them."""

    files: Mapping[str, str]
    rings: Mapping[str, bytes]

    def entries(self) -> list[Entry]:
        """Every repository of every enabled entry."""
        return [entry for file, text in sorted(self.files.items()) for entry in entries(file, text)]


NONE = Sources({}, {})


def entries(file: str, text: str) -> list[Entry]:
    """The entries of a file, in apt's one-line format or in deb822 by the file's name."""
    return list(_stanzas(file, text) if file.endswith(".sources") else _lines(file, text))


def signer(repository: Repository, there: Sources) -> str:
    """The Signed-By value of our entry. Raises CannotShare.

    The value in the owner's entries for this repository, if all keys that it allows are pinned; else our own key ring.
    """
    others = [
        entry
        for entry in there.entries()
        if entry.file != repository.file
        and _key(entry.address) == _key(repository.address)
        and _substituted(entry.suite) == repository.suite
    ]
    for entry in others:
        if entry.options:
            raise CannotShare(_sentence(repository, entry, f"with the option {', '.join(entry.options)}"))
    values = {_normal(entry.signed_by): entry for entry in others}
    if not values or set(values) == {_normal(repository.keyring)}:
        return repository.keyring
    if len(values) > 1:
        first, second, *_ = values.values()
        raise CannotShare(
            f"{first.place} and {second.place} name {repository.address} with different key rings, so apt reads no "
            "package list at all; remove one of them"
        )
    ((value, entry),) = values.items()
    if not value:
        raise CannotShare(_sentence(repository, entry, "without signed-by"))
    wrong = [key for key in _keys(value, entry, repository, there.rings) if key not in repository.fingerprints]
    if wrong:
        what = "a key in the entry itself" if INLINE in entry.signed_by else entry.signed_by.strip()
        raise CannotShare(
            _sentence(
                repository,
                entry,
                f"signed by {what}, which holds {', '.join(wrong)} and not only {repository.setting}.key_fingerprints",
            )
        )
    return entry.signed_by if INLINE in entry.signed_by else ",".join(value)


def _sentence(repository: Repository, entry: Entry, how: str) -> str:
    return (
        f"{entry.place} names {repository.address} {how}; beside our entry apt would read no package list at all: "
        f"remove that entry (a deploy writes {repository.file})"
    )


def _keys(value: tuple[str, ...], entry: Entry, repository: Repository, rings: Mapping[str, bytes]) -> list[str]:
    """Fingerprints of every key that a Signed-By value allows. Raises CannotShare."""
    found: list[str] = []
    for word in (entry.signed_by,) if INLINE in entry.signed_by else value:
        if _FINGERPRINT.fullmatch(word):
            found.append(word.rstrip("!").upper())
            continue
        # deb822 has a full stop for an empty line of the armour.
        inline = "\n".join("" if line.strip() == "." else line.strip() for line in word.splitlines()).encode()
        data = inline if INLINE in word else rings.get(word)
        if data is None:
            raise CannotShare(_sentence(repository, entry, f"signed by {word}, which is not there"))
        try:
            found += openpgp.fingerprints(data)
        except openpgp.NotAKey as error:
            what = "a key in the entry itself" if INLINE in word else word
            how = f"signed by {what}, which is no key ring ({error})"
            raise CannotShare(_sentence(repository, entry, how)) from None
    return found


def _normal(signed_by: str) -> tuple[str, ...]:
    """The form that apt compares: words in any order; an inline key by its lines."""
    if INLINE in signed_by:
        return tuple(line.strip() for line in signed_by.splitlines() if line.strip())
    return tuple(sorted(filter(None, re.split(r"[,\s]+", signed_by))))


def _key(address: str) -> str:
    """apt's identity of a repository."""
    return _substituted(address).partition("://")[2].rstrip("/")


def _substituted(text: str) -> str:
    # Rig supports this architecture only.
    return text.replace("$(ARCH)", "amd64")


def _lines(file: str, text: str) -> Iterator[Entry]:
    for number, raw in enumerate(text.splitlines(), 1):
        found = _LINE.match(raw.partition("#")[0])
        if found is None:
            continue
        options: dict[str, str] = {}
        for word in (found[1] or "").split():
            name, _, value = word.partition("=")
            # += adds to an option; names are compared literally.
            options[name.rstrip("+-")] = value
        set_ = tuple(name for name in TRUST if name in options)
        address, suite = (word.strip('"') for word in (found[2], found[3]))
        yield Entry(file, number, address, suite, options.get("signed-by", ""), set_)


def _stanzas(file: str, text: str) -> Iterator[Entry]:
    numbered = [(number, line) for number, line in enumerate(text.splitlines(), 1) if not line.startswith("#")]
    stanza: list[tuple[int, str]] = []
    for number, line in [*numbered, (0, "")]:
        if line.strip():
            stanza.append((number, line))
        elif stanza:
            yield from _stanza(file, stanza)
            stanza = []


def _stanza(file: str, lines: Iterable[tuple[int, str]]) -> Iterator[Entry]:
    fields: dict[str, str] = {}
    at: dict[str, int] = {}
    name = ""
    for number, line in lines:
        if line[0] in " \t":
            fields[name] = f"{fields.get(name, '')}\n{line.rstrip()}"
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name], at[name] = value.strip(), number
    if fields.get("enabled", "yes").lower() in _OFF:
        return
    set_ = tuple(option for option in TRUST if option in fields)
    for address in fields.get("uris", "").split():
        for suite in fields.get("suites", "").split():
            yield Entry(file, at["uris"], address, suite, fields.get("signed-by", ""), set_)
