"""Files of others that undo ours are named before anything is changed, and those that do not are left alone."""

from __future__ import annotations

import pytest

from rig.facts.overrides import files
from rig.preflight.machine import Overrides
from rig.preflight.overrides import apt_options, problems
from tests.unit.sample import settings

SYSCTL, JOURNALD, APT = "/etc/sysctl.d", "/etc/systemd/journald.conf.d", "/etc/apt/apt.conf.d"
PERIODIC = 'APT::Periodic::Unattended-Upgrade "0";'
NESTED = 'APT { Periodic { Unattended-Upgrade "0"; }; };'
EVERYTHING = 'Unattended-Upgrade::Origins-Pattern { "origin=*"; };'


@pytest.mark.parametrize(
    ("found", "named"),
    [
        (Overrides(sysctl={f"{SYSCTL}/99-own.conf": "vm.swappiness = 60\n"}), "vm.swappiness to 60"),
        (Overrides(sysctl={"/usr/lib/sysctl.d/70-x.conf": "-vm/swappiness=60\n"}), "vm.swappiness to 60"),
        (Overrides(sysctl={f"{SYSCTL}/99-own.conf": "vm.* = 1\n"}), "vm.swappiness to 1"),
        (Overrides(journald={f"{JOURNALD}/90-own.conf": "[Journal]\nSystemMaxUse=9G\n"}), "SystemMaxUse=9G"),
        (Overrides(journald={f"{JOURNALD}/90-own.conf": "[Journal]\nStorage=volatile\n"}), "Storage=volatile"),
        (Overrides(apt={f"{APT}/99own": PERIODIC}), "APT::Periodic::Unattended-Upgrade"),
        (Overrides(apt={f"{APT}/99own": NESTED}), "APT::Periodic::Unattended-Upgrade"),
        (Overrides(apt={f"{APT}/10own": 'APT::Periodic::Enable "0";'}), "APT::Periodic::Enable"),
        (Overrides(apt={"/etc/apt/apt.conf": PERIODIC}), "/etc/apt/apt.conf sets"),
        (Overrides(apt={f"{APT}/90own": EVERYTHING}), "origin=*"),
        (Overrides(apt={f"{APT}/90own": 'Unattended-Upgrade::Automatic-Reboot "true";'}), "Automatic-Reboot"),
        (Overrides(drop_ins=("/etc/systemd/system/rig-firewall.service.d/own.conf",)), "own.conf changes"),
        (
            Overrides(drop_ins=("/run/systemd/system.control/rig-native@two.service.d/50-MemoryMax.conf",)),
            "sudo rm /run/systemd/system.control/rig-native@two.service.d/50-MemoryMax.conf",
        ),
        (Overrides(drop_ins=("/run/systemd/system/prometheus.service.d/rig.conf",)), "prometheus.service"),
    ],
)
def test_a_file_that_undoes_ours_is_named_with_what_it_says(found: Overrides, named: str) -> None:
    said = problems(settings(), found)
    assert said
    assert all(named in sentence for sentence in said if "vm.max_map_count" not in sentence)


@pytest.mark.parametrize(
    "found",
    [
        Overrides(),
        Overrides(sysctl={f"{SYSCTL}/60-rig.conf": "vm.swappiness = 60\n", f"{SYSCTL}/50-x.conf": "vm.swappiness=1\n"}),
        Overrides(sysctl={f"{SYSCTL}/99-own.conf": "# vm.swappiness = 60\nvm.swappiness = 10\nkernel.panic = 1\n"}),
        Overrides(journald={"/etc/systemd/journald.conf": "[Journal]\nSystemMaxUse=9G\n"}),
        Overrides(journald={f"{JOURNALD}/90-own.conf": "[Journal]\nSystemMaxUse=2G\nSyncIntervalSec=1\n"}),
        Overrides(apt={f"{APT}/10periodic": PERIODIC, f"{APT}/50unattended-upgrades": EVERYTHING}),
        Overrides(apt={f"{APT}/99own": f"// {PERIODIC}\n# {PERIODIC}\n/* {PERIODIC} */"}),
        Overrides(apt={f"{APT}/99own": 'Acquire::http::Proxy "http://proxy:3128";'}),
        Overrides(drop_ins=("/etc/systemd/system/prometheus.service.d/rig.conf",)),
    ],
)
def test_a_file_that_undoes_nothing_is_left_alone(found: Overrides) -> None:
    assert problems(settings(), found) == []


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        ("/etc/systemd/system/prometheus-node-exporter.service", "unmask prometheus-node-exporter.service"),
        ("/run/systemd/system/docker.service", "unmask --runtime docker.service"),
        ("/etc/systemd/system/rig-native@two.service", "unmask rig-native@two.service"),
        ("/etc/systemd/system/apt-daily.timer", "unmask apt-daily.timer"),
    ],
)
def test_a_masked_unit_that_a_deploy_runs_is_refused_with_the_command_that_unmasks_it(path: str, remedy: str) -> None:
    (sentence,) = problems(settings(), Overrides(masks=(path,)))
    assert f"sudo systemctl {remedy})" in sentence


def test_a_masked_unit_that_a_deploy_does_not_run_is_left_alone() -> None:
    masks = ("/etc/systemd/system/sleep.target", "/etc/systemd/system/cron.service")
    assert problems(settings({"backup/enabled": False}), Overrides(masks=masks)) == []


def test_both_ways_of_writing_an_option_of_apt_are_read() -> None:
    text = 'A::B "1"; A { B "//2"; L { "x"; "y"; }; };\nA::L:: "z"; // A::B "4";\n'
    assert list(apt_options(text)) == [("A::B", "1"), ("A::B", "//2"), ("A::L", "x"), ("A::L", "y"), ("A::L", "z")]


def test_files_are_told_apart_by_the_comments_of_systemd_analyze() -> None:
    shown = "# /etc/sysctl.d/1.conf\na=1\n# a comment\n\n# /usr/lib/sysctl.d/2.conf\nb=2\n"
    assert files(shown) == {"/etc/sysctl.d/1.conf": "\na=1\n# a comment\n\n", "/usr/lib/sysctl.d/2.conf": "\nb=2\n"}
