"""Requests to one engine."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from rigd.batch.answers import Answer, Trouble, judge
from rigd.batch.config import Engine, Limits

CONNECT = 5.0
"""Seconds until a connection must exist, and until a probe must be answered."""
KEEP = 2.0
"""Seconds that an idle connection is kept: less than engines keep it (uvicorn: 5), or requests meet its end."""


class Calls:
    """An engine's connections."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine, self._limits = engine, limits

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        """Made by the first request: it belongs to the event loop."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP),
            timeout=aiohttp.ClientTimeout(total=self._engine.timeout, sock_connect=CONNECT),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(self, endpoint: str, body: bytes) -> Answer | Trouble:
        """Send one line's body."""
        if self._engine.priority is not None:
            body = with_priority(body, self._engine.priority)
        try:
            async with self._session.post(
                self._engine.url + endpoint, data=body, headers=self._headers(), allow_redirects=False
            ) as response:
                answer = await _bounded(response, self._limits.answer_bytes)
                if answer is None:
                    return Trouble("failing", f"its answer is longer than {self._limits.answer_bytes} bytes")
                return judge(response.status, answer, response.headers.get("retry-after"))
        except aiohttp.ConnectionTimeoutError:
            return Trouble("refused", "it accepts no connections")
        except TimeoutError:
            return Trouble("timeout", f"no complete answer within {self._engine.timeout:g} s")
        except aiohttp.ClientConnectorError as error:
            return Trouble("refused", f"it cannot be reached ({error.os_error.strerror or error.os_error})")
        except (aiohttp.ClientError, ConnectionError) as error:
            return Trouble("died", f"the connection ended in the middle ({type(error).__name__})")
        except OSError as error:
            return Trouble("key", f"its key cannot be read ({error.strerror})")

    async def probe(self) -> str | None:
        """Why the engine cannot work; None if it can."""
        timeout = aiohttp.ClientTimeout(total=CONNECT)
        try:
            async with self._session.get(
                self._engine.url + "/v1/models", headers=self._headers(), timeout=timeout, allow_redirects=False
            ) as response:
                if response.status in (401, 403):
                    return "it refuses the server's key"
                if response.status in (429, 500, 502, 503, 504):
                    return f"it is not ready ({response.status})"
                content = await _bounded(response, self._limits.answer_bytes)
        except TimeoutError:
            return "it does not answer"
        except aiohttp.ClientConnectorError as error:
            return f"it cannot be reached ({error.os_error.strerror or error.os_error})"
        except (aiohttp.ClientError, ConnectionError) as error:
            return f"it ends the connection ({type(error).__name__})"
        except OSError as error:
            return f"its key cannot be read ({error.strerror})"
        served = _served(response.status, content)
        if served is not None and not served & set(self._engine.models):
            return f"it serves {', '.join(sorted(served)) or 'nothing'} instead of {', '.join(self._engine.models)}"
        return None

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if self._engine.key is not None:
            # Read each time: an owner may have changed it.
            headers["authorization"] = f"Bearer {Path(self._engine.key).read_text(encoding='utf-8').strip()}"
        return headers


def with_priority(body: bytes, priority: int) -> bytes:
    """The body with the engine's priority for batches, which a client cannot overrule."""
    if b'"priority"' not in body and b"\\u" not in body:
        return b'{"priority":%d,' % priority + body[1:]
    return json.dumps({**json.loads(body), "priority": priority}).encode()


async def _bounded(response: aiohttp.ClientResponse, most: int) -> bytes | None:
    """The whole answer; None if it is longer."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > most:
            response.close()
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _served(status: int, content: bytes | None) -> set[str] | None:
    """The models that an engine lists; None if it has no such list."""
    if status != 200 or content is None:
        return None
    try:
        value: Any = orjson.loads(content)
        return {str(entry["id"]) for entry in value["data"]}
    except (ValueError, TypeError, KeyError):
        return None
