"""The signing key of a vendor's apt repository: fetched once, and trusted only by its fingerprint."""

from __future__ import annotations

from collections.abc import Sequence

import requests
import urllib3

from rig.apt import openpgp

LIMIT = 1 << 20
"""Size limit in bytes: a longer answer is not a key."""


class KeyRefused(Exception):
    """A key that cannot be fetched, or is not the pinned one; the text has the remedy."""


def is_pinned(text: str | None, fingerprints: Sequence[str]) -> bool:
    """Whether a key ring holds pinned keys and no others: apt would trust each key in it."""
    if text is None:
        return False
    try:
        return set(openpgp.fingerprints(text.encode())) <= set(fingerprints)
    except openpgp.NotAKey:
        return False


def fetch(url: str, fingerprints: Sequence[str], setting: str) -> str:
    """The armoured key ring at ``url``. Raises KeyRefused when it cannot be fetched or holds a key that is not pinned.

    ``setting``: the mapping of the settings with the pin, such as containers.vendor.
    """
    try:
        answer = requests.get(url, timeout=30, stream=True)
        answer.raise_for_status()
        data = answer.raw.read(LIMIT, decode_content=True)
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise KeyRefused(f"the signing key at {url} cannot be had: {_cause(error)}; check its address") from error
    try:
        found = openpgp.fingerprints(data)
    except openpgp.NotAKey as error:
        raise KeyRefused(f"what {url} serves is no signing key: {error}; check {setting}.repository") from error
    if not set(found) <= set(fingerprints):
        raise KeyRefused(
            f"the signing key at {url} has the fingerprint {', '.join(found)}, and {setting}.key_fingerprints "
            f"pins {', '.join(fingerprints)}; do not go on before the vendor's own pages confirm the new one"
        )
    try:
        return str(data.decode("ascii"))
    except UnicodeDecodeError:
        raise KeyRefused(
            f"the signing key at {url} is binary, and apt would take it for armour; "
            f"write a {setting}.repository that serves it armoured"
        ) from None


def _cause(error: Exception) -> str:
    """The useful part of an error that requests wraps several times over."""
    if isinstance(error, requests.HTTPError):
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)
