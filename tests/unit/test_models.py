"""The settings of rig-models, and the deploy's reaction to every state of a fetch."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from rig.facts import models as facts
from rig.facts.models import DESCRIPTION, Models
from rig.models import fetch
from rig.models.fetch import ModelsState, Step
from rig.operations import models as operations
from rig.operations.models import _Teller, install
from rig.render import render
from rig.wheel import SOURCE, build
from rigd.base.state import FetchState, FileState, as_dict
from rigd.models import manifest as manifests
from rigd.models.manifest import File
from tests.lab.traces import eventually
from tests.unit.sample import settings

WANTED = fetch.manifest(settings())
TAG = fetch.tag(WANTED)
NAMES = frozenset(model.name for model in WANTED.models)
THERE = ModelsState(active=False, manifest="", verified=NAMES)
MISSING = replace(THERE, verified=frozenset())


# The manifest


def test_the_manifest_names_what_enabled_engines_serve() -> None:
    assert {model.name: model.engines for model in WANTED.models} == {
        "llama-3.3-70b-q4": ("one",),
        "llama-3.1-8b-q4": ("two",),
    }
    pinned = settings().models.catalogue["llama-3.1-8b-q4"]
    (model,) = [model for model in WANTED.models if model.name == "llama-3.1-8b-q4"]
    assert (model.repository, model.revision) == (pinned.repository, pinned.revision)
    (file,) = pinned.pinned
    assert model.files == (File(file.file, file.size, file.sha256),)


def test_a_projector_is_fetched_too_and_a_model_of_two_engines_once() -> None:
    changed = settings(
        {
            "engines/one/model": "qwen3-vl-4b-q4",
            "engines/two/model": "qwen3-vl-4b-q4",
            "engines/two/projector": "qwen3-vl-4b-mmproj",
        }
    )
    assert {model.name: model.engines for model in fetch.manifest(changed).models} == {
        "qwen3-vl-4b-q4": ("one", "two"),
        "qwen3-vl-4b-mmproj": ("two",),
    }


def test_files_land_where_engines_look_for_them() -> None:
    for model in WANTED.models:
        assert WANTED.path(model, model.files[0]) == settings().model_path(model.name)


def test_every_setting_of_a_download_reaches_the_program() -> None:
    changed = settings(
        {"models/download": {"parallel": 5, "rate": "20M", "attempts": 3}, "models/hub": "http://mirror"}
    )
    wanted = fetch.manifest(changed)
    assert (wanted.limits.parallel, wanted.limits.bytes_per_second, wanted.limits.attempts) == (5, 20 << 20, 3)
    assert wanted.hub == "http://mirror"
    assert wanted.backup == "/mnt/backup/models"
    assert WANTED.limits.bytes_per_second is None


def test_a_disk_that_the_settings_name_is_asked_for_and_not_the_folder_under_it() -> None:
    mount = {"storage/models/mount": {"source": "LABEL=models"}}
    assert not WANTED.must_be_mount
    assert fetch.manifest(settings(mount)).must_be_mount
    assert fetch.manifest(settings({"storage/models/must_be_mount": True})).must_be_mount


def test_the_program_accepts_every_manifest_that_the_settings_make() -> None:
    assert manifests.parse(manifests.dump(WANTED)) == WANTED


# Decisions


@pytest.mark.parametrize(
    ("state", "steps"),
    [
        (THERE, []),
        (MISSING, ["start"]),
        (replace(THERE, verified=frozenset({"llama-3.1-8b-q4"})), ["start"]),
        (replace(THERE, failed=frozenset({"llama-3.1-8b-q4"})), ["start"]),
        (replace(THERE, verified=NAMES | {"another"}), []),
        (replace(MISSING, active=True, manifest=TAG), []),
        (replace(MISSING, active=True, manifest="another"), ["stop", "start"]),
        (replace(THERE, active=True, manifest=TAG), []),
        (replace(THERE, active=True, manifest="another"), ["stop"]),
    ],
)
def test_a_fetch_is_started_when_one_is_due_and_left_alone_at_its_work(state: ModelsState, steps: list[Step]) -> None:
    assert fetch.steps(state, WANTED) == steps


def _ended(result: str, *errors: str | None, error: str | None = None, digest: str = WANTED.digest) -> ModelsState:
    files = tuple(FileState("m", "f", "failed" if text else "done", 1, 2, error=text) for text in errors)
    return replace(MISSING, fetch=FetchState(digest, 1, 0, 0, result, error, files))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "causes"),
    [
        (_ended("failed", "one is gone", None, "two is gone"), ["one is gone", "two is gone"]),
        (_ended("failed", error="too little space"), ["too little space"]),
    ],
)
def test_a_fetch_that_failed_is_told_with_its_causes(state: ModelsState, causes: list[str]) -> None:
    assert fetch.causes(state, WANTED) == causes


@pytest.mark.parametrize("state", [MISSING, _ended("running"), _ended("failed", "old", digest="another")])
def test_a_fetch_that_vanished_is_told_as_such(state: ModelsState) -> None:
    assert fetch.causes(state, WANTED) == [
        "the fetch ended before it was done, perhaps killed; run the deploy again, and it goes on from there"
    ]


# Output for people


def _running(pid: int, digest: str = WANTED.digest) -> ModelsState:
    files = (FileState("m", "f", "fetching", 1, 2),)
    return replace(MISSING, active=True, holder=7, fetch=FetchState(digest, pid, 0, 0, "running", None, files))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (_running(7), "0 of 1 files, 1 B of 2 B (50 %); fetching m/f"),
        # Left by one that was killed, of the same manifest.
        (_running(6), "the fetch waits for another rig-models (PID 7)"),
        (replace(_running(7), fetch=None), "the fetch waits for another rig-models (PID 7)"),
        # The one that works has only just begun.
        (replace(_running(6), holder=None), None),
        (_running(7, digest="another"), None),
    ],
)
def test_a_wait_is_told_with_its_reason_and_an_old_fetch_is_not_taken_for_it(
    state: ModelsState, said: str | None
) -> None:
    told = fetch.report(state, WANTED)
    assert told == said or (told or "").startswith(f"{said}, ")


@pytest.mark.parametrize(("terminal", "told"), [(True, 4), (False, 2)])
def test_progress_is_kept_current_on_a_terminal_and_is_a_line_a_minute_elsewhere(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, told: int
) -> None:
    lines: list[str] = []
    # Asked when a line is said, and when one may be left out.
    clock = iter([0.0, 2.0, 59.0, 61.0, 61.0])
    monkeypatch.setattr("rig.operations.models.logger.info", lines.append)
    monkeypatch.setattr("rig.operations.models.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    machine = SimpleNamespace(print_prefix="[rig] ", state=SimpleNamespace(inventory=["rig"]))
    teller = _Teller(machine)  # type: ignore[arg-type]
    for number in range(4):
        teller.tell(f"{number} of 4 files")
    assert len(lines) == told
    assert lines[0] == "[rig] 0 of 4 files"
    assert lines[-1] == "[rig] 3 of 4 files"


# The state of the machine


def _seen(unit: str, description: str, said: object | None) -> ModelsState:
    text = f"ActiveState={unit}\nDescription={description}\n"
    return Models().process((text + ("" if said is None else json.dumps(said, indent=2))).splitlines())


def test_a_bare_machine_has_neither_program_nor_fetch() -> None:
    assert _seen("inactive", "rig-models-fetch.service", None) == ModelsState(False, "")


def test_a_fetch_is_recognised_with_its_manifest_and_how_far_it_is() -> None:
    fetch = FetchState("d", 7, 1.0, 2.0, "running", None, (FileState("m", "f", "fetching", 1, 2, 3.0, 4.0),))
    said = {
        "holder": 7,
        "manifest": "d",
        "fetch": as_dict(fetch),
        "models": {"one": {"verified": True, "failure": None}, "two": {"verified": False, "failure": "changed"}},
    }
    assert _seen("active", f"{DESCRIPTION}{TAG}", said) == ModelsState(
        active=True, manifest=TAG, verified=frozenset({"one"}), failed=frozenset({"two"}), fetch=fetch, holder=7
    )


# The program


def test_the_wheel_is_the_same_for_the_same_sources(tmp_path: Path) -> None:
    for path in [*SOURCE.rglob("*.py"), SOURCE / "pyproject.toml"]:
        copy = tmp_path / path.relative_to(SOURCE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (tmp_path / "models" / "__pycache__").mkdir()
    (tmp_path / "models" / "__pycache__" / "cli.cpython-311.pyc").write_bytes(b"x")
    assert build(tmp_path) == build()
    (tmp_path / "models" / "cli.py").write_text("")
    assert build.__wrapped__(tmp_path).version != build().version


def test_everything_in_the_wheel_has_the_hash_of_its_record() -> None:
    with zipfile.ZipFile(BytesIO(build().content)) as wheel:
        assert wheel.testzip() is None
        record = wheel.read("rigd-1.0.dist-info/RECORD").decode().splitlines()
        assert {line.split(",")[0] for line in record} == set(wheel.namelist())
        assert "rigd/models/cli.py" in wheel.namelist()


def test_the_wheel_installs_as_on_a_machine_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    wheel = build()
    (tmp_path / wheel.name).write_bytes(wheel.content)
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    offline = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*offline, str(tmp_path / wheel.name)], check=True, timeout=120)
    done = subprocess.run(
        [home / "bin" / "rig-models", "--help"], capture_output=True, text=True, check=True, timeout=30
    )
    assert "Exits with 0" in done.stdout


def test_the_install_script_is_sound_shell() -> None:
    script = install("/opt/rig/rigd/abc", "/opt/rig/rigd/abc.whl", build())
    subprocess.run(["sh", "-n", "-c", script], check=True)
    stamp = script.index("mv /opt/rig/rigd/abc/.sums /opt/rig/rigd/abc/.complete")
    synced = script.index("sync --file-system /opt/rig/rigd/abc")
    assert stamp > synced > script.index("import prometheus_client, requests, ")


def _emptied(home: Path, packages: Path) -> None:
    (packages / "rigd/models/cli.py").write_bytes(b"")


def _one_byte_changed(home: Path, packages: Path) -> None:
    module = packages / "rigd/base/files.py"
    module.write_bytes(b"#" + module.read_bytes()[1:])


def _a_module_more(home: Path, packages: Path) -> None:
    (packages / "rigd/requests.py").write_text("stranger = True")


def _an_empty_program(home: Path, packages: Path) -> None:
    (home / "bin/rig-models").write_bytes(b"")


def _an_empty_stamp(home: Path, packages: Path) -> None:
    (home / ".complete").write_bytes(b"")


def _no_stamp(home: Path, packages: Path) -> None:
    (home / ".complete").unlink()


def _others_may_write(home: Path, packages: Path) -> None:
    (packages / "rigd/models/cli.py").chmod(0o666)


def _of_somebody_else(home: Path, packages: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    os.chown(packages / "rigd", 1234, 1234)


DAMAGE = [
    *(_emptied, _one_byte_changed, _a_module_more, _an_empty_program, _an_empty_stamp, _no_stamp),
    *(_others_may_write, _of_somebody_else),
]


@pytest.mark.parametrize("damage", [None, *DAMAGE], ids=lambda damage: damage.__name__ if damage else "whole")
def test_programs_count_as_installed_only_while_every_file_is_what_the_wheel_has(
    damage: Callable[[Path, Path], None] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, python = build(), Path("/usr/bin/python3").resolve().name
    monkeypatch.setattr(facts, "PROGRAMS", str(tmp_path))
    monkeypatch.setattr(facts, "LINKS", str(tmp_path / "links"))
    home = tmp_path / wheel.version
    packages = home / "lib" / python / "site-packages"
    for folder in (packages, home / "bin", tmp_path / "links"):
        folder.mkdir(parents=True)
    with zipfile.ZipFile(BytesIO(wheel.content)) as archive:
        archive.extractall(packages)
    for name in wheel.programs:
        (home / "bin" / name).write_text("#!/bin/python")
        (tmp_path / "links" / name).symlink_to(home / "bin" / name)
    subprocess.run("chmod -R go-w . && sha256sum bin/* >.complete", shell=True, cwd=home, check=True)
    if damage is not None:
        damage(home, packages)
    condition = facts.installed(wheel.version, wheel.programs, wheel.modules)
    assert (subprocess.run(["sh", "-c", condition]).returncode == 0) == (damage is None)


def test_an_install_that_waited_for_one_that_finished_has_nothing_to_do_and_fails_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, links, wheel = tmp_path / "programs", tmp_path / "links", build()
    # The libraries are the machine's packages; here they are those of the environment that runs the tests.
    monkeypatch.setenv("PYTHONPATH", sysconfig.get_path("purelib"))
    for module in (facts, operations):
        monkeypatch.setattr(module, "PROGRAMS", str(programs))
        monkeypatch.setattr(module, "LINKS", str(links))
    home, others = programs / wheel.version, programs / "other.whl"
    uploaded = programs / f"{wheel.version}.{wheel.name}"
    script = install(str(home), str(uploaded), wheel)
    links.mkdir()
    (programs / "older").mkdir(parents=True)
    uploaded.write_bytes(wheel.content)
    with subprocess.Popen(["sh", "-c", script]) as first:
        eventually(lambda: not (home / ".began").exists())
        others.write_text("uploaded for a run that waits")
    assert first.returncode == 0
    made = (home / ".complete").stat().st_mtime_ns
    uploaded.write_bytes(wheel.content)
    subprocess.run(["sh", "-c", script], check=True, timeout=120)
    assert (home / ".complete").stat().st_mtime_ns == made
    assert {path.name for path in programs.iterdir()} == {home.name, others.name}
    assert (links / "rig-models").resolve() == home / "bin/rig-models"


def test_an_older_version_that_a_power_cut_brought_back_is_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "PROGRAMS", str(tmp_path))
    for name in ("old", "abc", "later.whl"):
        (tmp_path / name).mkdir()
    (tmp_path / "abc/.began").touch()
    for name, time in (("old", 1000), ("later.whl", 3000), ("abc/.began", 2000)):
        os.utime(tmp_path / name, (time, time))
    listed = subprocess.run(["sh", "-c", facts.older("abc")], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == [str(tmp_path / "old")]
    assert facts.older("abc") in facts.Programs().command("abc", (), "")


def test_the_package_knows_nothing_of_the_deploy_and_runs_alone() -> None:
    """A machine has neither pyinfra nor rig, and only the standard library and requests besides."""
    code = (
        "import sys; sys.path[:] = [path for path in sys.path if 'site-packages' not in path];"
        f"sys.path.insert(0, {str(SOURCE.parent)!r});"
        "import rigd.models.cli, rigd.models.registry, rigd.models.verify;"
        "print({name.partition('.')[0] for name in sys.modules} & {'rig', 'pyinfra', 'pydantic', 'yaml', 'requests'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "set()\n"


def test_the_version_is_a_hash() -> None:
    assert build().version == hashlib.sha256(build().content).hexdigest()[:12]


def test_the_fetch_has_the_sandbox_of_the_scrub_but_for_what_it_must_do() -> None:
    """It reads what strangers send, as root; what it may do besides is named here."""
    scrub = render("/etc/systemd/system/rig-models-scrub.service", models="/mnt/models").partition("[Service]")[2]
    ordinary = {"Type", "ExecStart", "Nice", "IOSchedulingClass", "CPUSchedulingPolicy"}
    pairs = (line.split("=", 1) for line in scrub.splitlines() if line[:1].isalpha())
    wanted = {key: value for key, value in pairs if key not in ordinary}
    found = fetch.properties(WANTED)
    differing = {key for key, value in wanted.items() if found.get(key) != value}
    assert differing == {"PrivateNetwork", "RestrictAddressFamilies", "ReadWritePaths", "CapabilityBoundingSet"}
    assert found["ReadWritePaths"] == '"/mnt/models" /var/lib/rig/models'
    assert "CAP_SYS_ADMIN" not in found["CapabilityBoundingSet"]
