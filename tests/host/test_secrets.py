"""Concern secrets: every consumer has a key, and nobody else can see a key."""

from __future__ import annotations

import pytest

from rig.settings import Settings, key_variable
from tests.host.machine import KEYS, Machine


def test_store_of_keys_is_roots_alone(machine: Machine) -> None:
    assert machine.stat(KEYS) == "600 root root"


def test_folder_of_engines_keys_is_roots_alone(machine: Machine) -> None:
    assert machine.stat("/etc/rig/keys") == "700 root root"


def test_consumer_has_exactly_one_key_of_256_bits(machine: Machine, consumer: str) -> None:
    """64 hexadecimal digits from the deploy, or as many of a larger alphabet as an owner's own key needs."""
    variable = key_variable(consumer)
    assert machine.run(f"grep -c '^{variable}=' {KEYS} || true") == "1"
    assert machine.run(f"grep -cE '^{variable}=([0-9a-f]{{64}}|[A-Za-z0-9_-]{{43,}})$' {KEYS} || true") == "1"


def test_no_two_consumers_share_a_key(machine: Machine) -> None:
    assert machine.with_keys("keys | sort | uniq -d | wc -l") == "0"


def test_keys_look_random(machine: Machine, settings: Settings) -> None:
    """A key of one repeated digit would pass for its length: each must have at least nine different ones."""
    poor = machine.with_keys('keys | while read -r key; do printf %s "$key" | fold -w1 | sort -u | wc -l; done')
    assert [count for count in poor.split() if int(count) < 9] == []
    assert len(poor.split()) >= len(settings.consumers)


def test_services_own_key_file_is_its_key_and_roots_alone(machine: Machine, service: str) -> None:
    path = f"/etc/rig/keys/{service}"
    assert machine.stat(path) == "600 root root"
    held = machine.run(
        f"key=$(sed -n 's/^{key_variable(service)}=//p' {KEYS}); "
        f'[ -n "$key" ] && [ "$key" = "$(cat {path})" ] && echo same || echo different'
    )
    assert held == "same"


def test_the_search_for_keys_finds_them_where_they_are(machine: Machine, settings: Settings) -> None:
    """Without this, the tests below could not fail."""
    assert machine.keys_in(f"cat {KEYS}") >= len(settings.consumers) > 0


PLACES = {
    "command lines": "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'",
    "the journal": "journalctl --quiet --no-pager --all --output=cat --lines=200000",
    "files under /etc": f"find /etc -xdev -type f ! -path {KEYS} ! -path '/etc/rig/keys/*' "
    "! -path '/etc/rig/prometheus-keys/*' ! -path /etc/rig/gateway/engines.map -exec cat {} +",
    "logs": "find /var/log -xdev -type f ! -path '/var/log/journal/*' -exec cat {} +",
    # Without runc's input at the start of a health check: it contains a container's environment for a moment.
    "temporary files": "find /tmp /var/tmp -xdev -type f ! '(' -name 'runc-process*' -user root -perm 0600 ')' "
    "-exec cat {} + 2>/dev/null || true",
    "files that everyone can read": "setpriv --reuid=65534 --regid=65534 --clear-groups "
    "find /run /var /opt /srv /home /root -xdev -type f -size -8M -readable -exec cat {} + 2>/dev/null || true",
    "units": "systemctl cat 'rig-*' 2>/dev/null; systemctl show 'rig-*'",
    "shells' histories": "cat /root/.*_history /home/*/.*_history 2>/dev/null || true",
}


@pytest.mark.parametrize("place", PLACES)
def test_no_key_can_be_found(machine: Machine, place: str) -> None:
    assert machine.keys_in(PLACES[place]) == 0


def test_container_has_its_own_key_and_no_other_in_its_environment(machine: Machine, container: str) -> None:
    shown = f"docker inspect --format '{{{{range .Config.Env}}}}{{{{println .}}}}{{{{end}}}}' rig-{container}"
    assert machine.keys_in(shown) == 1
    own = f"key=$(sed -n 's/^{key_variable(container)}=//p' {KEYS}); {shown} | while IFS= read -r line; do "
    assert machine.run(own + 'case "$line" in *"$key"*) echo own ;; esac; done') == "own"


def test_container_shows_no_key_besides_its_environment(machine: Machine, container: str) -> None:
    """Anybody with access to Docker sees arguments, labels, mounts and the health check with its log."""
    parts = " ".join(
        f"{{{{json .{part}}}}}"
        for part in ("Path", "Args", "Config.Cmd", "Config.Labels", "Config.Healthcheck", "HostConfig", "State")
    )
    assert machine.keys_in(f"docker inspect --format '{parts}' rig-{container}") == 0


def test_service_holds_no_key_in_its_environment(machine: Machine, service: str) -> None:
    """It reads its key from a credential: an environment is inherited, and shown by debuggers and crash reports."""
    pid = machine.unit(f"rig-native@{service}.service", "MainPID")["MainPID"]
    assert int(pid) > 0
    assert machine.keys_in(f"tr '\\0' '\\n' </proc/{pid}/environ") == 0
