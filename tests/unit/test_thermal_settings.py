"""Every setting of the thermal monitor reaches it, and what has privileges is there only when it is asked for."""

from __future__ import annotations

import re

import pytest

from rig.facts.thermal import Thermal, ThermalState
from rig.monitoring import thermal
from rig.render import own_file
from rigd.thermal.config import Config, OnCritical, dump, parse
from rigd.thermal.levels import Hot, Warm
from rigd.thermal.places import Places
from tests.unit.project import Project
from tests.unit.sample import settings

AT = "monitoring/thermal"


def test_every_setting_reaches_the_monitor() -> None:
    changed = settings(
        {
            AT: {
                "enabled": True,
                "interval": 7,
                "timeout": 3,
                "warning": {"margin": 9, "temperature": 70, "after": 11},
                "critical": {"margin": 4, "temperature": 77},
                "band": 6,
                "settle": 13,
                "on_critical": {"power_limit": 200, "stop_engine": "two", "restore": False},
                "notify": True,
            }
        }
    )
    wanted = Config(
        warning=Warm(9, 70, 11),
        critical=Hot(4, 77),
        band=6,
        settle=13,
        interval=7,
        timeout=3,
        on_critical=OnCritical(200, "rig-native@two.service", False),
    )
    assert thermal.config(changed) == wanted
    assert parse(dump(wanted)) == wanted


def test_the_shipped_settings_are_the_programs_own_defaults() -> None:
    assert thermal.config(settings()) == Config()


def test_an_engine_in_a_container_is_stopped_by_its_own_unit() -> None:
    changed = settings({f"{AT}/on_critical/stop_engine": "one"})
    assert thermal.config(changed).on_critical.unit == "rig-container@one.service"


@pytest.mark.parametrize(
    ("changes", "units"),
    [
        ({}, (thermal.MONITOR,)),
        ({f"{AT}/enabled": False, f"{AT}/notify": True, f"{AT}/on_critical/power_limit": 250}, ()),
        ({f"{AT}/on_critical/power_limit": 250}, (thermal.MONITOR, *thermal.COOL)),
        ({f"{AT}/on_critical/stop_engine": "two"}, (thermal.MONITOR, *thermal.COOL)),
        ({f"{AT}/notify": True}, (thermal.MONITOR, *thermal.NOTIFY)),
    ],
)
def test_units_with_privileges_are_there_when_they_have_something_to_do(
    changes: dict[str, object], units: tuple[str, ...]
) -> None:
    assert thermal.units(settings(changes)) == units


def test_figures_are_linked_where_somebody_reads_them() -> None:
    assert thermal.linked(settings())
    assert not thermal.linked(settings({"monitoring/enabled": False}))
    assert not thermal.linked(settings({f"{AT}/enabled": False}))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"critical.margin": "5"}, "critical.margin: 5 is reached before the 5 of warning.margin; write a smaller one"),
        (
            {"critical.temperature": "80"},
            "critical.temperature: 80 is reached before the 85 of warning.temperature; write a larger one",
        ),
        ({"timeout": "60"}, "timeout: 60 is not shorter than the 60 of interval; write less"),
        (
            {"on_critical.stop_engine": "lama-8b"},
            "on_critical.stop_engine: 'lama-8b' is no enabled engine; write 'llama-8b' or null",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(project: Project, data: dict[str, str], said: str) -> None:
    project.write("hosts.yml", "hosts:\n  box: {address: 192.168.1.20, user: owner}\n")
    (told,) = project.problems(**{f"monitoring.thermal.{key}": value for key, value in data.items()})
    assert said in told


def test_the_units_watch_the_files_that_the_program_writes() -> None:
    places = Places()
    assert f"PathChanged={places.wanted}\n" in own_file(thermal.unit_path("rig-thermal-cool.path"))
    assert f"PathChanged={places.level}\n" in own_file(thermal.unit_path("rig-thermal-notify.path"))
    for unit, folder in ((thermal.MONITOR, places.monitor), ("rig-thermal-cool.service", places.root)):
        found = re.search(r"^RuntimeDirectory=(.+)$", own_file(thermal.unit_path(unit)), re.MULTILINE)
        assert found is not None
        assert f"/run/{found[1]}" == str(folder)


def test_what_is_on_a_machine_is_seen() -> None:
    output = [
        "Id=rig-thermal.service",
        "NeedDaemonReload=yes",
        "",
        "Id=rig-thermal-cool.path",
        "NeedDaemonReload=no",
        "/etc/systemd/system/rig-thermal.service",
        "Link=/run/rig-thermal/rig_gpu.prom",
        'Applied={"power": {}, "unit": null}',
    ]
    unit = frozenset({"rig-thermal.service"})
    assert Thermal().process(output) == ThermalState(unit, unit, "/run/rig-thermal/rig_gpu.prom", True)
    assert Thermal().process(["Link="]) == ThermalState(frozenset(), frozenset(), "", False)
