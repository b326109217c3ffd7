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
