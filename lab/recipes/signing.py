"""What makes a folder of packages a repository that apt believes: lists, signed with a key made for that alone."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab.cache import BuildError, run
from lab.recipes.packing import sha256

# Long ago: a signature is no good on a machine whose clock is behind the one that made it.
SIGNED = datetime(2025, 1, 1, tzinfo=UTC)


def packages(folder: Path, debs: list[Path], base: Path) -> None:
    """`Packages` and `Packages.gz` in `folder`, of packages named relative to `base`."""
    stanzas = [
        run(["dpkg-deb", "--field", deb]).strip()
        + f"\nFilename: {deb.relative_to(base)}\nSize: {deb.stat().st_size}\nSHA256: {sha256(deb)}\n"
        for deb in debs
    ]
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(stanzas).encode()
    (folder / "Packages").write_bytes(text)
    (folder / "Packages.gz").write_bytes(gzip.compress(text, mtime=0))


def release(folder: Path, fields: Mapping[str, str], lists: Path) -> None:
    """`Release` in `folder`, over the lists in `lists` below it."""
    sums = []
    for file in sorted(path for path in lists.iterdir() if path.name.startswith("Packages")):
        content = file.read_bytes()
        sums.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {file.relative_to(folder)}\n")
    head = {**fields, "Date": f"{SIGNED:%a, %d %b %Y %H:%M:%S} UTC"}
    text = "".join(f"{name}: {value}\n" for name, value in head.items())
    (folder / "Release").write_text(f"{text}SHA256:\n{''.join(sums)}")


@dataclass(frozen=True)
class Signer:
    """A key that signs."""

    gpg: tuple[str | Path, ...]
    fingerprint: str

    def export(self, path: Path) -> None:
        """The public half, armoured."""
        run([*self.gpg, "--armor", "--output", path, "--export", self.fingerprint])

    def sign(self, folder: Path) -> None:
        """`InRelease` and `Release.gpg` beside the `Release` of `folder`."""
        run([*self.gpg, "--clearsign", "--digest-algo", "SHA512", "--output", folder / "InRelease", folder / "Release"])
        run([*self.gpg, "--armor", "--detach-sign", "--output", folder / "Release.gpg", folder / "Release"])


@contextmanager
def signer(home: Path) -> Iterator[Signer]:
    """A key that exists for this only; its private half, in `home`, is thrown away afterwards."""
    home.mkdir(mode=0o700)
    gpg: tuple[str | Path, ...] = (
        *("gpg", "--homedir", home, "--batch", "--yes", "--quiet"),
        *(f"--faked-system-time={SIGNED:%Y%m%dT%H%M%S}!", "--pinentry-mode", "loopback", "--passphrase", ""),
    )
    run([*gpg, "--quick-generate-key", "The lab's package repository", "rsa3072", "sign", "never"])
    listing = run([*gpg, "--with-colons", "--list-keys"])
    fingerprint = re.search(r"^fpr:+([0-9A-F]{40}):", listing, re.M)
    if fingerprint is None:
        raise BuildError(f"gpg lists no key after having made one:\n{listing}")
    try:
        yield Signer(gpg, fingerprint[1])
    finally:
        run(["gpgconf", "--homedir", home, "--kill", "all"])
        # Not Python's: the agent, told to end, takes its sockets away at the same moment.
        run(["rm", "-rf", home])
