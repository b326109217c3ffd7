"""Times that the gateway allows an engine, from what the hardware can do."""

from __future__ import annotations

from rig.plan.figures import engine_plan
from rig.settings import Settings

SLACK = 4
"""The figures of a plan are limits that no machine beats; a real one is slower, and its requests share the engine."""
LEAST = 600
"""Seconds that the official client of OpenAI waits by itself."""
UNKNOWN = 3600
"""Seconds for a model of unknown architecture, about which nothing can be computed."""
MOST = 86_400


def longest_answer(settings: Settings, name: str) -> int:
    """Seconds that one answer of an engine may take: a prompt and an answer that both fill its context.

    It is also how long an engine may be silent, as an answer that is not streamed comes as a whole.
    """
    engine = settings.engines[name]
    models = {key: model.known for key, model in settings.models.catalogue.items()}
    figures = engine_plan(name, engine, models, settings.machine.hardware, engine.context)
    if figures.tokens_per_second is None or figures.first_token_seconds is None:
        return UNKNOWN
    seconds = SLACK * (figures.first_token_seconds + engine.context / figures.tokens_per_second)
    return min(MOST, max(LEAST, round(seconds)))
