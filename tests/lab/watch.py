"""Runs on a lab machine as root during a deploy: records what other users could see, until its input is closed.

Prints JSON: every command line and environment of a process that was caught, and the events of files in /etc/rig.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import stat
import struct
import sys
from pathlib import Path

SECONDS = 0.004
"""Between two scans of all processes."""

CREATED, ATTRIBUTES, MOVED_FROM, MOVED_TO, WRITTEN, MODIFIED = 0x100, 0x4, 0x40, 0x80, 0x8, 0x2
NAMES = {
    CREATED: "created",
    ATTRIBUTES: "attributes",
    MOVED_FROM: "moved from",
    MOVED_TO: "moved to",
    WRITTEN: "written",
    MODIFIED: "modified",
}
EVENT = struct.Struct("iIII")
FOLDERS = ("/etc/rig", "/etc/rig/keys", "/etc/rig/prometheus-keys")


class Files:
    """Events of two folders, in their order: the kernel keeps them, so that none is missed between two scans."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = self._libc.inotify_init1(os.O_NONBLOCK)
        self._folders: dict[int, str] = {}
        self.events: list[tuple[str, str, str]] = []
        self._watch("/etc")

    def _watch(self, folder: str) -> None:
        number = self._libc.inotify_add_watch(self.descriptor, folder.encode(), sum(NAMES))
        if number >= 0 and number not in self._folders:
            self._folders[number] = folder
            for path in Path(folder).iterdir() if folder in FOLDERS else ():
                self._note("there", str(path))

    def read(self) -> None:
        for folder in FOLDERS:
            if folder not in self._folders.values() and Path(folder).is_dir():
                self._watch(folder)
        try:
            data = os.read(self.descriptor, 1 << 20)
        except BlockingIOError:
            return
        while data:
            number, mask, _, length = EVENT.unpack_from(data)
            name = data[EVENT.size : EVENT.size + length].rstrip(b"\0").decode()
            data = data[EVENT.size + length :]
            folder = self._folders.get(number, "")
            if folder in FOLDERS and name:
                for bit, event in NAMES.items():
                    if mask & bit:
                        self._note(event, f"{folder}/{name}")

    def _note(self, event: str, path: str) -> None:
        try:
            mode = oct(stat.S_IMODE(os.lstat(path).st_mode))
        except FileNotFoundError:
            mode = "gone"
        self.events.append((event, path, mode))


class Processes:
    """Command lines, and environments of the machine's own processes: those of a container are the container's."""

    def __init__(self) -> None:
        self.looks = 0
        self.commands: set[bytes] = set()
        self.environments: set[bytes] = set()
        self._own = Path("/proc/self/ns/pid").readlink()

    def read(self) -> None:
        self.looks += 1
        for entry in os.scandir("/proc"):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    process = Path(entry.path)
                    self.commands.add((process / "cmdline").read_bytes())
                    if (process / "ns/pid").readlink() == self._own:
                        self.environments.add((process / "environ").read_bytes())
                except OSError:
                    continue


def main() -> None:
    files, processes = Files(), Processes()
    print("watching", flush=True)
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], SECONDS)
        files.read()
        processes.read()
        if ready and not os.read(sys.stdin.fileno(), 1):
            break
    found = {
        "looks": processes.looks,
        "commands": [command.decode(errors="replace").replace("\0", " ") for command in processes.commands],
        "environments": [text.decode(errors="replace").replace("\0", "\n") for text in processes.environments],
        "files": files.events,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
