"""Concern machine: the operating system matches the settings, and nothing on it is broken."""

from __future__ import annotations

import json
import re

import pytest

from rig.settings import Settings, size_bytes
from tests.host.machine import Machine


def test_no_unit_has_failed(machine: Machine) -> None:
    assert machine.lines("systemctl list-units --failed --plain --no-legend") == []


def test_nobody_else_changes_a_unit_of_rigs(machine: Machine) -> None:
    """By drop-ins of their own, or with `systemctl set-property`, which writes them into folders of its own."""
    folders = [f"/{root}/systemd/{name}" for root in ("etc", "run") for name in ("system", "system.control")]
    units = "-path '*/rig-*.d/*.conf' -o -path '*/prometheus*.d/*.conf'"
    found = machine.lines(f"find {' '.join(folders)} {units} || true")
    ours = re.compile(r"/etc/systemd/system/[^/]+\.d/(rig|models|engine)\.conf")
    assert [path for path in found if not ours.fullmatch(path)] == []


def test_no_package_is_half_installed(machine: Machine) -> None:
    assert machine.run("dpkg --audit") == ""


def test_the_package_lists_can_be_used(machine: Machine) -> None:
    assert machine.run("apt-get check 2>&1 >/dev/null") == ""


def test_package_is_installed(machine: Machine, package: str) -> None:
    assert machine.run(f"dpkg-query -W -f '${{db:Status-Status}}' {package}") == "installed"


def test_package_stays_when_nothing_else_needs_it(machine: Machine, package: str) -> None:
    assert machine.run(f"apt-mark showauto {package}") == ""


def test_clocks_show_the_time_zone_of_the_settings(machine: Machine, settings: Settings) -> None:
    zone = settings.machine.timezone
    assert machine.run("timedatectl show --property=Timezone --value") == zone
    assert machine.run("date '+%Z %z'") == machine.run(f"TZ={zone} date '+%Z %z'")


def test_kernel_parameter_has_its_value_now(machine: Machine, settings: Settings, parameter: str) -> None:
    assert machine.run(f"sysctl -n {parameter}").split() == str(settings.machine.sysctl[parameter]).split()


def test_kernel_parameter_has_its_value_after_a_boot(machine: Machine, settings: Settings, parameter: str) -> None:
    """The last assignment in the files that systemd-sysctl reads counts."""
    lines = machine.lines("systemd-analyze cat-config sysctl.d")
    pairs = [line.lstrip("-").split("=", 1) for line in lines if "=" in line and not line.startswith(("#", ";"))]
    values = [value for key, value in pairs if key.strip().replace("/", ".") == parameter]
    assert values, f"no file sets {parameter}"
    assert values[-1].split() == str(settings.machine.sysctl[parameter]).split()


def test_journal_is_kept_on_disk(machine: Machine) -> None:
    assert "File path: /var/log/journal/" in machine.run("journalctl --header --lines=0")


def test_journal_has_its_limits(machine: Machine, settings: Settings) -> None:
    lines = machine.lines("systemd-analyze cat-config systemd/journald.conf")
    values = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))
    assert values["SystemMaxUse"] == settings.machine.journald.max_use
    assert values["MaxRetentionSec"] == settings.machine.journald.max_retention


def test_journal_runs_with_its_limits(machine: Machine, settings: Settings) -> None:
    """At its start, the running service logged its maximum size."""
    found = machine.run(
        "journalctl --quiet --output=json --lines=1 _SYSTEMD_INVOCATION_ID="
        "$(systemctl show --property=InvocationID --value systemd-journald.service) "
        "MESSAGE_ID=ec387f577b844b8fa948f33cad9a75e6 JOURNAL_NAME='System Journal'"
    )
    if found:
        assert int(json.loads(found)["MAX_USE"]) == size_bytes(settings.machine.journald.max_use)
    else:
        # The entry is gone, like other old ones: the remaining evidence is a start after the last change of its files.
        changed = machine.run(
            "stat -L -c %Z /etc/systemd/journald.conf /etc/systemd/journald.conf.d/* | sort -n | tail -n 1"
        )
        started = machine.run(
            'date +%s -d "$(systemctl show --property=ActiveEnterTimestamp --value systemd-journald.service)"'
        )
        assert int(started) >= int(changed)


def _apt_options(machine: Machine) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for name, value in re.findall(r'^(\S+) "(.*)";$', machine.run("apt-config dump"), flags=re.MULTILINE):
        options.setdefault(name.removesuffix("::"), []).append(value)
    return options


def test_security_updates_are_installed_when_the_settings_say_so(machine: Machine, settings: Settings) -> None:
    options = _apt_options(machine)
    wanted = "1" if settings.machine.security_updates.enabled else "0"
    assert options["APT::Periodic::Update-Package-Lists"] == [wanted]
    assert options["APT::Periodic::Unattended-Upgrade"] == [wanted]
    # Without it, apt does nothing by itself.
    assert options.get("APT::Periodic::Enable", ["1"]) == ["1"]
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert machine.unit(timer, "ActiveState", "UnitFileState") == {
            "ActiveState": "active",
            "UnitFileState": "enabled",
        }
    assert machine.run("command -v unattended-upgrade") != ""


def test_only_security_updates_are_installed_unattended(machine: Machine, settings: Settings) -> None:
    options = _apt_options(machine)
    origins = [origin for origin in options["Unattended-Upgrade::Origins-Pattern"] if origin]
    assert origins
    assert [origin for origin in origins if "-security" not in origin] == []
    assert [origin for origin in options.get("Unattended-Upgrade::Allowed-Origins", []) if origin] == []
    blocked = [package for package in options.get("Unattended-Upgrade::Package-Blacklist", []) if package]
    assert set(settings.machine.security_updates.blocklist) <= set(blocked)
    assert options["Unattended-Upgrade::Automatic-Reboot"] == ["false"]


def test_user_has_groups_shell_and_home(machine: Machine, settings: Settings, user: str) -> None:
    wanted = settings.machine.users[user]
    _, _, uid, _, _, home, shell = machine.run(f"getent passwd {user}").split(":")
    assert int(uid) == 0 or int(uid) >= 1000
    assert shell == wanted.shell
    assert set(wanted.groups) <= set(machine.run(f"id -nG {user}").split())
    assert machine.run(f"stat -c '%U %F' {home}") == f"{user} directory"


def test_user_logs_in_with_the_keys_of_the_settings_and_no_other(
    machine: Machine, settings: Settings, user: str
) -> None:
    wanted = settings.machine.users[user].authorized_keys
    if wanted is None:
        return
    home = machine.run(f"getent passwd {user}").split(":")[5]
    shown = machine.run(f"sshd -T -C user={user},host=none.invalid,addr=192.0.2.1 | grep ^authorizedkeysfile")
    files = [name.replace("%h", home).replace("%u", user) for name in shown.split()[1:]]
    # What sshd reads by default: a configuration that is gone tomorrow does not open a file that was closed today.
    files = sorted({*files, ".ssh/authorized_keys", ".ssh/authorized_keys2"})
    # A path without a leading slash is relative to the home.
    there_are = " ".join(name if name.startswith("/") else f"{home}/{name}" for name in files)
    found = machine.lines(f"cat {there_are} 2>/dev/null || true")
    there = {tuple(line.split()[:2]) for line in found if line.strip() and not line.startswith("#")}
    assert there == {tuple(key.split()[:2]) for key in wanted}


SSHD = "/etc/ssh/sshd_config.d/00-rig.conf"


def _there(machine: Machine) -> bool:
    return machine.attempt(f"test -f {SSHD}")[0] == 0


@pytest.fixture
def keys_only(machine: Machine, settings: Settings) -> bool:
    """Whether only keys log in; null in the settings is decided by the machine."""
    wanted = settings.machine.ssh.keys_only
    return _there(machine) if wanted is None else wanted


def test_only_keys_log_in_where_the_settings_say_so(machine: Machine, keys_only: bool) -> None:
    assert _there(machine) is keys_only
    if keys_only:
        shown = set(machine.lines("sshd -T"))
        assert shown >= {"passwordauthentication no", "kbdinteractiveauthentication no"}
        assert "authorizedkeysfile .ssh/authorized_keys" in shown
        assert machine.stat(SSHD) == "644 root root"


def test_the_ssh_server_runs_with_its_current_file(machine: Machine, keys_only: bool) -> None:
    if keys_only:
        started = machine.unit("ssh.service", "ActiveEnterTimestampMonotonic")["ActiveEnterTimestampMonotonic"]
        # Times of files are on the wall clock, starts of units on that which begins with the boot.
        age = f"$(date +%s.%N) - $(stat -c %.Z {SSHD})"
        since_boot = machine.run(f"awk -v age=$(awk \"BEGIN {{print {age}}}\") '{{print $1 - age}}' /proc/uptime")
        assert float(since_boot) <= int(started) / 1e6, "the file is younger"


def test_users_keys_are_nobody_elses_to_change(machine: Machine, settings: Settings, user: str) -> None:
    """By sshd's own conditions for a trusted file."""
    if settings.machine.users[user].authorized_keys:
        home = machine.run(f"getent passwd {user}").split(":")[5]
        for path in (home, f"{home}/.ssh", f"{home}/.ssh/authorized_keys"):
            mode, owner, _ = machine.stat(path).split()
            assert owner == user, path
            assert int(mode, 8) & 0o022 == 0, path
        assert machine.stat(f"{home}/.ssh").split()[0] == "700"
        assert machine.stat(f"{home}/.ssh/authorized_keys").split()[0] == "600"
