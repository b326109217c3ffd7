"""Errors that a client sees, all in the shape of OpenAI's interface."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A request that cannot be met; the message gives the cause and the remedy."""

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer."""
        return shape(self.message, self.status, self.param, self.code)


def shape(message: str, status: int, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The JSON body of an error. The official client reads `code`, `param` and `type` from it."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "server_error" if status >= 500 else "invalid_request_error"
    )
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def not_found(kind: str, identity: str) -> Refusal:
    """The same for an object of another client as for one that never existed."""
    return Refusal(f"No {kind} has the id '{identity}'.", 404, param="id", code="not_found")


def missing(name: str) -> Refusal:
    """A parameter that must be in the request."""
    return Refusal(f"Missing required parameter: '{name}'.", 400, param=name, code="missing_required_parameter")


def invalid(name: str, message: str) -> Refusal:
    """A parameter with an unusable value."""
    return Refusal(message, 400, param=name, code="invalid_value")
