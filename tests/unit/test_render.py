"""Templates stand where their files land, and a missing value stops the run before anything is changed."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
import yaml
from jinja2 import UndefinedError

from rig import render
from rig.render import ROOT

TEMPLATES = sorted(
    "/" + str(path.relative_to(ROOT / "templates")).removesuffix(".j2") for path in (ROOT / "templates").rglob("*.j2")
)
FILES = sorted("/" + str(path.relative_to(ROOT / "files")) for path in (ROOT / "files").rglob("*") if path.is_file())


@pytest.mark.parametrize("target", TEMPLATES)
def test_a_template_without_its_values_is_an_error_and_not_a_gap(target: str) -> None:
    with pytest.raises((UndefinedError, yaml.YAMLError)):
        render.render(target)


@pytest.mark.parametrize("target", TEMPLATES)
def test_a_template_says_first_what_it_is_for(target: str) -> None:
    lines = (ROOT / "templates" / f"{target[1:]}.j2").read_text(encoding="utf-8").splitlines()
    assert next(line for line in lines if not line.startswith("#!")).startswith(("# ", "// ", "-- "))


@pytest.mark.parametrize("target", FILES)
def test_a_file_is_copied_byte_by_byte(target: str) -> None:
    assert render.own_file(target) == (ROOT / "files" / target[1:]).read_text(encoding="utf-8")


def _unit(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_the_scrub_sees_models_wherever_they_lie_and_waits_for_their_disk() -> None:
    unit = _unit(render.render("/etc/systemd/system/rig-models-scrub.service", models="/home/models"))
    assert unit["Unit"]["RequiresMountsFor"] == "/home/models"
    assert unit["Service"]["ProtectHome"] == "read-only"


def test_a_mount_names_disk_place_and_options() -> None:
    text = render.render(
        "/etc/systemd/system/MOUNT.mount",
        where="/mnt/models",
        device="/dev/disk/by-label/models",
        filesystem="xfs",
        options=("noatime", "nofail"),
    )
    assert dict(_unit(text)["Mount"]) == {
        "What": "/dev/disk/by-label/models",
        "Where": "/mnt/models",
        "Type": "xfs",
        "Options": "noatime,nofail",
    }


def test_the_journal_has_the_limits_of_the_settings_and_outlives_a_boot() -> None:
    text = render.render("/etc/systemd/journald.conf.d/60-rig.conf", max_use="64M", max_retention="7day")
    assert dict(_unit(text)["Journal"]) == {
        "Storage": "persistent",
        "SystemMaxUse": "64M",
        "MaxRetentionSec": "7day",
    }


@pytest.mark.parametrize(("enabled", "digit"), [(True, "1"), (False, "0")])
def test_updates_are_looked_for_when_the_settings_say_so(enabled: bool, digit: str) -> None:
    text = render.render("/etc/apt/apt.conf.d/20auto-upgrades", enabled=enabled)
    assert text.count(f'"{digit}";') == 2


def test_kernel_parameters_stand_a_line_each() -> None:
    text = render.render("/etc/sysctl.d/60-rig.conf", values={"vm.swappiness": "10", "net.core.somaxconn": "4096"})
    assert text.splitlines()[1:] == ["vm.swappiness = 10", "net.core.somaxconn = 4096"]


def test_a_block_list_may_be_empty() -> None:
    target = "/etc/apt/apt.conf.d/52rig-unattended-upgrades"
    assert '"nvidia-";' in render.render(target, blocklist=("nvidia-",))
    assert "Package-Blacklist {\n};" in render.render(target, blocklist=())


def test_yaml_keeps_the_order_of_keys_and_quotes_what_is_no_text() -> None:
    value = {"z": "yes", "a": "1", "m": ["8002:8002"], "empty": {}}
    text = render.render("/etc/rig/compose.yaml", compose=value)
    assert list(yaml.safe_load(text).items()) == list(value.items())


def test_every_template_and_file_lands_below_etc() -> None:
    assert [Path(target).parts[1] for target in (*TEMPLATES, *FILES)] == ["etc"] * len((*TEMPLATES, *FILES))
