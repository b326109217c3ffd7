"""Sandboxes as systemd counts them: 2.0 points at most for each unit of ours, or the number that its file explains."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rig.render import render
from tests.unit.project import ROOT

UNITS = sorted((ROOT / "files/etc/systemd/system").glob("*.service"))
DROP_INS = ("prometheus", "prometheus-alertmanager", "prometheus-node-exporter")
"""Services of the distribution's that a drop-in of ours confines."""
MOST = 2.0
REASONED = {"rig-metrics.service": 2.3}
SYSTEMD = ROOT / "templates/etc/systemd/system"
TEMPLATES = sorted(path.name.removesuffix(".j2") for path in SYSTEMD.glob("*.service.j2"))
VALUES = {
    "exec_start": "/bin/true",
    "memory": "64M",
    "soft_memory": "60MiB",
    "secrets": {},
    "models": "/mnt/models",
    "configuration": "/etc/rig/gateway",
    "user": "rig-gateway",
    "before": [],
}
"""Values of every template; none of them decides what a unit may do."""


def _version() -> int:
    """systemd's version; 0 without it. Points changed before 252, which is Debian 12's."""
    if shutil.which("systemd-analyze") is None:
        return 0
    shown = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"systemd (\d+)", shown)
    return int(found[1]) if found else 0


pytestmark = pytest.mark.skipif(_version() < 252, reason="systemd-analyze 252 or later is not installed")


def _points(unit: Path) -> float:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_may_do_little(unit: Path) -> None:
    most = REASONED.get(unit.name, MOST)
    assert _points(unit) <= most
    assert most == MOST or str(most) in unit.read_text(encoding="utf-8"), "the unit gives no reason"


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_unit_that_the_settings_make_may_do_little(tmp_path: Path, name: str) -> None:
    unit = tmp_path / name
    unit.write_text(render(f"/etc/systemd/system/{name}", **VALUES), encoding="utf-8")
    assert _points(unit) <= MOST


@pytest.mark.parametrize("name", DROP_INS)
def test_a_service_of_the_distribution_may_do_little_with_our_drop_in(tmp_path: Path, name: str) -> None:
    """Whatever the distribution's own file says: it differs from release to release."""
    unit = tmp_path / f"{name}.service"
    drop_in = render(f"/etc/systemd/system/{name}.service.d/rig.conf", **VALUES)
    unit.write_text(f"[Service]\nUser=prometheus\nExecStart=/bin/true\n{drop_in}", encoding="utf-8")
    assert _points(unit) <= MOST


def test_every_service_of_the_distribution_with_a_drop_in_is_counted() -> None:
    """Those of an engine say which program it is; its own unit is counted."""
    found = {path.parent.name.removesuffix(".service.d") for path in SYSTEMD.glob("*.service.d/*")}
    assert {name for name in found if "@ENGINE" not in name} == set(DROP_INS)


def test_a_unit_without_a_sandbox_is_seen(tmp_path: Path) -> None:
    unit = tmp_path / "bare.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n", encoding="utf-8")
    assert _points(unit) > 9
