"""The hub: requests for files of a repository, and the meaning of its answers."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator, Mapping
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
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_SPENT = re.compile(r"(?:^|[;,\s])r\s*=\s*0(?:\.0*)?\s*(?:;[^,]*?)?;\s*t\s*=\s*(\d+)", re.IGNORECASE)
"""A policy of a RateLimit header with nothing left, and the seconds until it is renewed."""
_RESOLVED = re.compile(r"/([^/]+/[^/]+)/(?:resolve|tree)/")
"""The repository in an address of the hub."""
_NETWORK = (requests.RequestException, HTTPError, http.client.HTTPException, OSError)


@dataclass(frozen=True)
class Body:
    """The bytes of a file from `start` on."""

    start: int
    response: requests.Response

    def pieces(self, size: int) -> Iterator[bytes]:
        """The bytes that have arrived, at most `size` at a time. Raises Trouble when the connection breaks.

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
    """The owner's token, or none; without this, requests would look for a password in ~/.netrc."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Hub:
    """One hub, used by one thread."""

    def __init__(self, address: str, token: str | None, timeout: float) -> None:
        self.address = address.rstrip("/")
        self._token = token
        self._timeout = timeout
        self._session = requests.Session()

    @contextmanager
    def open(self, model: Model, file: File, start: int) -> Iterator[Body]:
        """Open the file at byte `start`, or at its beginning if the server cannot do that.

        The request always goes to the resolve address, because the address behind it expires soon. Raises Trouble for a
        problem that may pass, and Failed for one that will not.
        """
        response = self._follow(model, file, start)
        try:
            yield Body(_start(response, file, start), response)
        finally:
            response.close()

    def _follow(self, model: Model, file: File, start: int) -> requests.Response:
        url = f"{self.address}/{model.repository}/resolve/{model.revision}/{quote(file.path)}"
        for _ in range(REDIRECTS + 1):
            response = self._get(url, start)
            if response.is_redirect:
                _compare_promise(response, file)
                url = urljoin(url, response.headers["Location"])
                response.close()
                continue
            problem = self._problem(response, model, file) or _not_the_file(response, file)
            if problem is not None:
                response.close()
                raise problem
            return response
        raise Failed(f"{self.address} redirects more than {REDIRECTS} times; is models.hub right?")

    def _get(self, url: str, start: int) -> requests.Response:
        # Compressed bytes would have other positions and another length.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        try:
            return self._session.get(
                url,
                headers=headers,
                auth=_Token(self._token if self._owns(url) else None),
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

    def _owns(self, url: str) -> bool:
        """True if an address is the hub's own, not one of the servers that it redirects to."""
        return urlsplit(url)[:2] == urlsplit(self.address)[:2]

    def _problem(self, response: requests.Response, model: Model, file: File) -> Exception | None:
        """The problem behind a status; None if bytes follow."""
        status = response.status_code
        answers = f"{urlsplit(response.url).netloc} answers {status} {response.reason or ''}".rstrip()
        # A signed address is below no repository, and a renamed repository is still the hub's.
        own = self._owns(response.url) and renamed(response.url, "") is not None
        if status in (200, 206):
            return None
        if own and (refusal := refused(response.headers, model.repository, model.revision, file.path)) is not None:
            return Failed(f"{answers}: {refusal}")
        if status in (401, 403) and own:
            return Failed(_gated(f"{self.address}/{model.repository}", answers, self._token is not None))
        # A signed address expires: the next attempt gets another one.
        if busy(status) or (status == 403 and not own):
            return Trouble(answers, rest(response.headers))
        if status == 416:
            return _beyond_the_end(response, file)
        return Failed(f"{answers} for {file.path} of {model.repository} at {model.revision}; check all three")


def busy(status: int) -> bool:
    """True if the same request may succeed later."""
    return status in _ENDS_LATER or status >= 500


def refused(headers: Mapping[str, str], repository: str, revision: str, path: str) -> str | None:
    """The problem by the hub's own error code; None without a code, and for a gated repository.

    The hub answers 401 for a repository that does not exist, and only X-Error-Code gives the difference. Source:
    hf_raise_for_status of huggingface_hub, which distinguishes the codes RepoNotFound, GatedRepo, RevisionNotFound and
    EntryNotFound, and these two texts of X-Error-Message.
    """
    message = headers.get("X-Error-Message", "")
    if message == "Invalid credentials in Authorization header":
        return "the hub does not know this token; write a valid one"
    if message == "Access to this resource is disabled.":
        return f"the hub has disabled {repository}; choose another repository"
    return {
        "RepoNotFound": f"the hub has no repository {repository}, or it is private; correct the name, or give a token "
        "that may read it",
        "RevisionNotFound": f"{repository} has no revision {revision}; pin another one",
        "EntryNotFound": f"{repository} has no {path} at {revision}; correct the name, or pin another revision",
    }.get(headers.get("X-Error-Code", ""))


def renamed(address: str, repository: str) -> str | None:
    """The repository in an address of the hub, if it is another one than `repository`."""
    found = _RESOLVED.search(urlsplit(address).path)
    return found[1] if found is not None and found[1] != repository else None


def rest(headers: Mapping[str, str]) -> float:
    """Seconds that a server wants to be left alone, by Retry-After or RateLimit; 0 without either.

    Source: the IETF draft "RateLimit header fields for HTTP", as the hub uses it: `"api";r=0;t=55` means that nothing
    remains, and that the limit is renewed in 55 seconds.
    """
    if "Retry-After" in headers:
        return _retry_after(headers["Retry-After"])
    return max((float(seconds) for seconds in _SPENT.findall(headers.get("RateLimit", ""))), default=0.0)


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
    """The first byte of an answer's range. Raises an error if the bytes are not the file's."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != file.size:
            raise _other_size(int(length), file)
        return 0
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != wanted or wanted == 0:
        raise Trouble(f"the server sends other bytes than those from {wanted} on", afresh=True)
    # A server that does not know the whole size writes an asterisk; the hash decides then.
    if found[3] != "*" and int(found[3]) != file.size:
        raise _other_size(int(found[3]), file)
    return wanted


def _not_the_file(response: requests.Response, file: File) -> Exception | None:
    """The problem of an answer with status 200 that is not the file: bytes that a proxy compressed, or a network's
    login page."""
    host = urlsplit(response.url).netloc
    packed = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("", "identity"):
        return Trouble(f"{host} sends the file compressed ({packed}), though Rig forbids that; is a proxy in between?")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml") and not file.path.endswith((".html", ".htm")):
        return Trouble(
            f"{host} answers with a web page instead of {file.path}; does the network want a login, or is a proxy in "
            "between?"
        )
    return None


def _compare_promise(response: requests.Response, file: File) -> None:
    """Compare a large file with the hub's advance headers: a wrong file is refused without fetching it."""
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
    """Seconds of a Retry-After header, which may be a date; 0 without one."""
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def _cause(error: Any) -> str:
    """The cause in the words of the innermost error."""
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
