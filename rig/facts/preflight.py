"""Facts for preflight: the login, and the machine before any change."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Iterable

from pyinfra.api import FactBase

from rig.facts import overrides, used
from rig.facts.containers import DAEMON
from rig.facts.gpu import CARDS, card
from rig.preflight.machine import Listener, Login, Machine, Mounted, key_bodies
from rigd.base.lock import NAME
from rigd.modes.config import LOCK

MARKER = "rig-login-begins-or-ends-here"


class LoginFact(FactBase[Login]):
    """The login without any privilege: run it with ``_sudo=False``, as sudo hides the address of the connection."""

    def command(self) -> str:
        return (
            # On a line of its own, after any output of the shell.
            f'printf "\\n%s\\n" {MARKER}; '
            'home=$(getent passwd "$(id -un)" | cut -d: -f6); '
            'printf "%s\\n" "$(id -u)" "$(id -un)" "${SSH_CONNECTION%% *}" "${SSH_CONNECTION##* }" '
            '"$(base64 -w 0 "$home/.ssh/authorized_keys" 2>/dev/null)"; '
            f"if sudo -n true 2>/dev/null; then echo yes; else echo no; fi; echo {MARKER}"
        )

    def process(self, output: list[str]) -> Login:
        lines = [line.strip() for line in output]
        if lines.count(MARKER) != 2:
            # Not a real shell, such as nologin, or one that ended in the middle.
            said = " ".join(filter(None, lines))[:160] or "nothing"
            return Login(-1, "", False, source=None, port=None, chatter=said)
        begin, end = lines.index(MARKER), len(lines) - 1 - lines[::-1].index(MARKER)
        # Other output, before and after it, is in every answer of this login.
        around = " ".join(filter(None, [*lines[:begin], *lines[end + 1 :]]))[:160]
        uid, user, source, port, keys, sudo = lines[begin + 1 : end]
        return Login(
            int(uid),
            user,
            sudo == "yes",
            source=source or None,
            port=int(port) if port else None,
            keys=key_bodies(base64.b64decode(keys).decode(errors="replace")),
            chatter=around,
        )


class MachineFact(FactBase[Machine]):
    """System, free space, listeners, our containers and images, and holders of locks; a bare system's shell is enough.

    A path that does not exist yet is measured at its nearest existing parent.
    """

    def command(
        self,
        paths: Iterable[str],
        files: Iterable[str],
        disks: Iterable[str],
        images: Iterable[str],
        servers: Iterable[str],
    ) -> str:
        script = _SCRIPT + used.script(servers, disks) + overrides.SCRIPT + CARDS
        script = script.replace("@PATHS@", shlex.join(paths)).replace("@FILES@", shlex.join(files))
        script = script.replace("@DISKS@", shlex.join(disks))
        script = script.replace("@SWITCH@", f"{LOCK}/{NAME}")
        return script.replace("@IMAGES@", shlex.join(images)).replace("@DAEMON@", DAEMON)

    def process(self, output: list[str]) -> Machine:
        fields: dict[str, list[list[str]]] = {}
        for line in output:
            key, *values = line.split("\t")
            fields.setdefault(key, []).append(values)
        return Machine(
            os_id=fields["os"][0][0],
            os_version=fields["os"][0][1],
            os_codename=fields["os"][0][2],
            architecture=fields["arch"][0][0],
            free={path: int(free) for path, free, _ in (*fields["path"], *fields.get("root", []))},
            device={path: device for path, _, device in (*fields["path"], *fields.get("root", []))},
            mounts={path: Mounted(*what) for path, *what in fields.get("mount", [])},
            disks=dict(fields.get("disk", [])),
            sizes={path: int(size) for path, size in fields.get("file", [])},
            absent=frozenset(path for (path,) in fields.get("absent", [])),
            listeners=tuple(_listener(values) for values in fields.get("listener", [])),
            published={name.lstrip("/"): frozenset(map(int, ports)) for name, *ports in fields.get("container", [])},
            docker="docker" in fields,
            missing_images=frozenset(image for (image,) in fields.get("missing", [])),
            apt_holder=" ".join(fields["apt"][0]) if "apt" in fields else None,
            switch=fields["switch"][0][0] if "switch" in fields else None,
            held={name: version for name, version in fields.get("held", [])},
            cards=tuple(card(values) for values in fields.get("card", [])),
            automounts=frozenset(path for (path,) in fields.get("automount", [])),
            **used.fields(fields),
            overrides=overrides.fields(fields),
            kernel=fields["kernel"][0][0],
            secure_boot="secure" in fields,
            daemon=base64.b64decode("".join(fields.get("daemon", [[""]])[0])).decode(errors="replace"),
        )


def _listener(values: list[str]) -> Listener:
    local, users, unit, container = values
    address, _, port = local.rpartition(":")
    process = re.search(r'\("([^"]*)"', users)
    return Listener(address, int(port), process[1] if process else "", unit, container.lstrip("/"))


# apt's lock is a POSIX lock, invisible to flock(1); the kernel lists it by device and inode.
_SCRIPT = r"""
t=$(printf "\t")
. /etc/os-release; printf "os\t%s\t%s\t%s\n" "$ID" "$VERSION_ID" "$VERSION_CODENAME"
printf "arch\t%s\n" "$(dpkg --print-architecture)"
for path in @PATHS@; do
  at=$path; while [ ! -d "$at" ]; do at=$(dirname "$at"); done
  # An automount point mounts its disk when somebody looks below it, or fails where the disk is not there.
  timeout 20 ls "$at/." >/dev/null 2>&1
  free=$(timeout 20 df -B1 --output=avail "$at" 2>/dev/null | tail -n 1 | tr -d " ")
  printf "path\t%s\t%s\t%s\n" "$path" "${free:-0}" "$(stat -c %d "$at")"
  [ "$at" = "$path" ] && mountpoint -q "$path" || continue
  # Of several that are mounted over each other the last is the one that is seen.
  mounted() { findmnt --noheadings --nofsroot --mountpoint "$path" --output "$1" | tail -n 1; }
  [ "$(mounted FSTYPE)" != autofs ] || { printf "automount\t%s\n" "$path"; continue; }
  device=$(mounted SOURCE); [ -b "$device" ] && device=$(readlink -f "$device")
  printf "mount\t%s\t%s\t%s\t%s\n" "$path" "$device" "$(mounted UUID)" "$(mounted LABEL)"
done
for disk in @DISKS@; do printf "disk\t%s\t%s\n" "$disk" "$(readlink -f "$disk")"; done
for file in @FILES@; do
  for at in "$file" "$file.part"; do
    [ -f "$at" ] && printf "file\t%s\t%s\n" "$file" "$(stat -c %s "$at")" && break
  done
  [ -f "$file" ] || printf "absent\t%s\n" "$file"
done
ss -Hltnp | while read -r _ _ _ address _ users; do
  pid=${users#*pid=}; pid=${pid%%,*}
  unit=$(sed -n "s|.*/\([^/]*\.service\).*|\1|p" "/proc/$pid/cgroup" 2>/dev/null | head -n 1)
  id=$(grep -oE "docker[-/][0-9a-f]{64}" "/proc/$pid/cgroup" 2>/dev/null | head -n 1)
  container=; [ -z "$id" ] || container=$(timeout 60 docker inspect --format "{{.Name}}" "${id#docker?}" 2>/dev/null)
  printf "listener\t%s\t%s\t%s\t%s\n" "$address" "$users" "$unit" "$container"
done
if command -v docker >/dev/null; then
  echo docker
  # All, and as they are set: after a power cut a container that is being started holds its port and is not running yet.
  # Docker answers only when it has started them.
  timeout 60 docker ps --all --quiet --filter label=rig.engine 2>/dev/null | xargs -r docker inspect --format \
    "container${t}{{.Name}}{{range .HostConfig.PortBindings}}{{range .}}${t}{{.HostPort}}{{end}}{{end}}" 2>/dev/null
  # One that does not answer, being stopped, is not taken to hold nothing.
  for image in @IMAGES@; do
    timeout 60 docker image inspect "$image" 2>&1 >/dev/null | grep -q "No such image" || continue
    printf "missing\t%s\n" "$image"
  done
fi
[ -f @DAEMON@ ] && printf "daemon\t%s\n" "$(base64 -w 0 @DAEMON@)"
dpkg-query -W -f='${db:Status-Abbrev}\theld\t${Package}\t${Version}\n' | sed -n "s/^hi \t//p"
for lock in /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock; do
  [ -e "$lock" ] || continue
  pid=$(awk -v inode=":$(stat -c %i "$lock")\$" "\$6 ~ inode { print \$5; exit }" /proc/locks)
  if [ -n "$pid" ]; then
    printf "apt\t%s\t(PID %s)\n" "$(cat "/proc/$pid/comm" 2>/dev/null || echo apt)" "$pid"; break
  fi
done
if [ -e @SWITCH@ ]; then
  # A file system in memory has the same inodes as others of its kind; it has a device of its own.
  at=$(printf "%02x:%02x:%s" $(stat -c "%Hd %Ld %i" @SWITCH@))
  awk -v at="$at" "\$6 == at { printf \"switch\t%s\n\", \$5; exit }" /proc/locks
fi
true
"""
