"""The manifest: written ones can be read, and impossible ones are refused in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigd.base.configuration import Unusable
from rigd.models import manifest
from rigd.models.cli import main
from rigd.models.manifest import File, Limits, Manifest, Model

GOOD = Manifest(
    hub="https://example.org/mirror",
    directory="/mnt/models",
    records="/var/lib/rig/models",
    must_be_mount=True,
    backup="/mnt/backup/models",
    token_file="/etc/rig/hub-token",
    limits=Limits(parallel=3, bytes_per_second=1000, attempts=2, timeout=1.5),
    models=(
        Model("one", "a/b", "c" * 40, (File("x.gguf", 1, "d" * 64),), ("engine",)),
        Model("two", "a/b", "main", (File("deep/y.gguf", 0, "e" * 64), File("z.json", 9, "f" * 64))),
    ),
)


def test_what_is_written_can_be_read() -> None:
    assert manifest.parse(manifest.dump(GOOD)) == GOOD


def test_the_digest_changes_with_the_contents_alone() -> None:
    again = manifest.parse(manifest.dump(GOOD))
    assert again.digest == GOOD.digest
    assert manifest.parse(manifest.dump(GOOD), hub="http://other").digest != GOOD.digest


def test_limits_and_places_that_are_not_said_have_defaults() -> None:
    values = {"hub": "http://h", "directory": "/m", "records": "/r", "models": []}
    assert manifest.parse(json.dumps(values)) == Manifest("http://h", "/m", "/r", ())


def test_another_hub_takes_the_place_of_the_written_one() -> None:
    assert manifest.parse(manifest.dump(GOOD), hub="http://mirror/").hub == "http://mirror"


def _at(*path: Any, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_at("hub", value="ftp://x"), "hub must be a web address without a slash at the end, not 'ftp://x'"),
        (_at("hub", value=None), "hub must be text, not None"),
        (_at("directory", value="models"), "directory must be an absolute path, not 'models'"),
        (_at("directory", value="/mnt/../etc"), "directory must be an absolute path"),
        (_at("models", value={}), "models must be a list"),
        (_at("models", 0, "files", 0, "path", value="../x"), r"models\[0\].files\[0\].path must be a path inside"),
        (_at("models", 0, "files", 0, "path", value="/etc/x"), r"models\[0\].files\[0\].path must be a path inside"),
        (_at("models", 0, "files", 0, "sha256", value="d" * 63), r"files\[0\].sha256 must be 64 lower-case"),
        (_at("models", 0, "files", 0, "size", value=-1), r"size must be a number from 0 on, not -1"),
        (_at("models", 0, "files", 0, "size", value="1"), r"size must be a number, not '1'"),
        (_at("models", 0, "files", 0, "size", value=True), r"size must be a number, not True"),
        (_at("models", 0, "files", value=[]), "models.one.files must name at least one file"),
        (_at("models", 1, "name", value="one"), "models must name one once only"),
        (_at("models", 0, "name", value="../x"), r"models\[0\].name must be lower-case letters"),
        (_at("limits", "parallel", value=0), "limits.parallel must be a number from 1 on, not 0"),
        (_at("limits", value=[]), "limits must be an object"),
        (lambda document: document.pop("records"), "records is missing"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_place(change: Callable[[Any], None], sentence: str) -> None:
    document = json.loads(manifest.dump(GOOD))
    change(document)
    with pytest.raises(Unusable, match=sentence) as refused:
        manifest.parse(json.dumps(document))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '"x"'])
def test_what_is_no_manifest_at_all_is_refused(text: str) -> None:
    with pytest.raises(Unusable, match=r"^it (must be|is not JSON)"):
        manifest.parse(text)


def test_the_program_ends_with_2_for_a_manifest_that_is_missing_or_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "models.json"
    assert main(["list", "--manifest", str(path)]) == 2
    assert capsys.readouterr().err == f"rig-models: there is no {path}; a deploy writes it\n"
    path.write_bytes(b"\xff")
    assert main(["list", "--manifest", str(path)]) == 2
    path.write_text("{")
    assert main(["list", "--manifest", str(path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["ok"] is False
