"""Values of the running system."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase


class TimeZone(FactBase[str]):
    """Name of the zone that /etc/localtime points to; a link to another zone is reported by its own name."""

    def command(self) -> str:
        return "readlink /etc/localtime || true"

    def process(self, output: list[str]) -> str:
        return output[0].partition("/zoneinfo/")[2] if output else ""


class Homes(FactBase[dict[str, str]]):
    """Home of each of these users, without users that the machine lacks."""

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self, users: Iterable[str]) -> str:
        return f"getent passwd {shlex.join(users)} || true"

    def process(self, output: list[str]) -> dict[str, str]:
        entries = (line.split(":") for line in output)
        return {entry[0]: entry[5] for entry in entries}


@dataclass(frozen=True)
class AccountState:
    """An account of the machine, from any source of accounts."""

    home: str
    shell: str
    groups: frozenset[str]
    """Names of all its groups, including the primary one."""
    folder: str = ""
    """Mode and owner of its home, such as ``750 owner``; empty if that is not a folder of its own, such as a link."""

    @property
    def open(self) -> bool:
        """Others may write to its home, so sshd trusts none of its keys."""
        mode = self.folder.partition(" ")[0]
        return bool(mode) and int(mode, 8) & 0o022 != 0


class Account(FactBase[AccountState | None]):
    """One account by its name; None if the machine has none. No other account is read."""

    def command(self, user: str) -> str:
        quoted = shlex.quote(user)
        return (
            f"getent passwd {quoted} && id -Gn {quoted} && {{ home=$(getent passwd {quoted} | cut -d: -f6); "
            '[ "$home" = / ] || [ ! -d "$home" ] || [ -L "$home" ] || stat -c "%a %U" "$home"; } || true'
        )

    def process(self, output: list[str]) -> AccountState | None:
        if len(output) < 2:
            return None
        entry, groups, *folder = output
        *_, home, shell = entry.split(":")
        return AccountState(home, shell, frozenset(groups.split()), "".join(folder))


@dataclass(frozen=True)
class KeyFile:
    """A user's authorized_keys and its folder; modes with owners, such as ``600 owner``."""

    folder: str
    file: str
    sha256: str


class AuthorizedKeys(FactBase[KeyFile | None]):
    """The keys that log in as a user; None if there is no such file, or something else such as a link."""

    def command(self, folder: str) -> str:
        return (
            f"cd {shlex.quote(folder)} 2>/dev/null && [ -f authorized_keys ] && [ ! -L authorized_keys ] && "
            'stat -c "%a %U" . authorized_keys && sha256sum <authorized_keys || true'
        )

    def process(self, output: list[str]) -> KeyFile:
        return KeyFile(folder=output[0], file=output[1], sha256=output[2].split()[0])


class OtherKeyFiles(FactBase[tuple[str, ...]]):
    """Files below a user's home, besides authorized_keys, where sshd looks for keys as configured or by default.

    Those of the default, too: a configuration that is gone tomorrow must not let in who was closed out today.

    ``%h``, ``%u`` and ``%%`` stand for home, name and a percent sign (sshd_config(5), TOKENS).
    """

    @staticmethod
    def default() -> tuple[str, ...]:
        return ()

    def command(self, user: str, folder: str) -> str:
        return f"""
user={shlex.quote(user)} folder={shlex.quote(folder)}; home=${{folder%/.ssh}}
files=$(sshd -T -C "user=$user,host=none.invalid,addr=192.0.2.1" 2>/dev/null | sed -n 's/^authorizedkeysfile //p')
set -f
for file in $(printf "%s\\n" .ssh/authorized_keys2 $files | sort -u); do
  file=$(printf %s "$file" | sed -e "s|%h|$home|g" -e "s|%u|$user|g" -e 's|%%|%|g')
  case "$file" in /*) ;; *) file=$home/$file ;; esac
  case "$file" in "$folder/authorized_keys") ;; "$home"/*) [ ! -e "$file" ] && [ ! -L "$file" ] || echo "$file" ;; esac
done
true
"""

    def process(self, output: list[str]) -> tuple[str, ...]:
        return tuple(output)


class SysctlValues(FactBase[dict[str, str]]):
    """Live values of kernel parameters, white space folded; a key that the kernel lacks is left out."""

    @staticmethod
    def default() -> dict[str, str]:
        return {}

    def command(self, keys: Iterable[str]) -> str:
        return f"sysctl --ignore {shlex.join(keys)} 2>/dev/null || true"

    def process(self, output: list[str]) -> dict[str, str]:
        pairs = (line.partition("=") for line in output)
        return {key.strip(): " ".join(value.split()) for key, _, value in pairs}


class FileText(FactBase[str | None]):
    """Text of a file that holds no secret; None when it is missing."""

    def command(self, path: str) -> str:
        quoted = shlex.quote(path)
        return f"if [ -f {quoted} ]; then echo there; cat {quoted}; else echo missing; fi"

    def process(self, output: list[str]) -> str | None:
        return "\n".join(output[1:]) if output[:1] == ["there"] else None
