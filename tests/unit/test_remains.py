"""What deploys leave behind besides models is listed, and deleted when somebody asks for it; nothing else is."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from rig.engines import native
from rig.facts import secrets
from rig.operator import lock
from rigd.base.errors import Failed
from rigd.models import cli, remains
from rigd.models.manifest import Leavings, Manifest, dump
from rigd.models.remains import Remain

OLD, NOW = "0" * 12, "1" * 12
USED, UNUSED, STRANGE = "example.org/a@sha256:1", "example.org/b@sha256:2", "example.org/own:1"
DOCKER = """#!/bin/sh
case "$1 $2" in
  "image inspect") [ -e "{root}/images.d/$(echo "$5" | tr / _)" ] && echo 1000 || exit 1 ;;
  "image rm")
    [ "$3" != "{busy}" ] || {{ echo "image is being used" >&2; exit 1; }}
    rm "{root}/images.d/$(echo "$3" | tr / _)" ;;
esac
"""


class Places:
    """The paths of a test."""

    def __init__(self, root: Path) -> None:
        self.images, self.programs, self.deploy = root / "images", root / "programs", root / "deploy.lock"
        self.keys, self.native_keys = root / "etc/keys.env", root / "etc/keys"

    def leavings(self) -> Leavings:
        images, programs, keys, own, deploy = map(
            str, (self.images, self.programs, self.keys, self.native_keys, self.deploy)
        )
        return Leavings(images, programs, keys, own, deploy, in_use=("RIG_KEY_ONE",))


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A machine that has served other images, archives and keys before."""
    found = Places(tmp_path)
    for folder in (OLD, NOW, "owners"):
        (found.programs / folder).mkdir(parents=True)
        (found.programs / folder / "server").write_bytes(b"x" * 100)
    found.images.write_text(f"{USED}\n{UNUSED}\n{UNUSED}\nexample.org/gone@sha256:3\n")
    for image in (USED, UNUSED, STRANGE):
        (tmp_path / "images.d").mkdir(exist_ok=True)
        (tmp_path / "images.d" / image.replace("/", "_")).touch()
    found.native_keys.mkdir(parents=True)
    (found.native_keys / "old").write_text("b")
    found.keys.write_text("# Keys\nRIG_KEY_ONE=a\nRIG_KEY_OLD=b\nOWNERS=c\n")
    found.keys.chmod(0o600)
    (tmp_path / "starter").write_text(f"image: {USED}\nExecStart={found.programs}/{NOW}/server\n")
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=":")
    _docker(tmp_path)
    return found


def _docker(root: Path, busy: str = "") -> None:
    (root / "bin/docker").write_text(DOCKER.format(root=root, busy=busy))
    (root / "bin/docker").chmod(0o755)


def _manifest(root: Path) -> Manifest:
    return Manifest(
        hub="https://hub.example",
        directory=str(root / "models"),
        records=str(root / "records"),
        models=(),
        starters=(f"{root}/starter",),
        leavings=Places(root).leavings(),
    )


def _prune(root: Path, *arguments: str) -> int:
    (root / "manifest.json").write_text(dump(_manifest(root)))
    return cli.main(["prune", "--manifest", str(root / "manifest.json"), *arguments])


def test_what_nothing_names_any_more_is_listed_and_nobody_elses(places: Places, tmp_path: Path) -> None:
    assert remains.remains(_manifest(tmp_path)) == [
        Remain("image", UNUSED, 1000),
        Remain("program", f"{places.programs}/{OLD}", 100),
        Remain("key", "RIG_KEY_OLD"),
    ]


def test_a_manifest_that_says_nothing_of_them_leaves_everything(places: Places, tmp_path: Path) -> None:
    """As of an earlier version, or of anybody's own."""
    own = replace(_manifest(tmp_path), leavings=None)
    assert remains.remains(own) == []
    (tmp_path / "manifest.json").write_text(dump(own))
    assert cli.main(["prune", "--yes", "--keys", "--manifest", str(tmp_path / "manifest.json")]) == 0
    assert (places.programs / OLD).exists()
    assert "RIG_KEY_OLD" in places.keys.read_text()


def test_list_names_them(places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "manifest.json").write_text(dump(_manifest(tmp_path)))
    assert cli.main(["list", "--manifest", str(tmp_path / "manifest.json")]) == 0
    shown = capsys.readouterr().out
    assert f"left behind: the image {UNUSED}, which no engine starts with" in shown
    assert "left behind: the key RIG_KEY_OLD, which no engine and no consumer of the settings has" in shown


def test_prune_deletes_them_and_keys_only_when_asked_to(places: Places, tmp_path: Path) -> None:
    assert _prune(tmp_path, "--yes") == 0
    assert sorted(path.name for path in places.programs.iterdir()) == [NOW, "owners"]
    assert sorted(path.name for path in (tmp_path / "images.d").iterdir()) == sorted(
        image.replace("/", "_") for image in (USED, STRANGE)
    )
    assert UNUSED not in places.images.read_text()
    assert "RIG_KEY_OLD=b" in places.keys.read_text()
    assert _prune(tmp_path, "--yes", "--keys") == 0
    assert places.keys.read_text() == "# Keys\nRIG_KEY_ONE=a\nOWNERS=c\n"
    assert places.keys.stat().st_mode & 0o777 == 0o600
    assert list(places.native_keys.iterdir()) == []


def test_what_was_deleted_is_said_as_json(places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _prune(tmp_path, "--yes", "--json") == 0
    assert [entry["what"].split(",")[0] for entry in json.loads(capsys.readouterr().out)["deleted"]] == [
        f"the image {UNUSED}",
        f"the programs in {places.programs}/{OLD}",
    ]


def test_an_image_that_a_container_uses_stays_and_is_named(
    places: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _docker(tmp_path, busy=UNUSED)
    assert _prune(tmp_path, "--yes") == 1
    said = capsys.readouterr().err
    assert f"the image {UNUSED}, which no engine starts with, is not deleted: image is being used" in said


def test_nothing_is_deleted_while_a_deploy_is_at_work(places: Places, tmp_path: Path) -> None:
    places.deploy.write_text("ann@desk since today")
    holder = os.open(places.deploy, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    refused = pytest.raises(Failed, match=r"^a deploy is at work \(ann@desk since today\); run again")
    with refused, remains.no_deploy(places.leavings()):
        pass
    assert _prune(tmp_path, "--yes") == 1
    assert (places.programs / OLD).exists()
    os.close(holder)
    assert _prune(tmp_path, "--yes") == 0


def test_they_are_looked_for_where_a_deploy_puts_them() -> None:
    found = Leavings()
    assert (found.deploy, found.programs) == (lock.PLACE, str(native.INSTALLED))
    assert (found.keys, found.native_keys) == (secrets.KEYS, secrets.NATIVE)
