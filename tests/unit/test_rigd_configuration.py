"""What a program of the machine was not told, or was told wrongly, it says in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rigd.backup import config as backup
from rigd.base import configuration
from rigd.base.errors import BadInput
from rigd.metrics import config as metrics
from rigd.models import manifest
from rigd.modes import config as modes
from rigd.thermal import config as thermal

PARSERS: dict[str, Callable[[str], object]] = {
    "backup": backup.parse,
    "metrics": metrics.parse,
    "models": manifest.parse,
    "modes": modes.parse,
    "thermal": thermal.parse,
}
BROKEN = (
    "",
    "{",
    "[]",
    "{}",
    "null",
    "1",
    '{"engines": [{}]}',
    '{"engines": 1}',
    '{"groups": []}',
    '{"groups": {"a": [{}]}, "keys": ""}',
    '{"limits": 1, "cooling": {}}',
    '{"schedule": {}, "keep": {}, "paths": []}',
    '{"models": [{"name": 1}]}',
)


@pytest.mark.parametrize("program", PARSERS)
@pytest.mark.parametrize("text", BROKEN)
def test_what_no_deploy_wrote_is_refused(tmp_path: Path, program: str, text: str) -> None:
    path = tmp_path / "told.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="write it anew with a deploy"):
        configuration.read(path, PARSERS[program])


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "told.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(BadInput, match=r"told\.json cannot be used .*; write it anew with a deploy"):
        configuration.read(path, thermal.parse)


def test_what_is_not_there_is_written_by_a_deploy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"there is no .*told\.json; a deploy writes it"):
        configuration.read(tmp_path / "told.json", thermal.parse)
