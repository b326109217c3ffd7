"""The machine's monitoring: no other host can read it, no half-written file is read, and dead programs come back."""

from __future__ import annotations

import json
import shlex
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from lab.machine import NAME, Lab
from rig.monitoring import dashboards, grafana
from tests.lab import receivers
from tests.lab.conftest import Machines
from tests.lab.fingerprint import Fingerprint, differences, lives, restarted
from tests.lab.overrides import altered
from tests.lab.prometheus import ask, lines, undrawn, value
from tests.lab.runs import host_tests, plan, run
from tests.lab.traces import eventually

PLANTED = 9499
"""A port that surely is open to everybody, for a moment."""
TEXTFILES = "/var/lib/prometheus/node-exporter"
OURS = {9090, 9093, 9094, 9100}


@dataclass(frozen=True)
class Watched:
    """A machine, and the ports that others could reach during its first deploy."""

    lab: Lab
    heard: set[tuple[str, int]]


@pytest.fixture(scope="module")
def watched(machines: Machines) -> Iterator[Watched]:
    lab = machines.boot(name="monitored")
    lab.sudo("cat >/run/listening.py", input=Path(__file__).with_name("listening.py").read_text())
    watcher = subprocess.Popen(
        ["ssh", "-F", str(lab.ssh_config), NAME, "sudo -n python3 /run/listening.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "watching\n"
    moment = f"import socket, time; held = socket.create_server(('0.0.0.0', {PLANTED})); time.sleep(0.05)"
    lab.sudo(f"python3 -c {shlex.quote(moment)}")
    first = run(lab)
    shown, _ = watcher.communicate("\n", timeout=60)
    assert first.changes
    yield Watched(lab, {(protocol, port) for protocol, port in json.loads(shown)})
    machines.end(lab)


@pytest.fixture(scope="module")
def lab(watched: Watched) -> Lab:
    return watched.lab


def pid(lab: Lab, unit: str) -> str:
    return lab.sudo(f"systemctl show --property=MainPID --value {unit}").stdout.strip()


def test_nobody_else_could_ask_it_for_a_moment_while_it_was_installed(watched: Watched) -> None:
    assert ("tcp", PLANTED) in watched.heard, "the watcher missed what it had to see"
    assert {port for _, port in watched.heard} & OURS == set()


def test_it_is_as_the_settings_say(lab: Lab) -> None:
    verdict = host_tests(lab, "tests/host/test_monitoring.py")
    assert verdict.code == 0, verdict.output
    assert verdict.passed > 20, verdict.output


# Failures


@pytest.mark.parametrize("unit", ["prometheus.service", "prometheus-node-exporter.service"])
def test_a_program_that_is_killed_comes_back_by_itself(lab: Lab, unit: str) -> None:
    before = pid(lab, unit)
    lab.sudo(f"kill -9 {before}")
    eventually(lambda: pid(lab, unit) in ("0", before), seconds=30)
    eventually(lambda: value(lab, 'min(up{job=~"node|prometheus"})') != 1, seconds=60)


def test_prometheus_keeps_what_it_knew_when_it_is_killed(lab: Lab) -> None:
    before = value(lab, "timestamp(node_boot_time_seconds)")
    assert before is not None
    lab.sudo("systemctl kill --signal=KILL prometheus.service")
    began = 'process_start_time_seconds{job="prometheus"}'
    eventually(lambda: (value(lab, began) or 0) < before, seconds=60)
    assert len(ask(lab, "node_boot_time_seconds", when=before)) == 1


def test_half_a_file_of_figures_is_never_read(lab: Lab) -> None:
    """Written as by every writer here: beside its place, and half of it at first."""
    new, whole = f"{TEXTFILES}/.rig_half.prom.new", f"{TEXTFILES}/rig_half.prom"
    shown = "curl --silent http://127.0.0.1:9100/metrics | grep -E '^(rig_half|node_textfile_scrape_error)' | sort"
    lab.sudo(f"printf 'rig_half 1\\nrig_ha' >{new}")
    assert lab.ssh(shown).stdout == "node_textfile_scrape_error 0\n"
    lab.sudo(f"printf 'rig_half 1\\n' >{new} && mv {new} {whole}")
    assert lab.ssh(shown).stdout == "node_textfile_scrape_error 0\nrig_half 1\n"
    lab.sudo(f"rm {whole}")


def test_a_look_that_is_killed_before_its_last_step_leaves_the_figures_of_the_one_before(lab: Lab) -> None:
    """The kernel kills it just before it renames its new file."""
    file, new = f"{TEXTFILES}/rig_machine.prom", f"{TEXTFILES}/.rig_machine.prom.new"
    figures = "curl --silent --fail http://127.0.0.1:9100/metrics"
    lab.sudo("systemctl stop rig-metrics.timer")
    try:
        eventually(lambda: lab.sudo("systemctl is-active rig-metrics.service", check=False).stdout != "inactive\n")
        lab.sudo(f"sed -i '1i # The look before.' {file}")
        before = lab.sudo(f"cat {file}").stdout
        filtered = "--property='SystemCallFilter=~rename renameat renameat2' --setenv=PYTHONDONTWRITEBYTECODE=1"
        killed = lab.sudo(f"systemd-run --wait {filtered} rig-metrics", check=False)
        assert "SYS" in killed.stderr, killed.stderr
        assert lab.sudo(f"cat {new}").stdout.startswith("# HELP rig_"), "it was killed before it wrote anything"
        assert lab.sudo(f"cat {file}").stdout == before
        assert "node_textfile_scrape_error 0\n" in lab.ssh(figures).stdout
        lab.sudo("rig-metrics")
        assert lab.sudo(f"ls {new}", check=False).returncode != 0
        assert lab.sudo(f"cat {file}").stdout.startswith("# HELP rig_")
    finally:
        lab.sudo("systemctl reset-failed 'run-*.service' 2>/dev/null; systemctl start rig-metrics.timer")


def test_settings_that_prometheus_refuses_take_the_place_of_none(lab: Lab) -> None:
    """The check is made to refuse, because correct settings never make a wrong file."""
    before, lived = lab.sudo("cat /etc/rig/prometheus/*").stdout, lives(lab)
    lab.sudo("mount --bind /bin/false /usr/bin/promtool")
    try:
        failed = lab.deploy("-y", "--data", "monitoring.scrape_interval=2s")
        assert failed.returncode == 1
        assert failed.stderr.rpartition("Starting operation: ")[2].startswith("monitoring | Write /etc/rig/prometheus")
        assert lab.sudo("cat /etc/rig/prometheus/*").stdout == before
        assert restarted(lived, lives(lab)) == set()
    finally:
        lab.sudo("umount /usr/bin/promtool")
    assert run(lab).changes == set()


# Changes


def test_a_changed_setting_is_loaded_without_a_restart(lab: Lab) -> None:
    lived = lives(lab)
    changed = ("--data", "monitoring.scrape_interval=2s")
    assert run(lab, *changed).changes == {"monitoring | Write /etc/rig/prometheus", "monitoring | Run Prometheus"}
    assert "scrape_interval: 2s" in lab.ssh("curl --silent http://127.0.0.1:9090/api/v1/status/config").stdout
    assert run(lab, *changed).changes == set()
    assert run(lab).changes == {"monitoring | Write /etc/rig/prometheus", "monitoring | Run Prometheus"}
    assert restarted(lived, lives(lab)) == set()


def test_a_run_that_died_before_the_reload_is_completed(lab: Lab) -> None:
    """The files are new, and the running program has the old ones."""
    edited = "sed -i 's/scrape_interval: 1s/scrape_interval: 7s/' /etc/rig/prometheus/prometheus.yml"
    lab.sudo(f"{edited} && systemctl reload prometheus.service")
    config = "curl --silent http://127.0.0.1:9090/api/v1/status/config"
    eventually(lambda: "scrape_interval: 7s" not in lab.ssh(config).stdout)
    assert run(lab).changes == {"monitoring | Write /etc/rig/prometheus", "monitoring | Run Prometheus"}
    eventually(lambda: "scrape_interval: 7s" in lab.ssh(config).stdout)


def test_a_key_that_is_made_anew_is_used_without_a_restart(lab: Lab) -> None:
    before = pid(lab, "prometheus.service")
    lab.sudo("sed -i '/^RIG_KEY_LLAMA_8B=/d' /etc/rig/keys.env")
    assert "monitoring | Give Prometheus the keys of the engines" in run(lab).changes
    eventually(lambda: value(lab, 'up{engine="llama-8b"}') != 1, seconds=60)
    assert pid(lab, "prometheus.service") == before
    assert run(lab).changes == set()


def test_a_disabled_engine_is_asked_no_more_and_its_key_is_taken_back(lab: Lab) -> None:
    assert run(lab, "--data", "engines.llama-8b.enabled=false").code == 0
    assert '"engine":"llama-8b"' not in lab.ssh("curl --silent http://127.0.0.1:9090/api/v1/targets").stdout
    assert lab.sudo("ls -A /etc/rig/prometheus-keys").stdout.split() == ["llama-70b"]
    assert run(lab).code == 0
    eventually(lambda: value(lab, 'up{engine="llama-8b"}') != 1, seconds=60)


def test_without_the_monitoring_nothing_of_it_is_there_and_it_comes_back(lab: Lab) -> None:
    before = Fingerprint.of(lab)
    off = ("--data", "monitoring.enabled=false")
    assert "monitoring | Remove the monitoring" in run(lab, *off).changes
    assert run(lab, *off).changes == set()
    assert plan(lab, *off).changes == set()
    listening = lab.sudo("ss -Hltn | awk '{print $4}' | sed 's/.*://'").stdout.split()
    assert {int(port) for port in listening} & OURS == set()
    left = "find /etc/rig /etc/systemd -name '*prometheus*' -o -name '*rig-metrics*' -o -name metrics.json"
    assert lab.sudo(left).stdout == ""
    assert lab.sudo("ls /var/lib/prometheus/metrics2").stdout != "", "what was measured is gone"
    assert run(lab).code == 0
    assert "\n".join(differences(before, Fingerprint.of(lab))) == ""


# Dashboards


@pytest.mark.parametrize("dashboard", [dashboards.MACHINE, dashboards.ENGINES], ids=lambda dashboard: dashboard.name)
def test_every_line_of_a_dashboard_is_drawn_with_its_legend(lab: Lab, dashboard: dashboards.Dashboard) -> None:
    """Tests with vLLM and with a GPU cover their lines."""
    drawn = lines(dashboard)
    assert len(drawn) >= len(dashboard.panels)
    eventually(lambda: undrawn(lab, drawn), seconds=60)


def test_dashboards_are_shown_when_they_are_wanted_and_gone_when_not(lab: Lab) -> None:
    """With a stand-in for Grafana, which stops if its folders cannot be read."""
    path, provisioning = lab.directory / "hosts.yml", f"{grafana.HOME}/provisioning"
    before = path.read_text()
    hosts = yaml.safe_load(before)
    hosts["hosts"][NAME]["settings"]["monitoring"]["grafana"]["enabled"] = True
    path.write_text(yaml.safe_dump(hosts))
    try:
        assert run(lab).changes == {
            "monitoring | Write Grafana's dashboards",
            "monitoring | Pull the image of Grafana",
            "monitoring | Run Grafana",
        }
        verdict = host_tests(lab, "-k", "dashboards")
        assert (verdict.code, verdict.passed) == (0, 4), verdict.output
        assert run(lab).changes == set()

        lab.sudo(f"chmod 0700 {provisioning}; systemctl restart {grafana.UNIT}")
        failed = run(lab)
        assert failed.code == 1
        _, _, said = failed.errors.partition(f"{grafana.UNIT} is not well")
        assert f"{grafana.SEEN_AS}/provisioning/datasources cannot be read" in said, failed.errors
        assert host_tests(lab, "-k", "dashboards_are_said").code == 1
        # Otherwise systemd may start it once more before the run's check.
        lab.sudo(f"systemctl stop {grafana.UNIT}; chmod 0755 {provisioning}")
        assert run(lab).changes == {"monitoring | Run Grafana"}
    finally:
        path.write_text(before)
    assert run(lab).changes == {"monitoring | Remove Grafana"}
    assert host_tests(lab, "-k", "dashboards_are_there").code == 0


# Alerts


@dataclass
class Told:
    """The machine with receivers of alerts, and their messages."""

    lab: Lab
    web: receivers.Web
    mail: receivers.Mail
    environment: dict[str, str]


SECRET = "a-secret-of-the-owner"


@pytest.fixture(scope="module")
def told(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """Receivers of all three kinds, on the machine's network, behind its packet filter."""
    at, folder = lab.network.operator, tmp_path_factory.mktemp("receivers")
    with receivers.web(at) as web, receivers.mail(at, folder) as mail:
        trust = "/usr/local/share/ca-certificates/mail.crt"
        lab.sudo(f"cat >{trust} && update-ca-certificates", input=mail.certificate)
        site = f"http://{at}:{web.port}"
        mailbox = {"to": "owner@example.org", "sender": "rig@example.org", "server": f"{at}:{mail.port}"}
        wanted = {
            "chat": {"kind": "webhook", "url": f"{site}/chat", "severity": "warning", "secret": True},
            "phone": {"kind": "ntfy", "url": f"{site}/topic"},
            "box": {"kind": "email", "user": "rig", "secret": True, "severity": "critical", **mailbox},
        }
        yield Told(lab, web, mail, altered(lab, folder / "lab", {"monitoring": {"receivers": wanted}}))
    assert run(lab).code == 0


def test_a_secret_that_is_not_there_is_told_before_anything_is_changed(told: Told) -> None:
    refused = told.lab.deploy("-y", environment=told.environment)
    assert refused.returncode == 1
    assert "nothing was changed" in refused.stderr
    for name in ("chat", "box"):
        assert f"sudo install -D -m 0600 /dev/stdin /etc/rig/receivers/{name}" in refused.stderr


def test_secrets_of_receivers_are_closed_and_used(told: Told) -> None:
    told.lab.sudo("install -d /etc/rig/receivers && tee /etc/rig/receivers/chat >/etc/rig/receivers/box", input=SECRET)
    done = told.lab.deploy("-y", environment=told.environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert SECRET not in done.stdout + done.stderr
    modes = told.lab.sudo("stat -c '%a %U' /etc/rig/receivers/*").stdout.splitlines()
    assert modes == ["600 root"] * 2
    again = told.lab.deploy("--json", "-y", environment=told.environment)
    assert json.loads(again.stdout)["results"]["totals"]["success"] == 0


def test_every_receiver_can_be_tried_and_says_that_it_accepted(told: Told) -> None:
    tried = told.lab.sudo("rig-alert test")
    assert tried.stdout.splitlines() == ["box: accepted", "chat: accepted", "phone: accepted"]
    chat, phone = ([post for post in told.web.posts if post.path.startswith(f"/{to}")] for to in ("chat", "topic"))
    assert [post.authorization for post in chat] == [f"Bearer {SECRET}"]
    assert chat[0].body["alerts"][0]["annotations"]["summary"] == "This is a test of the receiver chat."
    query = parse_qs(urlsplit(phone[0].path).query)
    assert query["tpl"] == ["1"]
    assert query["t"] == ["{{.status}}: {{.commonLabels.alertname}}"]
    assert phone[0].authorization == ""
    (message,) = told.mail.messages
    assert (message["To"], message["From"]) == ("owner@example.org", "rig@example.org")
    assert message["Subject"] == "[firing] Test"
    assert b64decode(told.mail.logins[0]).split(b"\0")[1:] == [b"rig", SECRET.encode()]


def test_a_receiver_that_does_not_accept_is_told_with_the_reason(told: Told) -> None:
    told.web.status = 403
    try:
        tried = told.lab.sudo("rig-alert test chat", check=False)
    finally:
        told.web.status = 200
    assert tried.returncode == 1
    assert tried.stdout.startswith("chat: NOT accepted: ")
    assert "403" in tried.stdout
    assert told.lab.sudo("rig-alert test nosuch", check=False).returncode == 2


def test_an_engine_that_stops_is_told_also_to_an_alertmanager_that_was_killed_and_told_again_when_it_is_back(
    told: Told,
) -> None:
    sentence = "Engine llama-8b does not run."
    told.lab.sudo("systemctl stop rig-native@llama-8b.service")
    try:
        eventually(lambda: not told.web.alerts("EngineDown", "firing"), seconds=90)
        (alert, *_) = told.web.alerts("EngineDown", "firing")
        assert alert["labels"]["engine"] == "llama-8b"
        assert alert["annotations"]["summary"] == sentence
        assert sentence in told.lab.sudo("rig-alert list", check=False).stdout
        # It is critical, so the mailbox gets it, too.
        eventually(lambda: "[firing] EngineDown" not in [mail["Subject"] for mail in told.mail.messages], seconds=60)

        before = pid(told.lab, "prometheus-alertmanager.service")
        told.lab.sudo(f"kill -9 {before}")
        eventually(lambda: pid(told.lab, "prometheus-alertmanager.service") in ("0", before), seconds=30)
        # Firing alerts are in its memory only. Prometheus sends them once a minute.
        eventually(lambda: sentence not in told.lab.sudo("rig-alert list", check=False).stdout, seconds=120)
    finally:
        told.lab.sudo("systemctl start rig-native@llama-8b.service")
    eventually(lambda: not told.web.alerts("EngineDown", "resolved"), seconds=90)
    assert told.lab.sudo("rig-alert list", check=False).stdout == "nothing fires\n"


def test_an_engine_that_is_off_on_purpose_is_nothing_to_be_told(told: Told) -> None:
    """Like an engine that shares its place with another: its unit does not start at boot."""
    before = len(told.web.alerts("EngineDown", "firing"))
    told.lab.sudo("systemctl disable rig-native@llama-8b.service")
    try:
        eventually(lambda: value(told.lab, 'rig_engine_wanted{engine="llama-8b"}') != 0, seconds=30)
        told.lab.sudo("systemctl stop rig-native@llama-8b.service")
        gone = 'up{engine="llama-8b"} == 0 and max_over_time(up{engine="llama-8b"}[10s]) == 0'
        eventually(lambda: not ask(told.lab, gone), seconds=60)
        assert ask(told.lab, 'ALERTS{alertname=~"EngineDown|EngineNotReady",alertstate="firing"}') == []
        assert len(told.web.alerts("EngineDown", "firing")) == before
    finally:
        assert told.lab.deploy("-y", environment=told.environment).returncode == 0
