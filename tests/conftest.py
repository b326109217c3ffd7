"""What pytest does with every suite here: --all, and the tests of the bench, which seldom have news."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests import bench

OF_THE_BENCH = {bench.ROOT / name for name in bench.BENCH}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all",
        action="store_true",
        help="also the tests of the bench though the lab is as when they passed, and all cases of what is sampled",
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    wanted = any(path.is_relative_to(folder) for path in OF_THE_BENCH for folder in _named(config))
    if wanted and _left_out(config):
        return f"tests of the bench are left out: the lab is as in {bench.RECORD}; --all runs them"
    return None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """None lets others decide."""
    if collection_path in OF_THE_BENCH - _named(config) and _left_out(config):
        return True
    return None


def _named(config: pytest.Config) -> set[Path]:
    """Files and folders of the command line."""
    return {Path(argument.partition("::")[0]).resolve() for argument in config.args}


def _left_out(config: pytest.Config) -> bool:
    return not config.getoption("--all") and _passed()


@cache
def _passed() -> bool:
    return bench.passed()
