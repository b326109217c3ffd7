"""What counts as installed, by what dpkg says of a status file: what is on hold does, what is broken does not."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from rig.facts.gpu import DriverFact
from rig.facts.packages import VERIFIED, Damage, Damaged, Installed
from rig.operations.packages import repair
from tests.unit.sample import Here, needs

pytestmark = needs("dpkg-query")

THERE = {"nvidia-plain": "install ok", "nvidia-held": "hold ok", "nvidia-going": "deinstall ok"}
NOT_THERE = {
    "nvidia-broken": "install reinstreq installed",
    "nvidia-unpacked": "install ok unpacked",
    "nvidia-half": "hold ok half-installed",
}


@pytest.fixture
def here(tmp_path: Path) -> Here:
    """A shell whose dpkg has the packages above, and no other."""
    status = {**{name: f"{want} installed" for name, want in THERE.items()}, **NOT_THERE}
    blocks = (
        f"Package: {name}\nStatus: {text}\nMaintainer: x\nArchitecture: amd64\nVersion: 1.0-1\nDescription: x\n"
        for name, text in status.items()
    )
    (tmp_path / "status").write_text("\n".join(blocks))
    (tmp_path / "available").touch()
    (tmp_path / "info").mkdir()
    return Here(lambda command: f"export DPKG_ADMINDIR={tmp_path}; {command}")


def test_a_package_on_hold_is_installed(here: Here) -> None:
    assert here.get_fact(Installed, packages=(*THERE, *NOT_THERE)) == THERE.keys()


def test_a_package_of_the_driver_on_hold_is_installed(here: Here) -> None:
    assert here.get_fact(DriverFact).packages == dict.fromkeys(THERE, "1.0-1")


@pytest.mark.parametrize(
    "line", ["Provides: dnsutils", "Provides: a (= 1.0), dnsutils (= 1:9.20), b", "Provides: b,dnsutils"]
)
def test_a_name_that_an_installed_package_provides_is_there_where_it_may_be(
    here: Here, tmp_path: Path, line: str
) -> None:
    """And is none of those that would be removed: containerd.io provides runc."""
    about = "Maintainer: x\nArchitecture: amd64\nVersion: 1.0-1\nDescription: x\n"
    with (tmp_path / "status").open("a") as status:
        status.write(f"\nPackage: bind9-dnsutils\nStatus: install ok installed\n{line}\n{about}")
        status.write(f"\nPackage: gone\nStatus: deinstall ok config-files\nProvides: gone-too\n{about}")
    names = ("dnsutils", "utils", "gone-too", "nvidia-plain")
    assert here.get_fact(Installed, packages=names, provided=True) == {"dnsutils", "nvidia-plain"}
    assert here.get_fact(Installed, packages=names) == {"nvidia-plain"}


@pytest.fixture
def whole(here: Here, tmp_path: Path) -> Path:
    """The same machine, with apt's lists and one package whose records and files are whole."""
    lib, lists = tmp_path / "var/lib/dpkg", tmp_path / "var/lib/apt/lists"
    (lib / "info").mkdir(parents=True)
    (lib / "updates").mkdir()
    lists.mkdir(parents=True)
    (lists / "lock").touch()
    (lists / "mirror_Packages").write_text("Package: plain\n")
    program = tmp_path / "plain"
    program.write_text("#!/bin/sh\n")
    (lib / "status").write_text(
        "Package: plain\nStatus: install ok installed\nMaintainer: x\nArchitecture: amd64\nVersion: 1.0-1\n"
        "Description: x\n"
    )
    (lib / "available").touch()
    (lib / "info/format").write_text("1\n")
    (lib / "info/plain.list").write_text(f"/.\n{program}\n")
    digest = hashlib.md5(program.read_bytes()).hexdigest()
    (lib / "info/plain.md5sums").write_text(f"{digest}  {str(program)[1:]}\n")
    (lib / "info/plain.postinst").write_text("#!/bin/sh\n")
    long_ago = time.time() - 10**6
    os.utime(lib / "info/plain.list", (long_ago, long_ago))
    return tmp_path


def _damage(root: Path) -> Damage:
    """The fact's result for that machine."""
    moved = Here(
        lambda command: (
            f"export DPKG_ADMINDIR={root}/var/lib/dpkg; "
            + command.replace("/var/lib/", f"{root}/var/lib/").replace(VERIFIED, f"{root}/verified")
        )
    )
    found: Damage = moved.get_fact(Damaged)
    return found


def test_packages_that_are_whole_are_read_once_after_a_boot(whole: Path) -> None:
    assert _damage(whole) == Damage()
    assert (whole / "verified").exists()
    (whole / "plain").write_text("another")
    assert _damage(whole) == Damage(), "read again"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("var/lib/apt/lists/mirror_Packages", Damage(lists=True)),
        ("var/lib/dpkg/info/plain.postinst", Damage(packages=("plain",))),
        ("var/lib/dpkg/info/plain.md5sums", Damage(packages=("plain",))),
        ("plain", Damage(packages=("plain",))),
    ],
)
def test_a_file_of_0_bytes_is_damage(whole: Path, path: str, found: Damage) -> None:
    (whole / path).write_bytes(b"")
    assert _damage(whole) == found
    assert found.packages == () or not (whole / "verified").exists(), "it would be forgotten"


def test_an_empty_file_of_settings_that_a_packages_script_installed_is_damage(whole: Path) -> None:
    """By ucf: dpkg knows nothing of it. Seen after a power cut, with the settings of unattended upgrades."""
    registry, settings = whole / "var/lib/ucf", whole / "settings"
    registry.mkdir()
    settings.write_text("on\n")
    digest = hashlib.md5(settings.read_bytes()).hexdigest()
    (registry / "hashfile").write_text(f"{digest}  {settings}\n")
    (registry / "registry").write_text(f"plain   {settings}\n")
    assert _damage(whole) == Damage()
    settings.write_text("")
    assert _damage(whole) == Damage(packages=("plain",))


def test_an_update_that_was_interrupted_is_damage(whole: Path) -> None:
    (whole / "var/lib/dpkg/updates/0001").touch()
    assert _damage(whole).unfinished


def test_an_empty_status_is_damage(whole: Path) -> None:
    (whole / "var/lib/dpkg/status").write_bytes(b"")
    assert _damage(whole).status


@pytest.mark.parametrize("damage", [Damage(unfinished=True), Damage(packages=("plain", "other"))])
def test_the_script_that_repairs_is_sound_shell(damage: Damage) -> None:
    script = repair(damage)
    subprocess.run(["sh", "-n", "-c", script], check=True)
    assert ("install plain other" in script) == bool(damage.packages)
    # The lists first: what is to be reinstalled is found in them.
    assert script.index("apt-get update") < script.index("--reinstall")
