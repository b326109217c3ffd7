"""A signed package repository under the vendor's names, holding Debian's own container engine."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab.cache import Cache, Note, recipe_source, run
from lab.recipes import signing
from lab.recipes.packages import download
from lab.spec import RELEASES

ROOT = "docker/linux/debian"
OLDER = "20.10.1"
"""A version of the engine before the one that is in the repository too, and is the same inside."""
ENGINE = ("docker-ce", "docker-ce-cli")
NUMBERS = {"trixie": "13", "bookworm": "12"}


@dataclass(frozen=True)
class Vendor:
    """One of the vendor's packages, and what it is made of here."""

    name: str
    version_of: str
    parts: tuple[str, ...]
    control: dict[str, str]
    leave_out: tuple[str, ...] = ()


PACKAGES = (
    Vendor(
        "containerd.io",
        "containerd",
        ("containerd", "runc"),
        {
            "Depends": "libc6 (>= 2.34), libseccomp2 (>= 2.5.0)",
            "Provides": "containerd, runc",
            "Conflicts": "containerd, runc",
            "Replaces": "containerd, runc",
        },
    ),
    Vendor(
        "docker-ce-cli",
        "docker-cli",
        ("docker-cli",),
        {
            "Depends": "libc6 (>= 2.34)",
            "Recommends": "docker-buildx-plugin, docker-compose-plugin",
            "Conflicts": "docker.io, docker-cli",
            "Replaces": "docker.io, docker-cli",
        },
    ),
    Vendor(
        "docker-ce",
        "docker.io",
        ("docker.io", "tini"),
        {
            "Depends": "containerd.io (>= 1.6.4), docker-ce-cli, adduser, iptables, libc6 (>= 2.34), "
            "libseccomp2 (>= 2.3.0), libsystemd0",
            "Conflicts": "docker.io",
            "Replaces": "docker.io",
        },
        ("usr/bin/docker-init", "usr/bin/tini"),
    ),
    Vendor(
        "docker-buildx-plugin",
        "docker-buildx",
        ("docker-buildx",),
        {"Enhances": "docker-ce-cli", "Conflicts": "docker-buildx", "Replaces": "docker-buildx"},
    ),
    Vendor(
        "docker-compose-plugin",
        "docker-compose",
        ("docker-compose",),
        {"Enhances": "docker-ce-cli", "Conflicts": "docker-compose", "Replaces": "docker-compose"},
        ("usr/bin/docker-compose",),
    ),
)
SOURCES = tuple(sorted({part for vendor in PACKAGES for part in vendor.parts}))


def repository(cache: Cache) -> Path:
    """The repository's tree; `fingerprint` in it is that of the key that signed it."""

    def make(target: Path, note: Note) -> None:
        target.mkdir()
        newest = download("trixie", SOURCES, target, note)
        # Its runc wants a newer C library than Debian 12 has.
        older = {**newest, **download("bookworm", ("runc",), target, note)}
        base = target / ROOT
        for release, packages in (("trixie", newest), ("bookworm", older)):
            pool = base / f"dists/{release}/pool/stable"
            pool.mkdir(parents=True)
            for vendor in PACKAGES:
                note(f"{vendor.name} for {release}")
                twin = base / "dists/trixie/pool/stable" / f"{vendor.name}.deb"
                if release != "trixie" and all(older[part] == newest[part] for part in vendor.parts):
                    os.link(twin, pool / twin.name)
                else:
                    _repackage(vendor, packages, release, pool / f"{vendor.name}.deb", target / "work")
                if vendor.name in ENGINE:
                    _older(pool / f"{vendor.name}.deb", release, target / "work")
            _index(base, release)
        _sign(target, base, note)
        for leftover in (*RELEASES, *(f".apt-{release}" for release in RELEASES), "work"):
            shutil.rmtree(target / leftover, ignore_errors=True)

    recipe = recipe_source("vendor", "packages", "signing")
    return cache.artefact("vendor", "Repackage the container engine as the vendor's", recipe, make)


def _repackage(vendor: Vendor, packages: dict[str, Path], release: str, deb: Path, work: Path) -> None:
    shutil.rmtree(work, ignore_errors=True)
    for part in vendor.parts:
        run(["dpkg-deb", "--extract", packages[part], work])
    if vendor.name == "docker-ce":
        (work / "usr/bin/tini-static").rename(work / "usr/bin/docker-init.static")
    for name in vendor.leave_out:
        (work / name).unlink()
    if vendor.name == "docker-ce":
        (work / "usr/bin/docker-init.static").rename(work / "usr/bin/docker-init")
    shutil.rmtree(work / "usr/share/doc", ignore_errors=True)
    shutil.rmtree(work / "usr/share/lintian", ignore_errors=True)
    control = work / "DEBIAN"
    run(["dpkg-deb", "--control", packages[vendor.version_of], control])
    (control / "md5sums").unlink(missing_ok=True)
    fields = {
        "Package": vendor.name,
        "Version": _version(packages[vendor.version_of], release),
        "Architecture": _field(packages[vendor.version_of], "Architecture"),
        "Maintainer": "The lab <root@localhost>",
        "Section": "admin",
        "Priority": "optional",
        **vendor.control,
        "Description": f"stand-in made of Debian's {' and '.join(vendor.parts)}",
    }
    (control / "control").write_text("".join(f"{name}: {value}\n" for name, value in fields.items()))
    _build(work, deb)


def _older(deb: Path, release: str, work: Path) -> None:
    """The same package with an older version, beside it."""
    shutil.rmtree(work, ignore_errors=True)
    run(["dpkg-deb", "--raw-extract", deb, work])
    control = work / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*", f"Version: {_full(OLDER, release)}", control.read_text()))
    _build(work, deb.with_name(f"{deb.stem}-older.deb"))


def _build(work: Path, deb: Path) -> None:
    run(
        ["dpkg-deb", "--root-owner-group", "-Zzstd", "-z1", "--build", work, deb],
        environment={"SOURCE_DATE_EPOCH": "0"},
    )


def _version(deb: Path, release: str) -> str:
    upstream = re.split(r"[+~-]", _field(deb, "Version").split(":")[-1])[0]
    return _full(upstream, release)


def _full(upstream: str, release: str) -> str:
    return f"5:{upstream}-1~debian.{NUMBERS[release]}~{release}"


def _field(deb: Path, name: str) -> str:
    return run(["dpkg-deb", "--field", deb, name]).strip()


def _index(base: Path, release: str) -> None:
    """Packages and Release, as apt reads them."""
    architecture = run(["dpkg", "--print-architecture"]).strip()
    dist = base / "dists" / release
    listing = dist / f"stable/binary-{architecture}"
    signing.packages(listing, sorted((dist / "pool/stable").glob("*.deb")), base)
    about = {"Origin": "Docker", "Label": "Docker CE", "Suite": release, "Codename": release}
    signing.release(dist, {**about, "Architectures": architecture, "Components": "stable"}, listing)


def _sign(target: Path, base: Path, note: Note) -> None:
    note("signing")
    with signing.signer(target / "work-gnupg") as signer:
        signer.export(base / "gpg")
        for release in RELEASES:
            signer.sign(base / "dists" / release)
        (target / "fingerprint").write_text(signer.fingerprint)
