"""Upper limits of speed: memory bandwidth limits decoding, compute limits the first token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """A processor's peak: ``bandwidth`` of its memory in bytes/s, ``compute`` in operations/s."""

    bandwidth: float
    compute: float


def decode_ceiling(*reads: tuple[int, float]) -> float:
    """Upper limit of one stream in tokens/s; each part is (bytes read for a token, bytes/s of their memory).

    Source: each token needs every weight once, and the parts of a hybrid placement follow each other, so their times
    add. Llama 3.1 8B FP8 on the card: 896 GB/s over 8.03 GB = 111 tokens/s. Llama 3.3 70B Q4_K_M with 25 layers on the
    card and 28.9 GB read from RAM: 3.37 tokens/s at 102.4 GB/s, 1.9 at 57.6. Reading the KV cache is left out: this is
    the limit for an empty context.
    """
    return 1 / sum(count / bandwidth for count, bandwidth in reads)


def prefill_operations(parameters: int, tokens: int) -> int:
    """Floating-point operations to read a prompt: one multiplication and one addition per parameter and token.

    Source: the matrix products of a transformer. Attention between the tokens comes on top and is left out; it is small
    while the prompt is shorter than the model is wide.
    """
    return 2 * parameters * tokens


def first_token_seconds(*parts: tuple[float, int, Device]) -> float:
    """Lower limit of the time to the first token in seconds; each part is (operations, bytes read, device).

    Every part of the model reads its weights at least once and computes at its peak at most; the longer time counts.
    The parts follow each other, as in `decode_ceiling`.
    """
    return sum(max(work / device.compute, read / device.bandwidth) for work, read, device in parts)
