"""What counts as installed, by what dpkg says of a status file: what is on hold does, what is broken does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.facts.gpu import DriverFact
from rig.facts.packages import Installed
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
    """A shell whose dpkg knows the packages above, and no other."""
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
