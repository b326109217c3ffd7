"""Preflight's facts of a machine with a past: apt's entries, Docker's places, variables, hardware."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from shlex import quote
from typing import Any

from rig.apt.sources import Sources
from rig.facts.containers import DAEMON

Fields = dict[str, list[list[str]]]

STEERING = "DOCKER_HOST|DOCKER_CONTEXT|DOCKER_DEFAULT_PLATFORM|COMPOSE_[A-Z_]+|APT_CONFIG"
"""Variables that make docker, compose and apt work on something other than the deploy intends."""

_SCRIPT = r"""
for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
  [ -f "$file" ] && grep -qF @SERVERS@ "$file" || continue
  printf "source\t%s\t%s\n" "$file" "$(base64 -w 0 "$file")"
  # Whatever looks like a path in an entry, and is a file of a key ring's size.
  tr "=:,[] \t" "\n" <"$file" | grep "^/[^/]" | sort -u | while read -r ring; do
    [ -f "$ring" ] && [ "$(stat -L -c %s "$ring")" -lt 1048576 ] || continue
    printf "ring\t%s\t%s\n" "$ring" "$(base64 -w 0 "$ring")"
  done
done
root=
if command -v docker >/dev/null; then
  info=$(timeout 60 docker info --format "{{.DockerRootDir}}$t{{.Swarm.LocalNodeState}}" 2>/dev/null)
  root=${info%%"$t"*}
  [ "${info##*"$t"}" != active ] || echo swarm
fi
[ -n "$root" ] || root=$(sed -n "s/.*\"data-root\" *: *\"\([^\"]*\)\".*/\1/p" @DAEMON@ 2>/dev/null | head -n 1)
root=${root:-/var/lib/docker}
at=$root; while [ ! -d "$at" ]; do at=$(dirname "$at"); done
printf "root\t%s\t%s\t%s\n" "$root" "$(df -B1 --output=avail "$at" | tail -n 1 | tr -d " ")" "$(stat -c %d "$at")"
{ env; sed "s/^ *export *//" /etc/environment 2>/dev/null; } | grep -E "^(@STEERING@)=." | sort -u | tr "\t" " " |
  sed "s/^/environment\t/"
for disk in @DISKS@; do
  [ ! -e "$disk" ] || continue
  other=$(ls "${disk%/*}" 2>/dev/null | grep -ixF -e "${disk##*/}" | head -n 1)
  [ -z "$other" ] || printf "alike\t%s\t%s\n" "$disk" "${disk%/*}/$other"
done
awk "/^MemTotal:/ { printf \"ram\t%.0f\n\", \$2 * 1024 }" /proc/meminfo
printf "cores\t%s\n" "$(lscpu --parse=CORE,SOCKET 2>/dev/null | grep -v "^#" | sort -u | wc -l)"
if command -v nvidia-smi >/dev/null; then
  shown=$(timeout --kill-after=2 10 nvidia-smi 2>/dev/null)
  echo "$shown" | sed -n "s|.*/ *\([0-9][0-9]*\)MiB.*|memory\t\1|p"
  echo "$shown" | sed -n "s/.*CUDA Version: *\([0-9][0-9.]*\).*/cuda\t\1/p" | head -n 1
fi
"""


def script(servers: Iterable[str], disks: Iterable[str]) -> str:
    """A part of preflight's script, which has defined ``t`` as a tab. ``servers``: those of our repositories."""
    # Without a server, a pattern that matches no file.
    patterns = " ".join(f"-e {quote(server)}" for server in servers) or "-e ://none.invalid/"
    text = _SCRIPT.replace("@SERVERS@", patterns).replace("@DAEMON@", DAEMON).replace("@STEERING@", STEERING)
    return text.replace("@DISKS@", " ".join(map(quote, disks)))


def fields(found: Fields) -> dict[str, Any]:
    """Fields of a Machine, from the script's output."""
    root = found["root"][0][0] if "root" in found else ""
    cores = int(found["cores"][0][0]) if "cores" in found else 0
    return {
        "sources": Sources(
            {path: base64.b64decode(text).decode(errors="replace") for path, text in found.get("source", [])},
            {path: base64.b64decode(text) for path, text in found.get("ring", [])},
        ),
        **({"data_root": root} if root else {}),
        "swarm": "swarm" in found,
        "environment": tuple(value for (value,) in found.get("environment", [])),
        "alike": dict(found.get("alike", [])),
        "ram": int(found["ram"][0][0]) if "ram" in found else None,
        # A virtual machine may not report them.
        "cores": cores or None,
        "card_memory": tuple(int(size) << 20 for (size,) in found.get("memory", [])),
        "cuda": found["cuda"][0][0] if "cuda" in found else "",
    }
