"""The gateway's own answers: each is an error in the shape of OpenAI's, as HAProxy's configuration has it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["invalid_request_error", "rate_limit_error", "server_error"]


@dataclass(frozen=True)
class Refusal:
    """One error. `message` may hold HAProxy's %[...]; everything else is literal."""

    status: int
    message: str
    code: str
    param: str | None = None
    kind: Kind = "invalid_request_error"
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> str:
        """The JSON of the answer, as a format of HAProxy's in single quotes."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=True)

    @property
    def answer(self) -> str:
        """The arguments of `http-request return`, and of `http-error` but for the first word."""
        headers = "".join(f" hdr {name} {value}" for name, value in self.headers.items())
        return f"status {self.status} content-type application/json lf-string '{self.body}'{headers}"

    @property
    def rule(self) -> str:
        """The rule that answers so."""
        return f"http-request return {self.answer}"


BEARER = {"WWW-Authenticate": "Bearer"}
KEY = "keys are made on the machine with: sudo rig-keys add NAME"

REFUSALS = {
    "no_door": Refusal(
        404, "there is no such method and path here; GET /v1/models lists the models to ask", "not_found"
    ),
    "two_keys": Refusal(400, "the request has two Authorization headers; send one", "two_keys"),
    "no_key": Refusal(
        401, f"the request has no key; send it as Authorization: Bearer KEY. {KEY}", "invalid_api_key", headers=BEARER
    ),
    "wrong_key": Refusal(401, f"this key is not known here; {KEY}", "invalid_api_key", headers=BEARER),
    "ended_key": Refusal(
        401,
        "the time of this key, %[var(txn.client)], is over; ask the owner of the machine for another one",
        "invalid_api_key",
        headers=BEARER,
    ),
    "many_wrong_keys": Refusal(
        429,
        "this address has sent many wrong keys; wait a minute, and send the right one",
        "too_many_wrong_keys",
        kind="rate_limit_error",
        headers={"Retry-After": "60"},
    ),
    "concurrency": Refusal(
        429,
        "this key has %[var(txn.concurrency)] requests in progress, which is its limit; wait for one of them to end",
        "too_many_at_once",
        kind="rate_limit_error",
        headers={"Retry-After": "1"},
    ),
    "rate": Refusal(
        429,
        "this key has used up its requests a minute; the next one is free in %[var(txn.retry)] s",
        "rate_limit_exceeded",
        kind="rate_limit_error",
        headers={"Retry-After": "%[var(txn.retry)]"},
    ),
    "no_batches": Refusal(403, "this key may not use files and batches", "not_allowed"),
    "no_length": Refusal(411, "the request has no Content-Length, which is needed here; send one", "length_required"),
    "long": Refusal(413, "the request is longer than this machine takes", "request_too_large"),
    "no_model": Refusal(400, "the request names no model; GET /v1/models lists them", "model_missing", param="model"),
    "unseen_model": Refusal(
        400,
        "the model comes too late in this long request to be read; write model before messages, or send it to "
        "/engines/NAME/v1 with the name of an engine",
        "model_not_seen",
        param="model",
    ),
    "engine": Refusal(403, "this key may not use the engine %[var(txn.engine)]", "not_allowed"),
    "model": Refusal(
        404,
        "this model does not exist, or this key may not use it; GET /v1/models lists those that it may",
        "model_not_found",
        param="model",
    ),
    "flagged": Refusal(400, "the request holds what is not allowed here: %[var(txn.flag)]", "flagged"),
}
"""Answers of the gateway's rules, by the name that its template has for them."""

ERRORS = (
    Refusal(400, "the request is malformed", "malformed"),
    Refusal(408, "the request took too long to arrive; send it again", "timeout"),
    Refusal(500, "the gateway failed at this request", "gateway_error", kind="server_error"),
    Refusal(502, "the engine broke its answer off; ask again", "engine_failed", kind="server_error"),
    Refusal(
        503,
        "the engine does not run now, or still loads its model; ask again in a while",
        "engine_unavailable",
        kind="server_error",
        headers={"Retry-After": "10"},
    ),
    Refusal(504, "the engine took longer than its longest answer should take", "engine_timeout", kind="server_error"),
)
"""Answers where HAProxy itself gives up on a request that it has understood."""
