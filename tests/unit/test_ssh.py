"""Keys alone log in where that locks nobody out, and where the owner has not decided otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rig.facts.ssh import SshServer
from rig.render import own_file
from rig.ssh import CONFIG, USUAL, Choice, Server, choose

SERVER = Server(installed=True, included=True, key_files=USUAL[1], outdated=False)
KEYS = ["AAAA"]
REASONS = {
    "no SSH server": (KEYS, replace(SERVER, installed=False), "install openssh-server"),
    "a login by password": ([], SERVER, "ssh-copy-id"),
    "a configuration that does not include ours": (KEYS, replace(SERVER, included=False), "as its first line"),
    "keys in files of the owner's": (KEYS, replace(SERVER, key_files="/etc/ssh/keys/%u"), "/etc/ssh/keys/%u"),
}


def test_only_keys_log_in_where_the_operator_has_one() -> None:
    assert choose(None, KEYS, SERVER) == choose(True, KEYS, SERVER) == Choice(keys_only=True)


def test_the_owner_can_turn_it_off() -> None:
    assert choose(False, KEYS, SERVER) == Choice(keys_only=False)


def test_our_own_configuration_is_no_reason_against_it() -> None:
    assert choose(None, KEYS, replace(SERVER, key_files=USUAL[0])).keys_only


@pytest.mark.parametrize(("keys", "server", "remedy"), REASONS.values(), ids=REASONS)
def test_a_server_is_left_alone_unless_the_settings_insist_and_then_the_reason_is_given(
    keys: list[str], server: Server, remedy: str
) -> None:
    assert choose(None, keys, server) == choose(False, keys, server) == Choice(keys_only=False)
    refused = choose(True, keys, server)
    assert not refused.keys_only
    assert remedy in refused.refusal and "keys_only: false" in refused.refusal


def _facts(changed: str) -> Server:
    lines = f"""Installed=yes
Included=yes
KeyFiles=.ssh/authorized_keys
ActiveEnterTimestampMonotonic=50000000
Changed={changed}
Uptime=100.00
Now=1000.5"""
    return SshServer().process(lines.splitlines())


def test_a_server_is_outdated_if_our_file_changed_after_its_start() -> None:
    """It was started 50 s after the boot, which was 100 s ago."""
    assert _facts("951.0").outdated
    assert not _facts("950.0").outdated
    assert not _facts("").outdated


def test_a_server_that_does_not_run_is_not_outdated() -> None:
    lines = ["ActiveEnterTimestampMonotonic=0", "Changed=951.0", "Uptime=100.00", "Now=1000.5"]
    assert SshServer().process(lines) == Server(installed=False, included=False, key_files="", outdated=False)


def test_a_stricter_answer_to_roots_logins_is_not_loosened() -> None:
    """sshd takes the first value, which would be ours."""
    assert "\nPermitRootLogin" not in own_file(CONFIG)
