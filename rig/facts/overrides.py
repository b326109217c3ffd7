"""Preflight's facts of files that could undo ours: those of sysctl, the journal and apt, drop-ins, and masks."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping

from rig.preflight.machine import Overrides

# `t` is a tab. Drop-ins below /usr belong to packages; those of `systemctl set-property` are in system.control.
SCRIPT = r"""
for name in sysctl.d systemd/journald.conf; do
  printf "config\t%s\t%s\n" "$name" "$(systemd-analyze --no-pager cat-config "$name" 2>/dev/null | base64 -w 0)"
done
for file in $(LC_ALL=C ls -d /etc/apt/apt.conf.d/* /etc/apt/apt.conf 2>/dev/null | LC_ALL=C sort); do
  case ${file##*/} in *.*) case $file in *.conf) ;; *) continue ;; esac ;; esac
  grep -qiE "periodic|unattended" "$file" && printf "aptconf\t%s\t%s\n" "$file" "$(base64 -w 0 "$file")"
done
for folder in /etc/systemd/system /run/systemd/system /etc/systemd/system.control /run/systemd/system.control; do
  for file in $folder/rig-*.d/*.conf $folder/prometheus*.d/*.conf; do
    [ ! -e "$file" ] || printf "dropin\t%s\n" "$file"
  done
  for file in $folder/*.service $folder/*.timer $folder/*.socket; do
    [ "$(readlink "$file")" != /dev/null ] || printf "mask\t%s\n" "$file"
  done
done
"""


def fields(found: Mapping[str, Iterable[list[str]]]) -> Overrides:
    """The overrides, from the script's output."""
    configs = {name: files(_text(encoded)) for name, encoded in found.get("config", [])}
    return Overrides(
        sysctl=configs.get("sysctl.d", {}),
        journald=configs.get("systemd/journald.conf", {}),
        apt={path: _text(encoded) for path, encoded in found.get("aptconf", [])},
        drop_ins=tuple(path for (path,) in found.get("dropin", [])),
        masks=tuple(path for (path,) in found.get("mask", [])),
    )


def files(shown: str) -> dict[str, str]:
    """The files in the output of `systemd-analyze cat-config`: a comment with the path comes before each."""
    parts = re.split(r"(?m)^# (/\S+\.conf)$", shown)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")
