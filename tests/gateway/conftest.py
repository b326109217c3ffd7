"""Fixtures of the gateway's tests: the real HAProxy before scripted engines."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.gateway import door
from tests.gateway.door import Door
from tests.gateway.scripted import Engine
from tests.unit.sample import settings

Open = Callable[..., Door]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not door.installed():
        for item in items:
            if item.path.parent == Path(__file__).parent:
                item.add_marker(pytest.mark.skip(reason="HAProxy is not installed; script/setup installs it"))


@pytest.fixture
def engines() -> Iterator[dict[str, Engine]]:
    """The engines `one` and `two`, which run."""
    running = door.engines("one", "two")
    yield running
    for engine in running.values():
        engine.release.set()
        engine.kill()


@pytest.fixture
def opened(engines: dict[str, Engine]) -> Iterator[Open]:
    """Starts a gateway before the engines, with changes of the settings."""
    running: list[Door] = []

    def start(
        changes: dict[str, Any] | None = None, batch: bool = False, before: Callable[[Door], object] | None = None
    ) -> Door:
        # Sockets' paths have 108 bytes at most: not pytest's own folder.
        folder = Path(tempfile.mkdtemp(prefix="rig-gw-"))
        port, metrics = door.free_ports(2)
        ports = {
            "gateway/port": port,
            "gateway/metrics/port": metrics,
            "engines/one/port": engines["one"].port,
            "engines/two/port": engines["two"].port,
        }
        found = Door(folder, settings(ports | (changes or {})), batch=batch)
        running.append(found)
        if before is not None:
            before(found)
        found.start()
        return found

    yield start
    for each in running:
        each.stop()
        shutil.rmtree(each.folder, ignore_errors=True)


@pytest.fixture
def gate(opened: Open) -> Door:
    """A gateway with the settings of all.yml."""
    return opened()
