"""docs/supply-chain.md lists every download of the settings, and how each is verified."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from rig.downloads import listed, markdown, placed
from rig.page import NoPlace
from tests.unit.project import ROOT, Project
from tests.unit.sample import ARCHIVE, IMAGE, settings

ALL = ROOT / "group_data" / "all.yml"


def _values(node: Any) -> list[str]:
    """Every text in the settings."""
    if isinstance(node, dict):
        return [text for value in node.values() for text in _values(value)]
    if isinstance(node, list):
        return [text for value in node for text in _values(value)]
    return [node] if isinstance(node, str) else []


def test_the_page_is_what_the_settings_give(project: Project) -> None:
    page = project.root / "supply-chain.md"
    shipped = (ROOT / "docs" / "supply-chain.md").read_text(encoding="utf-8")
    page.write_text(re.sub(r"(?m)^\| .*\n", "", shipped), encoding="utf-8")
    done = project.rig("downloads", "--into", "supply-chain.md")
    assert done.returncode == 0, done.stderr
    assert page.read_text(encoding="utf-8") == shipped, "run: rig downloads --into docs/supply-chain.md"


def test_every_address_and_every_pin_of_the_settings_is_listed() -> None:
    """Found in the YAML itself: a new kind of download without a row is seen."""
    document = yaml.safe_load(ALL.read_text(encoding="utf-8"))
    document["monitoring"]["grafana"]["enabled"] = True
    made = markdown(listed(settings({"engines": document["engines"], "monitoring": document["monitoring"]})))
    for text in _values(document):
        address = re.fullmatch(r"https?://\S+", text)
        image = re.fullmatch(r"\S+@(sha256:[0-9a-f]{64})", text)
        fingerprint = re.fullmatch(r"[0-9A-F]{40}", text)
        if address or fingerprint:
            assert text in made
        if image:
            assert image[1] in made and text.partition("@")[0] in made
    for model in document["models"]["catalogue"].values():
        pin = model["previous"] if model.get("use") == "previous" else model
        assert f"{model['repository']}, revision `{pin['revision']}`" in made
        if pin.get("sha256"):
            assert pin["sha256"] in made


def test_what_is_not_used_is_not_listed() -> None:
    """Docker's repository where the distribution's packages are used, and NVIDIA's without a driver from it."""
    less = settings({"containers/source": "distribution", "gpu/enabled": False})
    assert not [one for one in listed(less) if "docker.com" in one.source or "nvidia" in one.source]


def test_a_download_without_a_pin_is_called_that() -> None:
    engines = {
        "one": {"runtime": "container", "model": "llama-3.3-70b-q4", "port": 8002, "enabled": False},
        "two": {"runtime": "container", "image": IMAGE, "model": "llama-3.3-70b-q4", "port": 8003},
        "three": {"runtime": "native", "archive": ARCHIVE, "model": "llama-3.1-8b-q4", "port": 8004},
    }
    rows = {one.what: one.verified for one in listed(settings({"engines": engines}))}
    assert rows["image of the engine one"].startswith("not known yet")
    assert rows["image of the engine two"] == f"digest `{IMAGE.partition('@')[2]}`"
    assert rows["program of the engine three"] == f"SHA-256 `{ARCHIVE['sha256']}`"


def test_a_page_without_a_place_is_left_alone() -> None:
    with pytest.raises(NoPlace):
        placed("# A page\n", [])
