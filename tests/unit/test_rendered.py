"""For all settings that Rig accepts, the program that reads a rendered file accepts it, and reads only those settings
in it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some
from pydantic import ValidationError

from rig import containers
from rig.engines import compose, modes, native
from rig.firewall import values
from rig.gpu.driver import KEPT
from rig.models.fetch import markers
from rig.monitoring import alertmanager, alerts, prometheus
from rig.render import own_file, render
from rig.settings import Settings
from rig.systemd import mounts
from tests.unit.parsers import needs, program, run
from tests.unit.sample import ED25519, RSA, needs_root, settings

few = hypothesis_settings(
    max_examples=100 if os.environ.get("RIG_TEST_ALL") else 4,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

SYSCTL = "machine/sysctl"
JUNK = (
    *(
        "",
        " ",
        "x",
        ".",
        "-",
        "+",
        "~",
        "#",
        ";",
        "\\",
        "\\n",
        "%",
        "%i",
        "%%",
        "$",
        "$x",
        "${x}",
        "$$",
        "`id`",
        "'",
        '"',
    ),
    *("|", "&", "<", ">", "(", ")", "[", "]", "{", "}", "*", "?", "!", "^", "=", ":", ",", "@", "/", "//", "/*", "*/"),
    *("\n", "\r", "\t", "\0", "\x7f", "\x85", "\u2028", "\u2029", "\x1b[2J", "\u202e", "é", "{{ x }}", "{% x %}"),
    *(
        "}; flush ruleset; #",
        "\nkernel.core_pattern = |/x",
        '";\nAPT::Get "1',
        "\nExecStartPre=/bin/id\n",
        " # x",
        ": x",
    ),
)
WRONG = some.sampled_from(JUNK)


@some.composite
def hostile(draw: some.DrawFn, right: dict[str, Any]) -> Settings:
    """Settings with junk behind, before and within correct values, wherever Rig accepts that."""
    path = draw(some.sampled_from(sorted(right)))
    value, junk, cut = _text(right[path]), draw(WRONG), draw(some.integers(0, 40))
    text = draw(some.sampled_from([f"{junk}{value}", f"{value}{junk}", f"{value[:cut]}{junk}{value[cut:]}"]))
    tried = [text] if isinstance(right[path], list) else {text: 1} if path == SYSCTL else text
    try:
        return settings(right | {path: tried})
    except ValidationError:
        return settings(right)


def _text(value: Any) -> str:
    return str(next(iter(value)) if isinstance(value, list | dict) else value)


@needs_root
@needs("nft")
@few
@given(hostile({"firewall/ssh/networks": ["fe80::/10"]}))
def test_nft_takes_the_firewall_and_has_one_table(tmp_path: Path, accepted: Settings) -> None:
    file = tmp_path / "rules.nft"
    file.write_text(render("/etc/rig/firewall.nft", **values(accepted.firewall)))
    listed = run("unshare", "--net", "sh", "-c", f"nft -c -f {file} && nft -f {file} && nft list tables")
    assert listed.split("\n") == ["table inet rig", ""]


@needs("sysctl")
@few
@given(
    hostile({"machine/sysctl": {"vm.swappiness": 1}}), some.sampled_from(["core", "|/bin/x %p", "a # b", "a; b", "1 2"])
)
def test_sysctl_reads_the_parameters_of_the_settings_and_no_others(
    tmp_path: Path, accepted: Settings, text: str
) -> None:
    wanted = {key: str(value) for key, value in accepted.machine.sysctl.items()} | {"kernel.core_pattern": text}
    file = tmp_path / "60-rig.conf"
    file.write_text(render("/etc/sysctl.d/60-rig.conf", values=wanted))
    printed = run("sysctl", "--dry-run", "--ignore", f"--load={file}").splitlines()
    known = [line for line in printed if not line.startswith("sysctl: ")]
    assert [line for line in known if line.startswith("kernel.core_pattern")] == [f"kernel.core_pattern = {text}"]
    assert len(known) <= len(wanted)


@needs("apt-config")
@few
@given(hostile({"machine/security_updates/blocklist": ["postgresql"]}))
def test_apt_reads_the_patterns_of_the_settings_and_nothing_else(tmp_path: Path, accepted: Settings) -> None:
    patterns = (*KEPT, *accepted.machine.security_updates.blocklist)
    file = tmp_path / "52rig"
    file.write_text(render("/etc/apt/apt.conf.d/52rig-unattended-upgrades", blocklist=patterns))
    own = [
        line
        for line in run("apt-config", "dump", APT_CONFIG=str(file)).splitlines()
        if line.startswith("Unattended-Upgrade::")
    ]
    blocked = [line for line in own if line.startswith("Unattended-Upgrade::Package-Blacklist:: ")]
    assert [re.sub(r'^[^"]*"(.*)";$', r"\1", line) for line in blocked] == list(patterns)
    assert {line.split("::")[1].split()[0] for line in own} == {
        "Origins-Pattern",
        "Package-Blacklist",
        "Automatic-Reboot",
    }


@needs("apt-get")
@few
@given(hostile({"containers/vendor/repository": "https://download.example.org/linux"}))
def test_apt_reads_one_source_at_the_address_of_the_settings(tmp_path: Path, accepted: Settings) -> None:
    parts = tmp_path / "sources"
    parts.mkdir(exist_ok=True)
    source = containers.repository(accepted.containers.vendor, "debian", "trixie")
    text = render(containers.SOURCES, repository=source, signer=containers.KEYRING)
    (parts / "docker.sources").write_text(text)
    (tmp_path / "lists").mkdir(exist_ok=True)
    places = {"Etc::SourceList": "/dev/null", "Etc::SourceParts": parts, "State::Lists": tmp_path / "lists"}
    options = [word for key, place in places.items() for word in ("-o", f"Dir::{key}={place}")]
    listed = run("apt-get", *options, "--print-uris", "update").splitlines()
    address = f"{accepted.containers.vendor.repository}/debian"
    assert listed and all(line.startswith(f"'{address}/dists/trixie/") for line in listed)


@needs("ssh-keygen")
@few
@given(some.sampled_from([ED25519, RSA]), some.text(max_size=30), WRONG)
def test_ssh_reads_each_public_key_of_the_settings(tmp_path: Path, key: str, comment: str, junk: str) -> None:
    changes: dict[str, Any] = {"machine/users": {"owner": {"authorized_keys": [ED25519, f"{key} {comment}{junk}"]}}}
    try:
        keys = settings(changes).machine.users["owner"].authorized_keys
    except ValidationError:
        return
    file = tmp_path / "authorized_keys"
    file.write_text("".join(f"{line}\n" for line in keys or ()))
    assert len(run("ssh-keygen", "-l", "-f", file).splitlines()) == 2


MONITORED = {
    "monitoring/scrape_interval": "4m",
    "monitoring/prometheus/retention_time": "3650d",
    "monitoring/prometheus/retention_size": "1000T",
    "monitoring/alerts/pending": "1d",
    "monitoring/alerts/engine_down": "1d",
    "monitoring/alerts/backup_age": "521w",
    "monitoring/alerts/certificate_end": "3650d",
    "monitoring/alerts/reboot_pending": "52w",
    "monitoring/alertmanager/group_wait": "1d",
    "monitoring/alertmanager/group_interval": "24h",
    "monitoring/alertmanager/repeat_interval": "5d",
}
RECEIVERS: dict[str, Any] = {
    "phone": {"kind": "ntfy", "url": "https://ntfy.example.org/x", "secret": True},
    "chat": {"kind": "webhook", "url": "http://[::1]:8080/x"},
    "mail": {
        "kind": "email",
        "to": "owner+x@example.org",
        "sender": "rig@example.org",
        "server": "mail.example.org:65535",
        "user": "rig@example.org",
        "secret": True,
    },
}


@needs("promtool")
@few
@given(hostile(MONITORED))
def test_prometheus_takes_its_configuration_and_its_rules(tmp_path: Path, accepted: Settings) -> None:
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(_without_keys(prometheus.configuration(accepted))))
    rules = render("/etc/rig/prometheus/rules.yml", document=alerts.document(accepted, "x"))
    (tmp_path / "rules.yml").write_text(rules)
    assert "SUCCESS" in run("promtool", "check", "config", tmp_path / "prometheus.yml")


def _without_keys(configuration: dict[str, Any]) -> dict[str, Any]:
    """Remove the paths of key files: promtool reads them, and only the machine has them."""
    for scrape in configuration["scrape_configs"]:
        scrape.pop("authorization", None)
    return configuration


@needs("amtool")
@few
@given(
    hostile(MONITORED), some.sampled_from(["phone", "chat", "mail"]), some.sampled_from(["url", "to", "server"]), WRONG
)
def test_alertmanager_takes_its_configuration(
    tmp_path: Path, accepted: Settings, name: str, key: str, junk: str
) -> None:
    receivers = {name: dict(receiver) for name, receiver in RECEIVERS.items()}
    if key in receivers[name]:
        receivers[name][key] += junk
    try:
        accepted = settings({"monitoring": accepted.monitoring.model_dump(mode="json") | {"receivers": receivers}})
    except ValidationError:
        return
    text = render("/etc/rig/prometheus/alertmanager.yml", document=alertmanager.document(accepted))
    (tmp_path / "alertmanager.yml").write_text(text)
    assert "SUCCESS" in run("amtool", "check-config", tmp_path / "alertmanager.yml")


NATIVE = "/etc/systemd/system/rig-native@ENGINE.service.d/engine.conf"
CONTAINER = "/etc/systemd/system/rig-container@ENGINE.service.d/models.conf"
UNITS = {
    "storage/models/path": "/mnt/models",
    "storage/backup/path": "/srv/backup",
    "storage/models/mount": {"source": "LABEL=x", "filesystem": "ext4", "options": ["noatime"]},
    "engines/two/arguments": ["--chat-template"],
    "engines/two/memory": "1000T",
    "machine/journald/max_retention": "100year",
    "monitoring/state_interval": "1d",
}


@needs("systemd-analyze")
@few
@given(hostile({path: value for path, value in UNITS.items() if path != "storage/models/mount"}), WRONG)
def test_systemd_takes_every_unit_without_a_remark(tmp_path: Path, accepted: Settings, junk: str) -> None:
    for old in sorted(tmp_path.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    source = accepted.model_dump(mode="json")["storage"]["models"] | {"mount": {"source": f"LABEL=x{junk}"}}
    try:
        place = settings({"storage/models": source}).storage.models
    except ValidationError:
        place = settings({"storage/models": source | {"mount": {"source": "LABEL=x"}}}).storage.models
    assert place.mount is not None
    engine = native.engines(accepted)["two"]
    words = native.command_line(accepted, engine)
    values = {
        "engine": "two",
        "models": place.path,
        "in_home": native.hidden(place.path),
        "markers": markers(engine.model_names),
        "exclusion": modes.exclusion(accepted, "two"),
        "backup": accepted.storage.backup.path,
        "timezone": accepted.machine.timezone,
        "key": "/x",
        "memory": engine.memory,
        "cpu_percent": round(engine.cpus * 100),
        "fingerprint": "x",
        "exec_start": native.exec_start(words),
    }
    mount = {
        "where": place.path,
        "device": mounts.device(place.mount.source),
        "filesystem": place.mount.filesystem,
        "options": place.mount.options,
    }
    units = {
        "rig-native@two.service": own_file("/etc/systemd/system/rig-native@.service"),
        "rig-native@two.service.d/engine.conf": render(NATIVE, **values),
        mounts.unit_name(place.path): render("/etc/systemd/system/MOUNT.mount", **mount),
    }
    for unit, drop_in in prometheus.drop_ins(accepted).items():
        units |= {
            unit: "[Service]\nExecStart=/bin/true\n",
            f"{unit}.d/rig.conf": render(prometheus.drop_in(unit), **drop_in),
        }
    for name, text in units.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    asked = [name for name in units if "/" not in name]
    said = _verified(tmp_path, asked)
    remarks = [line for line in said.splitlines() if "not executable" not in line and str(tmp_path) in line]
    assert remarks == []
    assert _commands(units["rig-native@two.service.d/engine.conf"]) == 1


def _verified(folder: Path, units: list[str]) -> str:
    """systemd's verdict on units in a folder. Missing programs make it end with 1, and are ignored."""
    script = 'systemd-analyze verify --man=no "$@" 2>&1; true'
    return run("sh", "-c", script, "sh", *(folder / unit for unit in units), SYSTEMD_UNIT_PATH=f"{folder}:")


def _commands(text: str) -> int:
    """Number of lines in a drop-in that start a program, except the one that empties the list."""
    return len(re.findall(r"^Exec\w+=.+$", text, re.MULTILINE))


@needs("systemd-analyze")
@pytest.mark.parametrize("span", ["1h", "3600s", "60min", "90day", "5200week", "1200month", "100year"])
def test_systemd_reads_the_longest_and_shortest_time_spans(span: str) -> None:
    accepted = settings({"machine/journald/max_retention": span})
    printed = run("systemd-analyze", "timespan", accepted.machine.journald.max_retention)
    assert "Original" in printed and "infinity" not in printed


@few
@given(hostile({"engines/one/arguments": ["--chat-template"], "storage/models/path": "/mnt/models"}))
def test_compose_reads_the_words_of_the_settings(tmp_path: Path, accepted: Settings) -> None:
    document = compose.document(accepted)
    text = render("/etc/rig/compose.yaml", compose=document)
    assert yaml.safe_load(text) == document
    # compose fills in ${...}, of which there is the key alone.
    assert re.findall(r"\$.", text) == ["${"] * len(document["services"])
    if program("docker-compose") is not None:
        file = tmp_path / "compose.yaml"
        file.write_text(text)
        printed = run("docker-compose", "-f", file, "config", "--quiet", RIG_KEY_ONE="x")
        assert printed == ""
