"""Names of mount units are those that systemd itself gives."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.systemd import mounts
from tests.unit.sample import examples, needs

PART = st.text("abzAZ059._@+-", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
PATH = st.lists(PART, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/mnt/models", "mnt-models.mount"),
        ("/srv/my-models", "srv-my\\x2dmodels.mount"),
        ("/mnt/a@b+c", "mnt-a\\x40b\\x2bc.mount"),
        ("/.models", "\\x2emodels.mount"),
        ("/mnt/.models", "mnt-.models.mount"),
    ],
)
def test_a_mount_unit_is_named_after_its_path(path: str, name: str) -> None:
    assert mounts.unit_name(path) == name


@needs("systemd-escape")
@examples
@given(paths=st.lists(PATH, min_size=1, max_size=30))
def test_systemd_gives_every_path_the_same_name(paths: list[str]) -> None:
    said = subprocess.run(
        ["systemd-escape", "--path", "--suffix=mount", *paths], capture_output=True, text=True, check=True
    )
    assert [mounts.unit_name(path) for path in paths] == said.stdout.split()


@pytest.mark.parametrize(
    ("source", "node"),
    [
        ("UUID=0a1b-2c3d", "/dev/disk/by-uuid/0a1b-2c3d"),
        ("LABEL=models", "/dev/disk/by-label/models"),
    ],
)
def test_a_disk_is_found_by_what_does_not_change_between_boots(source: str, node: str) -> None:
    assert mounts.device(source) == node
