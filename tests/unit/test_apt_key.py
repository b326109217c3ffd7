"""A vendor's signing key is believed by its fingerprint alone, and every refusal says what to do."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator

import pytest

from rig.apt import key
from rig.apt.key import KeyRefused
from tests.unit.sample import needs
from tests.unit.test_apt_openpgp import FINGERPRINT, KEY, Gpg, gpg
from tests.unit.web import Web, serving

__all__ = ["gpg"]

PINNED = (FINGERPRINT,)
SETTING = "containers.vendor"
OTHER = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
BINARY = base64.b64decode(b"".join(KEY.splitlines()[2:-2]))


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as web:
        yield web


def test_the_pinned_key_is_taken_as_it_is(web: Web) -> None:
    web.files["/gpg"] = KEY
    assert key.fetch(f"{web.url}/gpg", PINNED, SETTING) == KEY.decode()


def test_one_of_several_pinned_keys_is_enough(web: Web) -> None:
    web.files["/gpg"] = KEY
    assert key.fetch(f"{web.url}/gpg", (OTHER, FINGERPRINT), SETTING) == KEY.decode()


def test_another_key_is_refused_and_both_fingerprints_are_shown(web: Web) -> None:
    web.files["/gpg"] = KEY
    with pytest.raises(KeyRefused, match=f"{FINGERPRINT}.*pins {OTHER}; do not go on"):
        key.fetch(f"{web.url}/gpg", (OTHER,), SETTING)


@needs("gpg")
def test_the_pinned_key_in_company_of_another_is_refused(web: Web, gpg: Gpg) -> None:
    foreign = gpg.run("--armor", "--export", "ed@example.org")
    web.files["/gpg"] = KEY + foreign
    with pytest.raises(KeyRefused, match=gpg.primary(foreign)[0]):
        key.fetch(f"{web.url}/gpg", PINNED, SETTING)


def test_a_web_page_is_no_key(web: Web) -> None:
    web.files["/gpg"] = b"<html>Please log in</html>"
    with pytest.raises(KeyRefused, match=r"no signing key.*containers\.vendor\.repository"):
        key.fetch(f"{web.url}/gpg", PINNED, SETTING)


def test_a_binary_key_ring_is_refused_as_apt_could_not_read_it_under_that_name(web: Web) -> None:
    web.files["/gpg"] = BINARY
    with pytest.raises(KeyRefused, match="armour"):
        key.fetch(f"{web.url}/gpg", PINNED, SETTING)


def test_a_missing_key_is_named_with_its_address(web: Web) -> None:
    with pytest.raises(KeyRefused, match=f"{web.url}/gpg cannot be had.*404"):
        key.fetch(f"{web.url}/gpg", PINNED, SETTING)


def test_an_answer_that_is_cut_short_is_refused(web: Web) -> None:
    web.files["/gpg"] = KEY
    web.promised["/gpg"] = len(KEY) + 100
    with pytest.raises(KeyRefused, match="cannot be had"):
        key.fetch(f"{web.url}/gpg", PINNED, SETTING)


def test_an_endless_answer_is_cut_off_and_refused(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key, "LIMIT", 100)
    web.files["/gpg"] = KEY
    with pytest.raises(KeyRefused, match="no signing key"):
        key.fetch(f"{web.url}/gpg", PINNED, SETTING)


def test_a_server_that_does_not_answer_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/gpg"
        with pytest.raises(KeyRefused, match="check its address"):
            key.fetch(url, PINNED, SETTING)


@pytest.mark.parametrize(
    ("text", "pinned", "is_pinned"),
    [
        (KEY.decode(), PINNED, True),
        (KEY.decode(), (OTHER, FINGERPRINT), True),
        (KEY.decode(), (OTHER,), False),
        (None, PINNED, False),
        ("", PINNED, False),
        ("not a key", PINNED, False),
    ],
)
def test_a_ring_on_the_machine_is_judged_by_its_fingerprints(
    text: str | None, pinned: tuple[str, ...], is_pinned: bool
) -> None:
    assert key.is_pinned(text, pinned) is is_pinned
