"""The thermal monitor as a real service, sandboxed by a real systemd, on a machine whose card is a state file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lab.machine import CHECKOUT, NAME, Lab
from rig.monitoring import dashboards
from tests.lab import receivers
from tests.lab.conftest import Machines
from tests.lab.fingerprint import lives, restarted
from tests.lab.prometheus import lines, undrawn
from tests.lab.runs import host_tests, plan, run
from tests.lab.traces import eventually

SERVICE = "rig-thermal.service"
ENGINE = "rig-native@llama-8b.service"
STATE = "/var/lib/rig-lab/gpu.json"
CARD = "GPU-5c1b6d2e-0f3a-4f7c-9b8e-2d6a41c07e95"

SETTINGS = {
    "interval": 2,
    "timeout": 1,
    "warning": {"after": 4},
    "settle": 4,
    "on_critical": {"power_limit": 260, "stop_engine": "llama-8b"},
    "notify": True,
}
"""Like the shipped ones, with shorter times and measures."""

# The stand-in writes its state to a place where a real card does not.
DROP_IN = "/usr/lib/systemd/system/rig-thermal-cool.service.d/lab.conf"

COOL: dict[str, Any] = {}
WARM = {"temperature.gpu": 84, "temperature.gpu.tlimit": 4}
HOT = {"temperature.gpu": 87, "temperature.gpu.tlimit": 1}

WRITE = "monitoring | Write the thermal monitor's units and settings"
SETTLE = "monitoring | Enable the thermal monitor's units"
RUN = "monitoring | Run the thermal monitor"


class Card:
    """The machine's card, and the reports about it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.since = ""

    def set(self, values: dict[str, Any] | None = None, **state: Any) -> None:
        """Set nvidia-smi's answers; later queries of the journal begin at this moment."""
        text = json.dumps({"gpus": [values or {}]} | state)
        self.since = self.lab.sudo(
            f"cat >{STATE}.new && mv {STATE}.new {STATE} && date +@%s.%N", input=text
        ).stdout.strip()

    def entries(self, **fields: object) -> list[dict[str, str]]:
        """The monitor's entries with these fields, since the card was set."""
        match = " ".join(f"RIG_{name.upper()}={value}" for name, value in fields.items())
        shown = self.lab.sudo(
            f"journalctl --quiet --output=json --since={self.since} SYSLOG_IDENTIFIER=rig-thermal {match}"
        )
        return [json.loads(line) for line in shown.stdout.splitlines()]

    def told(self, text: str, **fields: object) -> list[str]:
        """Empty once there is such an entry: for `eventually`."""
        found = self.entries(**fields)
        return [] if any(text in entry["MESSAGE"] for entry in found) else [f"no '{text}' in {found[-3:]}"]

    def metric(self, name: str) -> float | None:
        """The value in node_exporter."""
        shown = self.lab.sudo("curl --silent --fail --max-time 10 http://127.0.0.1:9100/metrics").stdout
        starts = (f"{name} ", f"{name}{{")
        found = [line for line in shown.splitlines() if line.startswith(starts)]
        return float(found[0].rsplit(" ", 1)[1]) if found else None

    def shows(self, name: str, value: float | None) -> list[str]:
        """Empty once node_exporter has this value: for `eventually`."""
        found = self.metric(name)
        return [] if found == value else [f"{name} is {found}"]

    @property
    def watts(self) -> float:
        """The present limit of the card."""
        return float(self.lab.sudo("nvidia-smi --query-gpu=power.limit --format=csv,noheader,nounits").stdout)

    def is_watts(self, value: float) -> list[str]:
        found = self.watts
        return [] if found == value else [f"the limit is {found} W"]

    def unit(self, name: str, state: str) -> list[str]:
        found = self.lab.sudo(f"systemctl is-active {name}", check=False).stdout.strip()
        return [] if found == state else [f"{name} is {found}"]


def _choose(lab: Lab, thermal: dict[str, Any], told: dict[str, Any] | None = None) -> None:
    """Write the monitor's settings into the machine's own, and for the first deploy the receivers."""
    path = lab.directory / "hosts.yml"
    hosts: dict[str, Any] = yaml.safe_load(path.read_text())
    monitoring = hosts["hosts"][NAME]["settings"].setdefault("monitoring", {})
    monitoring |= {"thermal": thermal} | ({} if told is None else {"receivers": told})
    path.write_text(yaml.safe_dump(hosts))


@pytest.fixture(scope="module")
def booted(machines: Machines) -> Lab:
    return machines.boot(name="thermal", converged=True)


@pytest.fixture(scope="module")
def web(booted: Lab) -> Iterator[receivers.Web]:
    """A receiver of alerts on the machine's network."""
    with receivers.web(booted.network.operator) as found:
        yield found


@pytest.fixture(scope="module")
def machine(booted: Lab, web: receivers.Web) -> Lab:
    """A deployed machine with a card, for the tests of this module."""
    lab = booted
    lab.sudo(f"install -d {STATE.rpartition('/')[0]} {DROP_IN.rpartition('/')[0]}")
    program = (CHECKOUT / "lab" / "standins" / "nvidia-smi").read_text()
    lab.sudo("cat >/usr/bin/nvidia-smi && chmod 755 /usr/bin/nvidia-smi", input=program)
    lab.sudo(f"cat >{DROP_IN}", input=f"[Service]\nReadWritePaths={STATE.rpartition('/')[0]}\n")
    hook = {"kind": "webhook", "url": f"http://{lab.network.operator}:{web.port}/hook"}
    _choose(lab, {"enabled": True, **SETTINGS}, {"hook": hook})
    assert RUN in run(lab).changes
    return lab


@pytest.fixture
def card(machine: Lab) -> Iterator[Card]:
    """A cool card; cool again after the test."""
    card = Card(machine)
    card.set()
    yield card
    card.set()
    eventually(lambda: card.shows("rig_gpu_thermal_level", 0), seconds=60)
    eventually(lambda: card.unit(ENGINE, "active"), seconds=60)


def test_it_is_as_the_host_tests_want_it_and_a_second_run_changes_nothing(machine: Lab, card: Card) -> None:
    eventually(lambda: card.shows("rig_gpu_reading_success", 1))
    verdict = host_tests(machine, "-k", "test_thermal or test_monitoring")
    assert verdict.code == 0, verdict.output
    assert run(machine).changes == set()


def test_a_warm_card_is_warned_of_and_one_that_cooled_down_is_not(card: Card) -> None:
    card.set(WARM)
    eventually(lambda: card.told("rose from ok to warning", event="level", level="warning"))
    (entry,) = card.entries(event="level")
    assert (entry["PRIORITY"], entry["RIG_TEMPERATURE"], entry["RIG_MARGIN"]) == ("4", "84.0", "4.0")
    assert entry["_SYSTEMD_UNIT"] == SERVICE
    eventually(lambda: card.shows("rig_gpu_thermal_level", 1))
    assert card.metric("rig_gpu_temperature_margin_celsius") == 4
    eventually(lambda: card.told("below its limit", event="reading", level="warning"))
    assert {entry["PRIORITY"] for entry in card.entries(event="reading", level="warning")} == {"4"}

    card.set(COOL)
    eventually(lambda: card.told("fell from warning to ok", event="level"))
    assert card.entries(event="level")[0]["PRIORITY"] == "5"
    eventually(lambda: card.shows("rig_gpu_thermal_level", 0))
    eventually(lambda: card.told("35 C", event="reading", level="ok"))
    assert {entry["PRIORITY"] for entry in card.entries(event="reading", level="ok")} == {"6"}


def test_a_critical_card_is_cooled_as_its_owner_wants_and_that_is_said_and_taken_back(card: Card) -> None:
    card.set(HOT)
    eventually(lambda: card.told("rose from warning to critical", event="level", level="critical"))
    assert [entry["PRIORITY"] for entry in card.entries(event="level")] == ["4", "2"]
    eventually(lambda: card.is_watts(260))
    eventually(lambda: card.unit(ENGINE, "inactive"), seconds=60)
    eventually(lambda: card.told(f"the power limit of {CARD} is lowered to 260 W from 300 W", event="cooling"))
    eventually(lambda: card.told(f"{ENGINE} is stopped, because", event="cooling"))
    assert {entry["PRIORITY"] for entry in card.entries(event="cooling")} == {"4"}
    eventually(lambda: card.shows('rig_gpu_cooling{measure="power_limit"}', 1))
    eventually(lambda: card.shows('rig_gpu_cooling{measure="engine"}', 1))
    status = json.loads(card.lab.ssh("rig-thermal status --json").stdout)
    assert status["cooling"] == {"power_limit": True, "engine": True}

    # If somebody raises the limit meanwhile, it is lowered again; an engine that somebody starts is left alone.
    card.lab.sudo(f"systemctl start {ENGINE} && nvidia-smi -pl 300")
    eventually(lambda: card.is_watts(260))
    assert card.unit(ENGINE, "active") == []
    card.lab.sudo(f"systemctl stop {ENGINE}")

    card.set({"power.limit": 260})
    eventually(lambda: card.is_watts(300), seconds=60)
    eventually(lambda: card.unit(ENGINE, "active"), seconds=60)
    eventually(lambda: card.told("is 300 W again", event="cooling"))
    eventually(lambda: card.told(f"{ENGINE} is started again", event="cooling"))
    eventually(lambda: card.shows('rig_gpu_cooling{measure="power_limit"}', 0))
    eventually(lambda: card.shows('rig_gpu_cooling{measure="engine"}', 0))


def test_a_card_that_is_too_hot_is_told_to_its_owner_and_told_again_when_it_has_cooled(
    card: Card, web: receivers.Web
) -> None:
    """From the card through monitor, node_exporter, Prometheus and Alertmanager to the receiver."""
    web.posts.clear()
    card.set(HOT)
    eventually(lambda: not web.alerts("GpuTooHot", "firing"), seconds=60)
    alert = web.alerts("GpuTooHot", "firing")[-1]
    assert (alert["labels"]["gpu"], alert["labels"]["severity"]) == (CARD, "critical")
    assert alert["annotations"]["summary"] == "The GPU is critically hot."

    card.set({"power.limit": 260})
    began = alert["startsAt"]
    eventually(lambda: began not in [one["startsAt"] for one in web.alerts("GpuTooHot", "resolved")], seconds=60)


def test_every_line_of_the_cards_dashboard_is_drawn_with_its_legend(card: Card) -> None:
    drawn = lines(dashboards.GPU)
    assert len(drawn) >= len(dashboards.GPU.panels)
    eventually(lambda: undrawn(card.lab, drawn), seconds=60)


def test_a_monitor_that_was_killed_comes_back_and_takes_back_what_it_had_done(card: Card) -> None:
    card.set(HOT)
    eventually(lambda: card.is_watts(260))
    before = card.lab.sudo(f"systemctl show --property=MainPID --value {SERVICE}").stdout
    card.lab.sudo(f"systemctl kill --signal=KILL {SERVICE}")
    card.set({"power.limit": 260})
    eventually(lambda: card.is_watts(300), seconds=60)
    assert card.lab.sudo(f"systemctl show --property=MainPID --value {SERVICE}").stdout != before


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ({"fault": "hang"}, "timeout"),
        ({"fault": "no-driver"}, "no_driver"),
        ({"fault": "no-devices"}, "no_card"),
        ({"fault": "mismatch"}, "mismatch"),
        ({"fault": "garbage"}, "unreadable"),
        ({"fault": "half"}, "unreadable"),
        ({"gpus": [{"temperature.gpu": None, "temperature.gpu.tlimit": None}]}, "no_temperature"),
    ],
)
def test_whatever_nvidia_smi_does_the_monitor_goes_on_and_says_so(
    card: Card, state: dict[str, Any], cause: str
) -> None:
    eventually(lambda: card.shows("rig_gpu_reading_success", 1))
    life = lives(card.lab)[SERVICE]
    card.set(**state)
    eventually(lambda: card.told("the card cannot be read", event="failure", cause=cause))
    eventually(lambda: card.shows("rig_gpu_reading_success", 0))
    failures = f'rig_gpu_reading_failures_total{{cause="{cause}"}}'
    first = card.metric(failures) or 0
    eventually(lambda: [] if (card.metric(failures) or 0) > first + 1 else ["no further reading"], seconds=30)
    assert card.metric("node_textfile_scrape_error") == 0
    # At most one, the query of this moment; and no zombie.
    there = card.lab.sudo("ps -e -o stat=,args= | grep -c '[n]vidia-smi' || true").stdout
    assert int(there) <= 1
    assert len(card.entries(event="failure")) == 1
    status = card.lab.ssh("rig-thermal status", check=False)
    assert status.returncode == 1 and status.stderr.startswith("rig-thermal: ")

    card.set()
    eventually(lambda: card.told("the card can be read again", event="recovery"))
    eventually(lambda: card.shows("rig_gpu_reading_success", 1))
    assert lives(card.lab)[SERVICE] == life


def test_a_card_that_tells_less_is_watched_by_what_it_tells(card: Card) -> None:
    card.set(
        {"temperature.gpu": 91, "temperature.gpu.tlimit": None, "power.draw": "[Not Supported]"},
        unknown_fields=["fan.speed"],
    )
    eventually(lambda: card.told("rose from warning to critical", event="level"))
    eventually(lambda: card.shows("rig_gpu_temperature_celsius", 91))
    for name in ("rig_gpu_temperature_margin_celsius", "rig_gpu_power_watts", "rig_gpu_fan_ratio"):
        assert card.metric(name) is None


def test_an_xid_in_the_kernels_log_is_told_and_counted(card: Card) -> None:
    """A lab's kernel is the operator's, and nobody may write its log: the entry comes as if from another machine."""
    lab = card.lab
    lab.sudo("DEBIAN_FRONTEND=noninteractive apt-get install -y -q systemd-journal-remote", timeout=300)
    lab.sudo(
        "machine=$(cat /etc/machine-id) boot=$(tr -d - </proc/sys/kernel/random/boot_id)\n"
        'printf "__REALTIME_TIMESTAMP=%s000000\\n__MONOTONIC_TIMESTAMP=9000000\\n_BOOT_ID=%s\\n_MACHINE_ID=%s\\n'
        "_TRANSPORT=kernel\\nPRIORITY=3\\nMESSAGE=NVRM: Xid (PCI:0000:01:00): 79, pid=1, GPU has fallen off the bus."
        '\\n\\n" "$(date +%s)" "$boot" "$machine" '
        "| /usr/lib/systemd/systemd-journal-remote --output=/var/log/journal/$machine/kernel.journal -"
    )
    eventually(lambda: card.told("Xid 79 of the card at 0000:01:00: pid=1, GPU has fallen off the bus.", event="xid"))
    assert card.entries(event="xid")[0]["PRIORITY"] == "3"
    eventually(lambda: card.shows('rig_gpu_xid_errors_total{bus="0000:01:00",xid="79"}', 1))
    lab.sudo("rm /var/log/journal/*/kernel.journal; apt-get purge -y -q --autoremove systemd-journal-remote")


def test_device_files_that_come_later_are_let_in(card: Card) -> None:
    """The device files made here are other names of /dev/null."""
    before = lives(card.lab)[SERVICE]
    card.lab.sudo("mknod -m 666 /dev/nvidia0 c 1 3")
    eventually(lambda: card.told("the device files of the card are other ones", event="devices"))
    eventually(lambda: [] if lives(card.lab).get(SERVICE, before) != before else ["it is the same"], seconds=30)
    card.lab.sudo("rm /dev/nvidia0")


def test_a_changed_setting_restarts_the_monitor_and_nothing_else(card: Card) -> None:
    lived = lives(card.lab)
    changed = ("--data", "monitoring.thermal.band=4")
    assert run(card.lab, *changed).changes == {WRITE, RUN}
    assert restarted(lived, lives(card.lab)) == {SERVICE}
    assert run(card.lab, *changed).changes == set()
    assert run(card.lab).changes == {WRITE, RUN}


def test_what_somebody_changed_is_seen_and_mended(card: Card) -> None:
    card.lab.sudo(
        "sed -i 's/\"interval\": 2/\"interval\": 3600/' /etc/rig/thermal.json\n"
        "sed -i '/^CapabilityBoundingSet=/d; /^DynamicUser=/d' /etc/systemd/system/rig-thermal.service\n"
        "systemctl daemon-reload; systemctl restart rig-thermal; systemctl disable --now rig-thermal-cool.path\n"
        "rm /var/lib/prometheus/node-exporter/rig_gpu.prom"
    )
    seen = host_tests(card.lab, "-k", "test_thermal")
    assert seen.failed == {
        "test_unit_runs_now_and_after_a_boot_or_is_not_there_at_all",
        "test_nothing_of_it_has_more_rights_than_it_needs",
        "test_monitor_is_nobody_and_has_no_capability",
        "test_monitor_reads_the_card_as_often_as_the_settings_say",
        "test_figures_are_where_they_are_looked_for",
    }, seen.output
    told = {WRITE, SETTLE, "monitoring | Run rig-thermal-cool.path"}
    # The dry run cannot know that the monitor will be older than its files: they are not written yet.
    assert plan(card.lab).changes == told
    assert run(card.lab).changes == {*told, RUN}
    eventually(lambda: card.shows("rig_gpu_reading_success", 1))
    assert host_tests(card.lab, "-k", "test_thermal").code == 0
    assert run(card.lab).changes == set()


def test_measures_that_are_not_wanted_any_more_are_taken_back_before_their_unit_goes(card: Card) -> None:
    card.set(HOT)
    eventually(lambda: card.is_watts(260))
    eventually(lambda: card.unit(ENGINE, "inactive"), seconds=60)
    _choose(card.lab, {"enabled": True, **SETTINGS, "on_critical": {}})
    # The engine should run, so the deploy itself starts it.
    assert run(card.lab).changes == {"engines | Run llama-8b as a service", WRITE, SETTLE, RUN}
    assert card.watts == 300
    assert card.unit(ENGINE, "active") == []
    assert card.lab.sudo("systemctl list-unit-files --no-legend 'rig-thermal-cool*'", check=False).stdout == ""
    assert card.lab.sudo("systemctl list-units --failed --no-legend --plain").stdout == ""
    _choose(card.lab, {"enabled": True, **SETTINGS})
    run(card.lab)
    verdict = host_tests(card.lab, "-k", "test_thermal and not card_can_be_read")
    assert verdict.code == 0, verdict.output


def test_without_it_nothing_of_it_is_left(card: Card) -> None:
    _choose(card.lab, {"enabled": False})
    # No alert reports its missing metrics any more.
    rules = {"monitoring | Write /etc/rig/prometheus", "monitoring | Run Prometheus"}
    assert run(card.lab).changes == {SETTLE, *rules}
    listed = card.lab.sudo(
        "systemctl list-units --all --no-legend --plain 'rig-thermal*'; "
        "find /etc/systemd /run /var/lib/prometheus -name 'rig-thermal*' -o -name 'rig_gpu*'"
    )
    assert listed.stdout.split() == []
    assert plan(card.lab).changes == set()
    _choose(card.lab, {"enabled": True, **SETTINGS})
    assert RUN in run(card.lab).changes


def test_whoever_is_logged_in_at_the_screen_is_notified(card: Card) -> None:
    """A real session and the real notify-send; the desktop that would show the message writes it to a file."""
    lab = card.lab
    packages = "dbus-user-session libnotify-bin libpam-systemd python3-dbusmock"
    lab.sudo(f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q {packages}", timeout=300)
    lab.sudo(
        "systemctl restart systemd-logind\n"
        "systemd-run --quiet --unit=lab-screen --property=User=owner --property=PAMName=login "
        "--setenv=XDG_SESSION_TYPE=wayland --setenv=XDG_SESSION_CLASS=user sleep infinity"
    )
    bus = "/run/user/$(id -u owner)/bus"
    eventually(lambda: lab.sudo(f"[ -S {bus} ] || echo no bus yet").stdout)
    lab.sudo(
        f"runuser -u owner -- env DBUS_SESSION_BUS_ADDRESS=unix:path={bus} systemd-run --user --quiet "
        "--unit=lab-desktop python3 -m dbusmock --template notification_daemon --logfile /tmp/notifications"
    )
    eventually(lambda: [] if lab.sudo("test -e /tmp/notifications", check=False).returncode == 0 else ["no desktop"])
    card.set(HOT)
    text = "The graphics card is too hot and slows itself down."
    eventually(lambda: [] if text in lab.sudo("cat /tmp/notifications").stdout else ["no notification"])
    card.set()
    eventually(lambda: [] if "has cooled down" in lab.sudo("cat /tmp/notifications").stdout else ["none of the end"])
    assert card.entries(event="notification") == []
    lab.sudo("systemctl stop lab-screen.service; rm -f /tmp/notifications")
