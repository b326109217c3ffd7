"""Runs on a lab machine as root: notes every port that answers other hosts, until its input ends.

Prints JSON: a list of [protocol, port]. It reads the kernel's list every two milliseconds.
"""

from __future__ import annotations

import json
import select
import sys
from pathlib import Path

SECONDS = 0.002
LISTENING = "0A"


def main() -> None:
    print("watching", flush=True)
    seen: set[tuple[str, int]] = set()
    while not select.select([sys.stdin], [], [], SECONDS)[0]:
        for protocol in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path("/proc/net", protocol).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].rpartition(":")
                if (fields[3] == LISTENING or protocol.startswith("udp")) and not _is_loopback(address):
                    seen.add((protocol[:3], int(port, 16)))
    print(json.dumps(sorted(seen)))


def _is_loopback(address: str) -> bool:
    """Each group of four bytes is in the order of this processor, little-endian."""
    return address.endswith("7F") if len(address) == 8 else address == "00000000000000000000000001000000"


if __name__ == "__main__":
    main()
