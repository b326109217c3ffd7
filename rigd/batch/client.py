"""A client of any server with OpenAI's Files and Batch interface, for the command rig-batch."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from rigd.base.errors import BadInput, Failed, Trouble

URL = "http://127.0.0.1:8080/v1"
"""The gateway of this machine."""
KEY = "OPENAI_API_KEY"
"""Environment variable with the key, as the official client reads it: an argument would be in the list of processes."""
TIMEOUT = 600
PIECE = 1 << 20


class _Form:
    """An upload that is read while it is sent, and whose length is known before."""

    def __init__(self, path: Path, filename: str) -> None:
        self.boundary = secrets.token_hex(16)
        name = filename.replace('"', "_").replace("\r", "_").replace("\n", "_")
        self._head = (
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{self.boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        self._tail = f"\r\n--{self.boundary}--\r\n".encode()
        self._path, self._size = path, path.stat().st_size

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        with self._path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
        yield self._tail


class Client:
    """One server, with the key of its user."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        # A proxy of the environment is for the internet.
        self._session.trust_env = False
        if key := os.environ.get(KEY):
            self._session.headers["Authorization"] = f"Bearer {key}"

    def upload(self, path: Path, filename: str) -> str:
        """Upload an input file; its id."""
        form = _Form(path, filename)
        kind = {"Content-Type": f"multipart/form-data; boundary={form.boundary}"}
        return str(self._document("POST", "/files", data=form, headers=kind)["id"])

    def create(self, file: str, endpoint: str, window: str, key: str) -> dict[str, Any]:
        """Create a batch; the same key again gives the same batch, where the server knows such keys."""
        body = {"input_file_id": file, "endpoint": endpoint, "completion_window": window}
        return self._document("POST", "/batches", json=body, headers={"Idempotency-Key": key})

    def batch(self, identity: str) -> dict[str, Any]:
        """A batch now."""
        return self._document("GET", f"/batches/{identity}")

    def batches(self, limit: int) -> list[dict[str, Any]]:
        """The newest batches."""
        found: list[dict[str, Any]] = self._document("GET", "/batches", params={"limit": limit})["data"]
        return found

    def content(self, identity: str) -> Iterator[bytes]:
        """A file's content, in pieces."""
        with self._request("GET", f"/files/{identity}/content", stream=True) as response:
            try:
                yield from response.iter_content(PIECE)
            except requests.RequestException as error:
                raise Trouble(f"{self.url} ended the connection ({type(error).__name__})") from None

    def _document(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        with self._request(method, path, **more) as response:
            try:
                found: dict[str, Any] = response.json()
            except ValueError:
                raise Failed(f"{self.url} answers with something that is not JSON; is it the right address?") from None
        return found

    def _request(self, method: str, path: str, **more: Any) -> requests.Response:
        """Raises Trouble for what may pass, BadInput for what the user can change, Failed for all else."""
        try:
            response = self._session.request(method, self.url + path, timeout=TIMEOUT, allow_redirects=False, **more)
        except requests.exceptions.InvalidURL as error:
            raise BadInput(f"{self.url} is no address ({error}); write http://HOST:PORT/v1") from None
        except requests.exceptions.MissingSchema:
            raise BadInput(f"{self.url} is no address; write http://HOST:PORT/v1") from None
        except requests.RequestException as error:
            raise Trouble(f"{self.url} cannot be reached ({type(error).__name__})") from None
        if response.status_code == 200:
            return response
        text = _message(response)
        if response.status_code in (408, 409, 429) or response.status_code >= 500:
            raise Trouble(f"{self.url} answers {response.status_code}: {text}", _wait(response))
        if response.status_code == 401:
            raise BadInput(f"{self.url} refuses the key in ${KEY}: {text}")
        raise Failed(f"{self.url} answers {response.status_code}: {text}")


def _message(response: requests.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return json.dumps(response.text[:200])


def _wait(response: requests.Response) -> float:
    try:
        return min(120.0, float(response.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0
