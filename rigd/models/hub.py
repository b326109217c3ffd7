"""The hub: where a file of a repository is asked for, and what its answers mean."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from rigd.base.errors import BadInput, Failed, Trouble
from rigd.models.manifest import File, Model

REDIRECTS = 5
_ENDS_LATER = (408, 425, 429)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_NETWORK = (requests.RequestException, HTTPError, http.client.HTTPException, OSError)


@dataclass(frozen=True)
class Body:
    """The bytes of a file from `start` on."""

    start: int
    response: requests.Response

    def pieces(self, size: int) -> Iterator[bytes]:
        """What has arrived, `size` bytes at most at a time. Raises Trouble when the connection breaks.

        Not through urllib3's read(), which collects a whole piece and loses it when the connection breaks inside (seen
        with 1.26 and 2.8): those bytes would be fetched again.
        """
        connection = cast(http.client.HTTPResponse, self.response.raw._original_response)
        while True:
            try:
                data = connection.read1(size)
            except _NETWORK as error:
                raise Trouble(_cause(error)) from None
            if not data:
                return
            yield data


class _Token(AuthBase):
    """The owner's token, or none; requests would otherwise look for a password in ~/.netrc."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Hub:
    """One hub, asked by one thread."""

    def __init__(self, address: str, token: str | None, timeout: float) -> None:
        self.address = address.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._session = requests.Session()

    @contextmanager
    def open(self, model: Model, file: File, start: int) -> Iterator[Body]:
        """The file from byte `start` on, or from its beginning where the server cannot do that.

        Always asked for at its resolve address, as the address that this leads to soon expires. Raises Trouble for what
        may pass, and Failed for what will not.
        """
        response = self._follow(model, file, start)
        try:
            yield Body(_start(response, file, start), response)
        finally:
            response.close()

    def _follow(self, model: Model, file: File, start: int) -> requests.Response:
        url = f"{self.address}/{model.repository}/resolve/{model.revision}/{quote(file.path)}"
        for hop in range(REDIRECTS + 1):
            response = self._get(url, start)
            if response.is_redirect:
                _compare_promise(response, file)
                url = urljoin(url, response.headers["Location"])
                response.close()
                continue
            problem = self._problem(response, model, file, first=hop == 0)
            if problem is not None:
                response.close()
                raise problem
            return response
        raise Failed(f"{self.address} redirects more than {REDIRECTS} times; is models.hub right?")

    def _get(self, url: str, start: int) -> requests.Response:
        # Compressed bytes would have other positions and another length.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        own = urlsplit(url)[:2] == urlsplit(self.address)[:2]
        try:
            return self._session.get(
                url,
                headers=headers,
                auth=_Token(self._token if own else None),
                timeout=self._timeout,
                stream=True,
                allow_redirects=False,
            )
        except _NETWORK as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise Failed(
                    f"the certificate of {urlsplit(url).netloc} is not trusted; is models.hub right?"
                ) from None
            raise Trouble(_cause(error)) from None

    def _problem(self, response: requests.Response, model: Model, file: File, first: bool) -> Exception | None:
        """What a status says is wrong; None when bytes follow."""
        status = response.status_code
        said = f"{urlsplit(response.url).netloc} answers {status} {response.reason or ''}".rstrip()
        if status in (200, 206):
            return None
        if status in (401, 403) and first:
            return Failed(_gated(f"{self.address}/{model.repository}", said, self._token is not None))
        # An address that the hub led to is signed, and ends: it is asked for anew.
        if status in _ENDS_LATER or status >= 500 or (status == 403 and not first):
            return Trouble(said, _retry_after(response.headers.get("Retry-After", "")))
        if status == 416:
            return _beyond_the_end(response, file)
        return Failed(f"{said} for {file.path} of {model.repository} at {model.revision}; are these three right?")


def token(path: Path | None) -> str | None:
    """The token in a file that only its owner can read; None without one. Raises BadInput."""
    if path is None:
        return None
    try:
        if path.stat().st_mode & 0o077:
            raise BadInput(f"{path} can be read by others than its owner; run: chmod 0600 {path}")
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); run rig-models as root") from None
    if not re.fullmatch(r"[!-~]+", text):
        raise BadInput(f"{path} does not hold a token; write the token of your account in it, and nothing else")
    return text


def _start(response: requests.Response, file: File, wanted: int) -> int:
    """Where the bytes of an answer begin. Raises when they are not those of the file."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != file.size:
            raise _other_size(int(length), file)
        return 0
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != wanted or wanted == 0:
        raise Trouble(f"the server sends other bytes than those from {wanted} on", afresh=True)
    if int(found[3]) != file.size:
        raise _other_size(int(found[3]), file)
    return wanted


def _compare_promise(response: requests.Response, file: File) -> None:
    """The hub says beforehand what a large file is: another one need not be fetched to be refused."""
    size = response.headers.get("X-Linked-Size", "")
    if size.isdecimal() and int(size) != file.size:
        raise _other_size(int(size), file)
    digest = response.headers.get("X-Linked-Etag", "").removeprefix("W/").strip('"')
    if re.fullmatch(r"[0-9a-f]{64}", digest) and digest != file.sha256:
        raise Failed(
            f"the hub has other bytes under this name, with SHA-256 {digest}, and {file.sha256} is pinned; "
            "pin the new file, or find out who changed it"
        )


def _beyond_the_end(response: requests.Response, file: File) -> Exception:
    size = response.headers.get("Content-Range", "").removeprefix("bytes */")
    if size.isdecimal() and int(size) != file.size:
        return _other_size(int(size), file)
    return Trouble("the server has nothing from there on", afresh=True)


def _other_size(found: int, file: File) -> Failed:
    return Failed(
        f"the hub's file has {found} bytes, and {file.size} are pinned; pin the new file, or find out who changed it"
    )


def _gated(page: str, said: str, has_token: bool) -> str:
    if has_token:
        return f"{said}: accept the licence at {page} with the account of your token, or write a token that may read it"
    return f"{said}: accept the licence at {page}, and write a token of that account into the machine's token file"


def _retry_after(text: str) -> float:
    """Seconds of a Retry-After header, which may be a date; 0 when there is none."""
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def _cause(error: Any) -> str:
    """What broke, in the words of the error furthest inside."""
    if isinstance(error, requests.Timeout | TimeoutError) or "timed out" in str(error).lower():
        return "the server was silent for too long"
    while True:
        inside = (
            error.__context__
            or getattr(error, "reason", None)
            or next((part for part in getattr(error, "args", ()) if isinstance(part, Exception)), None)
        )
        if not isinstance(inside, Exception):
            break
        error = inside
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the connection broke ({said})"
