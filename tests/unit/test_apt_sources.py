"""Two entries of one repository that differ stop apt for everybody: ours takes the owner's ring, or refuses."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from rig.apt.sources import CannotShare, Repository, Sources, entries, signer
from rig.render import render
from tests.unit.sample import needs
from tests.unit.test_apt_openpgp import FINGERPRINT, KEY

OURS = "/etc/apt/keyrings/docker.asc"
THEIRS = "/etc/apt/keyrings/docker.gpg"
FILE = "/etc/apt/sources.list.d/docker.sources"
LIST = "/etc/apt/sources.list.d/docker.list"
DEB822 = "/etc/apt/sources.list.d/owner.sources"
DOCKER = Repository(
    "https://vendor.example/linux/debian", "trixie", FILE, OURS, "https://x", (FINGERPRINT,), "containers.vendor"
)
CUDA = Repository(
    "https://card.example/stable/deb/amd64/", "/", FILE, OURS, "https://x", (FINGERPRINT,), "gpu.toolkit"
)
INLINE = "\n".join(f" {line or '.'}" for line in KEY.decode().splitlines())
STANZA = "Types: deb\nURIs: https://vendor.example/linux/debian\nSuites: trixie\nComponents: stable\n"


def there(text: str, file: str = LIST, rings: dict[str, bytes] | None = None) -> Sources:
    return Sources({file: text}, {THEIRS: KEY} if rings is None else rings)


SAME = [
    f"deb [signed-by={THEIRS}] https://vendor.example/linux/debian trixie stable",
    f"deb [arch=amd64 signed-by={THEIRS}] https://vendor.example/linux/debian trixie stable",
    f"deb [signed-by={THEIRS} arch=amd64,arm64] https://vendor.example/linux/debian/ trixie stable test",
    f"deb [ signed-by={THEIRS} ]   http://vendor.example/linux/debian trixie stable # mine",
    f'deb [signed-by={THEIRS}] "https://vendor.example/linux/debian" trixie stable',
    f"deb-src\t[signed-by={THEIRS}]\thttps://vendor.example/linux/debian\ttrixie\tstable",
]
OTHERS = [
    "",
    f"# deb [signed-by={THEIRS}] https://vendor.example/linux/debian trixie stable",
    f"deb [signed-by={THEIRS}] https://vendor.example/linux/debian bookworm stable",
    f"deb [signed-by={THEIRS}] https://vendor.example/linux/ubuntu trixie stable",
    f"deb [signed-by={THEIRS}] https://other.example/linux/debian trixie stable",
    f"deb [signed-by={OURS}] https://vendor.example/linux/debian trixie stable",
    "deb cdrom:[Debian trixie]/ trixie main",
]


@pytest.mark.parametrize("text", SAME)
def test_the_owners_ring_is_taken_when_its_keys_are_the_pinned_ones(text: str) -> None:
    assert signer(DOCKER, there(text)) == THEIRS


@pytest.mark.parametrize("text", OTHERS)
def test_beside_other_entries_our_own_ring_is_named(text: str) -> None:
    assert signer(DOCKER, there(text)) == OURS


def test_our_own_file_is_no_entry_of_the_owners() -> None:
    assert signer(DOCKER, there(f"{STANZA}Signed-By: {THEIRS}\n", FILE)) == OURS


@pytest.mark.parametrize("address", ["https://card.example/stable/deb/$(ARCH)", "http://card.example/stable/deb/amd64/"])
def test_a_flat_repository_is_known_by_its_address(address: str) -> None:
    assert signer(CUDA, there(f"deb [signed-by={THEIRS}] {address} /")) == THEIRS
    assert signer(CUDA, there(f"deb [signed-by={THEIRS}] {address} ./")) == OURS


@pytest.mark.parametrize(
    "text",
    [
        f"{STANZA}Signed-By: {THEIRS}\n",
        f"# mine\n\n{STANZA}signed-by:\n {THEIRS}\n",
        f"types: deb deb-src\nuris: http://a.example/x https://vendor.example/linux/debian/\n# no\nsuites: sid trixie\n"
        f"Enabled: yes\nSigned-By: {THEIRS}",
    ],
)
def test_an_entry_in_deb822_is_read_too(text: str) -> None:
    assert signer(DOCKER, there(text, DEB822)) == THEIRS


def test_an_entry_that_is_switched_off_is_none() -> None:
    assert entries(DEB822, f"{STANZA}Enabled: no\nSigned-By: {THEIRS}\n") == []


def test_a_key_in_the_entry_itself_is_taken_with_its_lines() -> None:
    value = signer(DOCKER, there(f"{STANZA}Signed-By:\n{INLINE}\n", DEB822))
    assert value == f"\n{INLINE}"
    assert f"Signed-By: \n{INLINE}\n" in render(FILE, repository=DOCKER, signer=value)


@pytest.mark.parametrize(
    ("text", "file", "rings", "why"),
    [
        (SAME[0], LIST, {}, f"signed by {THEIRS}, which is not there"),
        (SAME[0], LIST, {THEIRS: b"no key"}, "which is no key ring"),
        (SAME[0].replace(THEIRS, "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"), LIST, None, "and not only containers.v"),
        (SAME[0].replace(THEIRS, f"{THEIRS},/k/other.gpg"), LIST, None, "signed by /k/other.gpg, which is not there"),
        ("deb https://vendor.example/linux/debian trixie stable", LIST, None, "without signed-by"),
        (SAME[0].replace("[", "[trusted=yes "), LIST, None, "with the option trusted"),
        (f"{STANZA}Check-Valid-Until: no\nSigned-By: {THEIRS}\n", DEB822, None, "with the option check-valid-until"),
        (f"{STANZA}Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ\n", DEB822, None, "is no key ring"),
    ],
)
def test_an_entry_that_ours_cannot_stand_beside_is_refused_with_its_place(
    text: str, file: str, rings: dict[str, bytes] | None, why: str
) -> None:
    with pytest.raises(CannotShare) as caught:
        signer(DOCKER, there(text, file, rings))
    said = str(caught.value)
    assert said.startswith(f"{file}:{1 if file == LIST else 2} names https://vendor.example/linux/debian ")
    assert why in said
    assert said.endswith(f"remove that entry (a deploy writes {FILE})")


def test_a_ring_with_a_further_key_is_refused() -> None:
    other = replace(DOCKER, fingerprints=("A" * 40,))
    with pytest.raises(CannotShare, match=f"holds {FINGERPRINT} and not only containers.vendor.key_fingerprints"):
        signer(other, there(SAME[0]))


def test_a_fingerprint_in_the_entry_is_a_pinned_key_or_none() -> None:
    assert signer(DOCKER, there(SAME[0].replace(THEIRS, f"{FINGERPRINT.lower()}!"))) == f"{FINGERPRINT.lower()}!"


def test_entries_that_stop_apt_already_are_named_both() -> None:
    text = "\n".join((SAME[0], SAME[0].replace(THEIRS, "/k/other.gpg")))
    with pytest.raises(CannotShare, match=f"^{LIST}:1 and {LIST}:2 name https://vendor.example/linux/debian with diff"):
        signer(DOCKER, there(text))


@needs("apt-get")
@pytest.mark.parametrize(
    ("file", "text"),
    [
        *(("docker.list", text) for text in (*SAME, *OTHERS[1:])),
        ("owner.sources", f"{STANZA}Signed-By: {THEIRS}\n"),
        ("owner.sources", f"{STANZA}Signed-By:\n{INLINE}\n"),
        ("owner.sources", f"{STANZA}Enabled: no\nSigned-By: {THEIRS}\n"),
    ],
)
def test_apt_itself_reads_what_ours_is_beside_the_owners(tmp_path: Path, file: str, text: str) -> None:
    """And it does not with our own ring, wherever ours takes the owner's."""
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / file).write_text(f"{text}\n")
    value = signer(DOCKER, there(text, f"/etc/apt/sources.list.d/{file}"))
    assert _apt(tmp_path, render(FILE, repository=DOCKER, signer=value)) == ""
    if value != OURS:
        assert "Conflicting values set" in _apt(tmp_path, render(FILE, repository=DOCKER, signer=OURS))


def _apt(folder: Path, ours: str) -> str:
    """apt's errors for our entry beside the owner's."""
    (folder / "parts/docker.sources").write_text(ours)
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    places = {"Etc::sourcelist": "/dev/null", "Etc::sourceparts": folder / "parts", "State::lists": folder / "lists"}
    places |= {"Cache": folder / "cache", "State::status": "/dev/null"}
    options = [word for name, place in places.items() for word in ("-o", f"Dir::{name}={place}")]
    environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["apt-get", *options, "indextargets"], env=environment, capture_output=True, text=True)
    return "\n".join(line for line in done.stderr.splitlines() if line.startswith("E:"))
