"""The lab's checkpoint is one: its headers say what its config.json says, and it is the same each time."""

from __future__ import annotations

from pathlib import Path

from lab.recipes import checkpoint
from rig.capacity.checkpoint import read_checkpoint
from tests.unit.sample import tree


def test_the_labs_checkpoint_is_a_whole_model(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "x")
    found = read_checkpoint(tmp_path / "x").architecture
    assert found is not None
    assert (found.layers, found.hidden, found.vocabulary) == (
        checkpoint.LAYERS,
        checkpoint.WIDTH,
        checkpoint.VOCABULARY,
    )
    assert set(tree(tmp_path / "x")) == {*checkpoint.SERVED, *checkpoint.OTHERS}


def test_it_has_the_same_bytes_whenever_it_is_made(tmp_path: Path) -> None:
    for name in ("x", "y"):
        checkpoint.write(tmp_path / name)
    assert checkpoint.entry(tmp_path / "x") == checkpoint.entry(tmp_path / "y")
