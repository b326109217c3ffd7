"""Facts of the container engine's configuration."""

from __future__ import annotations

import json
from typing import Any

from pyinfra.api import FactBase, FactProcessError

DAEMON = "/etc/docker/daemon.json"


class Daemon(FactBase[dict[str, Any]]):
    """Content of daemon.json; empty when it is missing. A file that is not a JSON object raises FactProcessError."""

    @staticmethod
    def default() -> dict[str, Any]:
        return {}

    def command(self) -> str:
        return f"cat {DAEMON} 2>/dev/null || true"

    def process(self, output: list[str]) -> dict[str, Any]:
        text = "\n".join(output).strip()
        try:
            content = json.loads(text or "{}")
        except ValueError as error:
            raise FactProcessError(f"{DAEMON} is not JSON ({error}); correct it, or move it away") from error
        if not isinstance(content, dict):
            raise FactProcessError(f"{DAEMON} is not a JSON object; correct it, or move it away")
        return content
