"""Settings of the concern `backup`: the copies on another disk, their schedule, and how many are kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from rig.settings.types import AbsolutePath, Section, Shape

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")

Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
TimeOfDay = Annotated[
    str, Shape(r"([01][0-9]|2[0-3]):[0-5][0-9]", "a time of day", 'hours and minutes in quotes, such as "03:00"')
]
Count = Annotated[int, Field(ge=0, le=1000)]


def _some(days: tuple[Day, ...]) -> tuple[Day, ...]:
    """Refuse a schedule without days."""
    if not days:
        raise ValueError("names no day; write at least one, or backup.enabled: false")
    return days


class Schedule(Section):
    """The schedule of backups."""

    days: Annotated[tuple[Day, ...], AfterValidator(_some)] = Field(
        description="Days of the week, by their names, such as [sunday]."
    )
    time: TimeOfDay = Field(description="Time of day on these days, in the machine's time zone, in quotes.")

    @property
    def weekdays(self) -> tuple[int, ...]:
        """The days as numbers; Monday is 0."""
        return tuple(number for number, day in enumerate(DAYS) if day in self.days)

    @property
    def hour_and_minute(self) -> tuple[int, int]:
        """The time as numbers."""
        hour, minute = self.time.split(":")
        return int(hour), int(minute)


class Keep(Section):
    """How many versions of the encrypted part are kept."""

    daily: int = Field(ge=1, le=1000, description="Days of which the newest snapshot is kept, a number.")
    weekly: Count = Field(description="Weeks of which the newest snapshot is kept, a number.")
    monthly: Count = Field(description="Months of which the newest snapshot is kept, a number.")
    yearly: Count = Field(description="Years of which the newest snapshot is kept, a number.")


class Backup(Section):
    """The copies in the folder of storage.backup."""

    enabled: bool = Field(description="Whether backups are made, true or false.")
    schedule: Schedule = Field(description="When a backup is made.")
    models: bool = Field(description="Whether the model files are copied too, true or false.")
    paths: tuple[AbsolutePath, ...] = Field(
        description="Further files and folders that are encrypted, by absolute path; one that is missing is left out."
    )
    keep: Keep = Field(description="How much of the past is kept.")
    check_parts: int = Field(
        ge=1, le=256, description="Each backup reads one of so many parts of everything again, a number."
    )
