"""The engine's own part of a native engine's service: a drop-in to the sandboxed template unit."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath

from rig.engines import llama
from rig.settings import Settings
from rig.settings.engines import NativeEngine
from rig.systemd import units

INSTALLED = PurePosixPath("/opt/rig/llama.cpp")


def engines(settings: Settings) -> dict[str, NativeEngine]:
    """Enabled engines that run as services directly on the machine, by name."""
    enabled = settings.enabled_engines
    return {name: engine for name, engine in enabled.items() if isinstance(engine, NativeEngine)}


def drop_in(name: str) -> str:
    """Path of the engine's drop-in, which holds the part of the unit that depends on its settings."""
    return f"/etc/systemd/system/rig-native@{name}.service.d/engine.conf"


def directory(engine: NativeEngine) -> PurePosixPath:
    """Folder of the unpacked archive; its name has the archive's hash, so that another archive is another folder."""
    assert engine.archive is not None
    return INSTALLED / engine.archive.sha256[:12]


def command_line(settings: Settings, engine: NativeEngine) -> list[str]:
    """Program and arguments; the key comes from a credential, and systemd replaces %d by the credentials' folder."""
    assert engine.archive is not None
    files = {name: str(settings.model_path(name)) for name in engine.model_names}
    program = str(directory(engine) / engine.archive.binary)
    return [program, *llama.arguments(engine, files, host=str(engine.address), layers=None)]


def hidden(path: str) -> bool:
    """Whether the template unit's ProtectHome= hides a folder from the server."""
    return any(PurePosixPath(path).is_relative_to(home) for home in ("/home", "/root", "/run/user"))


def exec_start(command: list[str]) -> str:
    """An ExecStart= line with exactly these words, and the one intended specifier: the credential's path."""
    return f"{units.command_line(command)} --api-key-file %d/key"


def fingerprint(*texts: str) -> str:
    """SHA-256 over everything that decides how the service runs; a process with another one is outdated."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text).to_bytes(8) + text.encode())
    return digest.hexdigest()
