"""However a whole machine's lab ends, the operator's machine is as before; and its disk starts again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.machine import Lab, down, purge, running
from tests.lab.conftest import Machines
from tests.lab.traces import Family, Traces, eventually


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Machines().directory("vm-ending")
    yield directory
    down(directory)
    purge(directory)


def test_nothing_is_left_of_a_whole_machine_and_its_disk_starts_again(directory: Path) -> None:
    before = Traces.take()

    def left_behind(lab: Lab, family: Family) -> list[str]:
        return family.alive() + Traces.take().left_behind(before, lab.network.interface, directory)

    killed = Lab.boot(directory, vm=True)
    assert killed.ssh("systemd-detect-virt").stdout.strip() == "qemu"
    killed.sudo("echo kept >/root/mark && sync")
    family = Family.of(killed, os.getpid())
    os.kill(family.supervisor, signal.SIGKILL)
    eventually(lambda: left_behind(killed, family))
    assert not running(directory)

    again = Lab.boot(directory, vm=True)
    assert again.sudo("cat /root/mark").stdout == "kept\n"
    family = Family.of(again, os.getpid())
    again.down()
    eventually(lambda: left_behind(again, family))
    said = (directory / "log/console.log").read_text(errors="replace")
    assert "reboot: Power down" in said, "it was not shut down in order"
