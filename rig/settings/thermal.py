"""Settings of the concern `monitoring`, its part `thermal`: limits of the card's temperature, and the actions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from rig.settings.types import Name, Section

Degrees = Annotated[int, Field(ge=0, le=120)]


class Warm(Section):
    """Conditions of a warning."""

    margin: Degrees = Field(description="Degrees Celsius below the card's own limit, where it reports that.")
    temperature: Degrees = Field(description="Degrees Celsius, where it does not.")
    after: int = Field(ge=0, le=86400, description="Seconds that it must be so warm.")


class Hot(Section):
    """Conditions of an immediate critical alert."""

    margin: Degrees = Field(description="Degrees Celsius below the card's own limit, where it reports that.")
    temperature: Degrees = Field(description="Degrees Celsius, where it does not.")


class OnCritical(Section):
    """Actions at a critical temperature."""

    power_limit: Annotated[int, Field(ge=1, le=2000)] | None = Field(
        description="Watts to which the card's power limit is lowered; null: it stays."
    )
    stop_engine: Name | None = Field(description="Name of an engine that is stopped; null: none.")
    restore: bool = Field(description="Whether both are taken back when it has cooled down, true or false.")


class Thermal(Section):
    """The watch over the graphics card's temperature."""

    enabled: bool = Field(description="Whether the card is watched, true or false.")
    interval: int = Field(ge=1, le=3600, description="Seconds between two readings.")
    timeout: int = Field(ge=1, le=120, description="Seconds that nvidia-smi may take to answer.")
    warning: Warm = Field(description="When a warning is due.")
    critical: Hot = Field(description="When it is critical.")
    band: int = Field(ge=1, le=30, description="Degrees Celsius that it must be cooler for a lower level.")
    settle: int = Field(ge=0, le=86400, description="Seconds that it must be so cool for a lower level.")
    on_critical: OnCritical = Field(description="What is done when it is critical.")
    notify: bool = Field(description="Whether people at the machine's screen are notified, true or false.")


def misordered(thermal: Thermal) -> Iterator[tuple[tuple[str, ...], str]]:
    """Thresholds that would be critical before they warn: key below `thermal`, and sentence."""
    warning, critical = thermal.warning, thermal.critical
    if critical.margin >= warning.margin:
        yield (
            ("critical", "margin"),
            f"{critical.margin} is reached before the {warning.margin} of warning.margin; write a smaller one",
        )
    if critical.temperature <= warning.temperature:
        yield (
            ("critical", "temperature"),
            f"{critical.temperature} is reached before the {warning.temperature} of warning.temperature; "
            "write a larger one",
        )
    if thermal.timeout >= thermal.interval:
        yield ("timeout",), f"{thermal.timeout} is not shorter than the {thermal.interval} of interval; write less"
