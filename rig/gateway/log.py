"""The gateway's log: one line of JSON for each request, written by HAProxy, without any text of prompts or answers."""

from __future__ import annotations

TIME = '"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]"'
"""The moment of the line, at the end of the request."""

FIELDS = {
    "time": TIME,
    "id": "%[var(txn.log.id,null)]",
    "trace": "%[var(txn.log.trace,null)]",
    "client": "%[var(txn.log.client,null)]",
    "method": "%[var(txn.log.method,null)]",
    "path": "%[var(txn.log.path,null)]",
    "status": "%ST",
    "engine": "%[var(txn.log.engine,null)]",
    "variant": "%[var(txn.log.variant,null)]",
    "asked": "%[var(txn.log.asked,null)]",
    "served": "%[var(txn.log.served,null)]",
    # HAProxy writes the line as soon as it knows every field of its own: with these two only at the end of the answer.
    "bytes": "%B",
    "first_byte_ms": "%[var(txn.log.first_byte,null)]",
    "total_ms": "%Ta",
    "prompt_tokens": "%[var(txn.log.prompt_tokens,null)]",
    "completion_tokens": "%[var(txn.log.completion_tokens,null)]",
    "tokens": "%[var(txn.log.tokens,null)]",
    "limit": '"%[var(txn.limit,none)]"',
    "flag": "%[var(txn.log.flag,null)]",
    "termination": '"%ts"',
}
"""HAProxy's expression for each key; null where it is unknown. Most texts are quoted by the rules that set them."""

FORMAT = "{" + ",".join(f'"{key}":{value}' for key, value in FIELDS.items()) + "}"
UNPARSED = (
    "{"
    + ",".join(
        f'"{key}":{known}'
        for key, known in (dict.fromkeys(FIELDS, "null") | {"time": TIME, "limit": '"none"'}).items()
    )
    + "}"
)
"""The line of a connection that ended before its first request, such as a failed handshake."""
