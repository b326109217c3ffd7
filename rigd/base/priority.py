"""The lowest priority for background work, so that everything else gets processor and disk first."""

from __future__ import annotations

import os
import subprocess


def lowest() -> None:
    """Lower the priority of this process and of its future children."""
    os.nice(19)
    subprocess.run(["ionice", "--class", "idle", "--pid", str(os.getpid())], check=False)
