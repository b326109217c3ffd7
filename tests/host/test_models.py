"""Concern models: every model that is served is, byte for byte, the one that the settings pin."""

from __future__ import annotations

from rig.settings import Settings
from tests.host.machine import Machine


def test_model_has_the_size_of_the_settings(machine: Machine, settings: Settings, model: str) -> None:
    assert machine.run(f"stat -c %s {settings.model_path(model)}") == str(settings.models.catalogue[model].size)


def test_model_has_the_hash_of_the_settings(machine: Machine, settings: Settings, model: str) -> None:
    found = machine.run(f"sha256sum {settings.model_path(model)}").split()[0]
    assert found == settings.models.catalogue[model].sha256


def test_model_can_be_read_by_engines_and_changed_by_root_alone(
    machine: Machine, settings: Settings, model: str
) -> None:
    for path in (settings.model_path(model), settings.model_path(model).parent):
        mode, owner, _ = machine.stat(str(path)).split()
        assert owner in ("root", settings.storage.models.owner)
        assert int(mode, 8) & 0o022 == 0, path
        assert int(mode, 8) & 0o004 == 0o004, path


def test_no_download_is_left_unfinished_or_found_wrong(machine: Machine, settings: Settings, model: str) -> None:
    folder = settings.model_path(model).parent
    assert machine.lines(f"find {folder} -name '*.part' -o -name '*.wrong'") == []


def test_verification_of_a_model_is_on_record(machine: Machine, settings: Settings, model: str) -> None:
    """A record of this very file: a file that was changed since has another time or another inode."""
    stat = machine.run(f"stat -c '%s %.Y %.Z %i' {settings.model_path(model)}")
    assert (
        machine.run(f"cat /var/lib/rig/models/{model}.verified") == f"{stat} {settings.models.catalogue[model].sha256}"
    )
