"""The machines of a command: the configured ones or the lab, never both."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.settings import Inventory, NoMachine, SettingsError, load_local, select
from tests.unit.project import WORKSTATION, Project


def chosen(project: Project, **environ: str) -> Inventory:
    return select(project.root, environ)


def test_without_machine_and_lab_there_is_one_clear_sentence(project: Project) -> None:
    with pytest.raises(NoMachine) as told:
        chosen(project)
    assert told.value.report() == (
        "group_data/hosts.yml: no machine is configured and no lab is running; "
        "describe a machine there, or run script/demo"
    )


def test_a_lab_that_was_killed_is_no_lab(project: Project, running_lab: Path) -> None:
    (running_lab / "running").write_text("999999999\n")
    with pytest.raises(NoMachine):
        chosen(project)


def test_a_lab_whose_number_another_process_has_now_is_no_lab(project: Project, running_lab: Path) -> None:
    (running_lab / "running").write_text("1\n")
    with pytest.raises(NoMachine):
        chosen(project)


def test_a_running_lab_is_taken_when_no_machine_is_configured(project: Project, running_lab: Path) -> None:
    assert list(chosen(project).hosts) == ["rig-lab"]


def test_a_running_lab_is_left_out_when_machines_are_configured(project: Project, running_lab: Path) -> None:
    project.write("hosts.yml", WORKSTATION)
    inventory = chosen(project)
    assert list(inventory.hosts) == ["workstation"]
    assert inventory.remark == "the running lab is left out, as machines are configured; RIG_LAB=.lab selects it"


def test_a_lab_that_is_named_is_taken_instead_of_the_machines(project: Project, running_lab: Path) -> None:
    project.write("hosts.yml", WORKSTATION)
    other = running_lab.rename(project.root / "other")
    assert list(chosen(project, RIG_LAB="other").hosts) == ["rig-lab"]
    assert list(chosen(project, RIG_LAB=str(other)).hosts) == ["rig-lab"]


def test_a_lab_that_is_named_must_run(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    with pytest.raises(NoMachine) as told:
        chosen(project, RIG_LAB=".lab")
    assert told.value.report() == "RIG_LAB: no lab is running in .lab; start it, or unset RIG_LAB"


def test_only_a_lab_may_be_in_the_group_of_the_lab(project: Project, running_lab: Path) -> None:
    (running_lab / "hosts.yml").write_text("hosts:\n  rig-lab: {address: 10.77.0.2, groups: [lab]}\n")
    project.write("lab.yml", "machine: {timezone: Asia/Tokyo}\n")
    assert chosen(project).hosts["rig-lab"].settings.machine.timezone == "Asia/Tokyo"


def test_a_mistake_in_the_labs_own_file_is_told_with_its_path(project: Project, running_lab: Path) -> None:
    (running_lab / "hosts.yml").write_text("hosts:\n  rig-lab: {address: 10.77.0.2, usr: x}\n")
    with pytest.raises(SettingsError) as told:
        chosen(project)
    assert told.value.report() == ".lab/hosts.yml:2: hosts.rig-lab.usr: unknown key; write 'user'"


def test_this_machine_is_what_all_yml_says_when_hosts_yml_does_not_name_it(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    project.write("workstation.yml", "machine: {timezone: Asia/Tokyo}\n")
    assert load_local(project.root).machine("@local").settings.machine.timezone == "Etc/UTC"


def test_this_machine_is_the_one_of_hosts_yml_that_is_local(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION.replace("192.168.1.20", '"@local"'))
    project.write("workstation.yml", "machine: {timezone: Asia/Tokyo}\n")
    host = load_local(project.root).machine("@local")
    assert (host.name, host.connector_name, host.settings.machine.timezone) == (
        "workstation",
        "@local",
        "Asia/Tokyo",
    )


def test_a_machine_that_is_not_there_is_told_with_those_that_are(project: Project) -> None:
    project.write("hosts.yml", WORKSTATION)
    with pytest.raises(NoMachine) as told:
        chosen(project).machine("desk")
    assert told.value.report() == (
        "group_data/hosts.yml: there is no machine 'desk'; describe it there or take 'workstation'"
    )
