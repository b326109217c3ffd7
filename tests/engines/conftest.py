"""Tests against a real vLLM, which `script/test --engines` installs."""

from __future__ import annotations

import pytest

from tests.engines.real import PYTHON


def pytest_configure(config: pytest.Config) -> None:
    if not PYTHON.exists():
        pytest.exit(f"there is no {PYTHON}; `script/test --engines` installs a real vLLM there", returncode=2)
