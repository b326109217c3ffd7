"""What goes wrong with one machine ends the run for no other, and a run alone has a machine while it lasts."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import DeployError, FunctionCommand, StringCommand
from pyinfra.api.exceptions import PyinfraError

from rig.operator import isolation, lock


class State:
    """The relevant part of pyinfra's state: the remaining hosts."""

    def __init__(self, *names: str) -> None:
        self.hosts: list[Any] = [SimpleNamespace(name=name, print_prefix=f"[{name}] ") for name in names]
        self.hosts = [_Host(host) for host in self.hosts]
        self.active_hosts = set(self.hosts)
        self.failed_hosts: set[Any] = set()
        self.ops: dict[Any, dict[str, Any]] = {host: {} for host in self.hosts}
        self.callback_handlers: list[Any] = []

    def fail_hosts(self, hosts: set[Any]) -> None:
        self.failed_hosts |= hosts
        self.active_hosts -= hosts
        if not self.active_hosts:
            raise PyinfraError("No hosts remaining!")


class _Host:
    def __init__(self, about: SimpleNamespace) -> None:
        self.name, self.print_prefix = about.name, about.print_prefix


ODD = [DeployError("b cannot be deployed"), KeyError("os"), ValueError("not a number"), IndexError(), AttributeError()]


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_one_machines_failure_leaves_the_others(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    state: Any = State("a", "b")
    first, second = state.hosts
    with isolation.alone(state, first):
        raise error
    with isolation.alone(state, second):
        pass
    assert (state.failed_hosts, state.active_hosts) == ({first}, {second})


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
def test_a_machine_that_is_alone_fails_with_its_own_sentence(error: Exception) -> None:
    state: Any = State("a")
    with pytest.raises(DeployError) as caught, isolation.alone(state, state.hosts[0]):
        raise error
    own = isinstance(error, DeployError)
    assert str(caught.value).startswith("b cannot" if own else "a answers in a way that is not understood (")


def test_code_that_stumbles_over_a_fact_that_failed_says_nothing_more() -> None:
    state: Any = State("a", "b")
    with isolation.alone(state, state.hosts[0]):
        state.fail_hosts({state.hosts[0]})
        raise AttributeError
    assert state.active_hosts == {state.hosts[1]}


def _operation(state: Any, generator: Callable[[], Iterator[Any]]) -> list[Any]:
    """The commands of an operation, as pyinfra gets them."""
    host = state.hosts[0]
    with isolation.alone(state, host):
        state.ops[host]["one"] = SimpleNamespace(command_generator=generator)
    return list(state.ops[host]["one"].command_generator())


def test_an_operation_that_cannot_be_decided_on_fails_and_raises_nothing() -> None:
    def commands() -> Iterator[Any]:
        yield StringCommand("true")
        raise KeyError("NeedDaemonReload")

    first, last = _operation(State("a", "b"), commands)
    assert str(first) == "true"
    assert isinstance(last, FunctionCommand)
    assert last.function(None, None) is False


def test_an_operation_whose_fact_failed_does_nothing_by_a_guess() -> None:
    state: Any = State("a", "b")

    def commands() -> Iterator[Any]:
        state.fail_hosts({state.hosts[0]})
        yield StringCommand("rm everything")

    (only,) = _operation(state, commands)
    assert isinstance(only, FunctionCommand)
    assert only.function(None, None) is False


@pytest.mark.parametrize("due", ["nft -f /etc/rig/firewall.nft", FunctionCommand(lambda state, host: True, (), {})])
def test_an_operation_whose_commands_changed_nothing_fails_with_what_is_still_due(
    due: Any, caplog: pytest.LogCaptureFixture
) -> None:
    command = StringCommand(due) if isinstance(due, str) else due
    done = _operation(State("a"), lambda: iter([command]))
    assert done[0] is command
    assert isinstance(done[1], FunctionCommand)
    assert done[1].function(None, None) is False
    assert "nothing became better" in caplog.text
    assert not isinstance(due, str) or due in caplog.text


def test_a_unit_that_did_nothing_is_shown_with_its_drop_ins(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ran = []

    def run(state: Any, host: Any, script: str) -> tuple[bool, list[str]]:
        ran.append(script)
        return True, ["DropInPaths=/etc/systemd/system/rig-firewall.service.d/other.conf"]

    monkeypatch.setattr("rig.operations.shell.run", run)
    _operation(State("a"), lambda: iter([StringCommand("systemctl restart rig-firewall.service")]))
    assert "rig-firewall.service" in ran[0]
    assert "DropInPaths=/etc/systemd/system/rig-firewall.service.d/other.conf" in caplog.text


def test_what_goes_on_by_itself_is_looked_at_by_whoever_waits_for_it() -> None:
    done = _operation(State("a"), lambda: iter([StringCommand("systemd-run --unit=fetch rig-models")]))
    assert len(done) == 1


def test_an_operation_that_is_well_is_as_it_was() -> None:
    walks = iter([[StringCommand("true"), StringCommand("false")], []])
    done = _operation(State("a"), lambda: iter(next(walks)))
    assert [str(command) for command in done] == ["true", "false"]


# The lock


@pytest.fixture
def script(tmp_path: Path) -> str:
    """The script that holds the lock, at a path of the test."""
    text = lock._HOLD.replace(lock.PLACE, str(tmp_path / "lock")).replace("@WHO@", "ann@desk")
    return text.replace(f"flock -w {lock.PATIENCE}", "flock -w 0.2").replace(f"timeout {lock.LIMIT}", "timeout 2")


def test_a_second_run_is_told_who_has_the_machine_and_since_when(script: str) -> None:
    first = lock._Local(script)
    assert first.first_line() == "mine"
    said = lock._Local(script).first_line()
    assert said.startswith(f"held by ann@desk since {time.strftime('%Y-')}")
    sentence = lock.refusal("workstation", said)
    assert sentence.startswith("workstation is being deployed to, and nothing was changed: the lock is held by ann@d")
    assert sentence.endswith(f"end it: sudo kill {first._process.pid}")
    first._process.kill()


@pytest.mark.parametrize("end", ["closed", "killed", "silent"])
def test_the_lock_goes_with_the_connection(script: str, end: str) -> None:
    first = lock._Local(script)
    assert first.first_line() == "mine"
    first.beat()
    assert not first.gone
    if end == "closed":
        assert first._process.stdin is not None
        first._process.stdin.close()
    elif end == "killed":
        os.kill(first._process.pid, signal.SIGKILL)
    # Else nothing more is heard of it, as when the network is cut.
    first._process.wait(timeout=30)
    second = lock._Local(script)
    assert second.first_line() == "mine"
    second._process.kill()


def test_a_machine_that_gives_no_lock_says_why() -> None:
    said = lock.refusal("workstation", "sudo: a password is required")
    assert said.endswith("the lock for a deploy, and nothing was changed: sudo: a password is required")
