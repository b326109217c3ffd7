"""Concern models: every served model matches its pins, byte for byte."""

from __future__ import annotations

from rig.settings import Settings
from tests.host.machine import Machine

RECORDS = "/var/lib/rig/models"
PROGRAM = "/usr/local/bin/rig-models"


def test_model_has_the_sizes_of_the_settings(machine: Machine, settings: Settings, model: str) -> None:
    for path, file in settings.model_files(model).items():
        assert machine.run(f"stat -c %s {path}") == str(file.size), path


def test_model_has_the_hashes_of_the_settings(machine: Machine, settings: Settings, model: str) -> None:
    for path, file in settings.model_files(model).items():
        assert machine.run(f"sha256sum {path}").split()[0] == file.sha256, path


def test_model_can_be_read_by_engines_and_changed_by_root_alone(
    machine: Machine, settings: Settings, model: str
) -> None:
    for file in settings.model_files(model):
        for path in (file, file.parent, settings.model_folder(model).parent):
            mode, owner, _ = machine.stat(str(path)).split()
            assert owner in ("root", settings.storage.models.owner)
            assert int(mode, 8) & 0o022 == 0, path
            assert int(mode, 8) & 0o004 == 0o004, path


def test_no_download_is_left_unfinished(machine: Machine, settings: Settings, model: str) -> None:
    assert machine.lines(f"find {settings.model_folder(model)} -name '*.part'") == []


def test_verification_of_a_model_is_on_record(machine: Machine, settings: Settings, model: str) -> None:
    """A record of these very files: a file that changed since has other times or another inode."""
    record = machine.json(f"cat {RECORDS}/{model}.verified")
    assert record["revision"] == settings.models.catalogue[model].chosen.revision
    assert record["directory"] == str(settings.model_folder(model))
    for path, file in settings.model_files(model).items():
        found = record["files"][file.file]
        size, changed, touched, inode = machine.run(f"stat -c '%s %.9Y %.9Z %i' {path}").split()
        assert found["sha256"] == file.sha256
        assert found["stamp"] == {
            "size": int(size),
            "mtime_ns": int(changed.replace(".", "")),
            "ctime_ns": int(touched.replace(".", "")),
            "inode": int(inode),
        }


def test_no_model_is_marked_as_changed(machine: Machine) -> None:
    assert machine.lines(f"ls {RECORDS}/*.failed 2>/dev/null || true") == []


def test_program_says_that_every_model_is_verified(machine: Machine, settings: Settings) -> None:
    status = machine.json(f"{PROGRAM} status --json")
    assert status["models"] == {name: {"verified": True, "failure": None} for name in settings.needed_models}
    assert status["holder"] is None


def test_program_lists_who_serves_a_model(machine: Machine, settings: Settings, model: str) -> None:
    (row,) = [row for row in machine.json(f"{PROGRAM} list --json") if row["model"] == model]
    serving = [name for name, engine in settings.enabled_engines.items() if model in engine.model_names]
    assert row["engines"] == serving
    assert row["size"] == settings.models.catalogue[model].chosen.size


def test_manifest_can_be_changed_by_root_alone(machine: Machine) -> None:
    assert machine.stat("/etc/rig/models.json") == "644 root root"


def test_program_can_be_changed_by_root_alone(machine: Machine) -> None:
    home = machine.run(f"readlink -f {PROGRAM}").removesuffix("/bin/rig-models")
    assert home.startswith("/opt/rig/rigd/")
    assert machine.lines(f"find {home} ! -type l -perm /022; find {home} ! -user root") == []


def test_models_are_read_again_from_time_to_time(machine: Machine, settings: Settings) -> None:
    timer = machine.unit("rig-models-scrub.timer", "ActiveState", "UnitFileState", "TimersCalendar")
    assert (timer["ActiveState"], timer["UnitFileState"]) == ("active", "enabled")
    normalized = machine.run(f"systemd-analyze calendar {settings.models.scrub} | sed -n 's/.*Normalized form: //p'")
    assert f"OnCalendar={normalized} " in timer["TimersCalendar"]


def test_reading_them_again_leaves_the_machine_to_everybody_else(machine: Machine) -> None:
    service = machine.unit("rig-models-scrub.service", "Nice", "IOSchedulingClass", "CPUSchedulingPolicy")
    # 3: idle; 5: SCHED_IDLE.
    assert service == {"Nice": "19", "IOSchedulingClass": "3", "CPUSchedulingPolicy": "5"}


def test_engine_does_not_start_with_a_model_that_changed(machine: Machine, settings: Settings, engine: str) -> None:
    entry = settings.enabled_engines[engine]
    unit = machine.unit(settings.unit(engine), "DropInPaths")
    text = machine.run(f"cat {unit['DropInPaths']}")
    for model in entry.model_names:
        assert f"\nAssertPathExists=!{RECORDS}/{model}.failed\n" in f"{text}\n"
