"""The lab at a greater distance: a relay that delays everything that the machine sends.

Many kernels lack netem, their own means for this; the relay delays each measured round trip alike.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from lab.machine import NAME


@contextmanager
def far(near: Path, folder: Path, seconds: float) -> Iterator[None]:
    """Make `folder` a lab directory for inventory.py: the machine of `near`, with `seconds` of delay."""
    document = yaml.safe_load((near / "hosts.yml").read_text(encoding="utf-8"))
    entry: dict[str, Any] = document["hosts"][NAME]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (line,) = Path(entry["known_hosts_file"]).read_text(encoding="utf-8").splitlines()[:1]
        known = folder / "known_hosts"
        known.write_text(f"[127.0.0.1]:{port} {line.partition(' ')[2]}\n", encoding="utf-8")
        target = (entry["address"], entry["port"])
        entry |= {"address": "127.0.0.1", "port": port, "known_hosts_file": str(known)}
        shutil.copy(near / "running", folder)
        (folder / "hosts.yml").write_text(yaml.safe_dump(document), encoding="utf-8")
        loop = asyncio.new_event_loop()
        thread = threading.Thread(
            target=loop.run_until_complete, args=(_serve(listener, target, seconds),), daemon=True
        )
        thread.start()
        yield


async def _serve(listener: socket.socket, target: tuple[str, int], seconds: float) -> None:
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*target)
        await asyncio.gather(_hand_on(reader, back, 0), _hand_on(there, writer, seconds))

    server = await asyncio.start_server(relay, sock=listener)
    await server.serve_forever()


async def _hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Pass everything on in order, each piece `seconds` after it came."""
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    clock = asyncio.get_running_loop().time

    async def collect() -> None:
        while True:
            piece = await reader.read(65536)
            await pieces.put((clock() + seconds, piece))
            if not piece:
                return

    async def give() -> None:
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(due - clock())
            if not piece:
                writer.close()
                return
            writer.write(piece)
            await writer.drain()

    await asyncio.gather(collect(), give(), return_exceptions=True)
