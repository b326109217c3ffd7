"""The objects of the interface: files, batches and their parts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
TERMINAL: tuple[Status, ...] = ("failed", "completed", "expired", "cancelled")
Purpose = Literal["batch", "batch_output"]


class FileObject(BaseModel):
    """A stored file. Its status is `processed` at once: clients wait for that, and lines are checked by the batch."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Purpose
    status: Literal["uploaded", "processed", "error"] = "processed"
    status_details: str | None = None


class FileDeleted(BaseModel):
    """The answer to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class BatchError(BaseModel):
    """Why an input file cannot be used; `line` counts from 1."""

    code: str
    line: int | None = None
    message: str
    param: str | None = None


class Errors(BaseModel):
    """What is wrong with an input file."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(BaseModel):
    """Lines; only those whose result is stored count as completed or failed."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    """Part of the input tokens."""

    cached_tokens: int


class OutputTokensDetails(BaseModel):
    """Part of the output tokens."""

    reasoning_tokens: int


class Usage(BaseModel):
    """Tokens of all lines in the output file."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class Batch(BaseModel):
    """A batch; times are Unix seconds."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: Errors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: Usage
    metadata: dict[str, str] | None


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchList(BaseModel):
    """A page of batches."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool
