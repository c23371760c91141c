"""The weekly review of what is paid for: when it is made, and how much of it is told."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from swell.spec.aliases import AliasTable
from swell.spec.base import Count, LocalPath, SpecModel
from swell.spec.budgets import ZoneName

DEFAULT_TOP = 5
MAX_TOP = 10  # changes: what fits into one message of a chat
MAX_DAYS = 31


class Weekday(StrEnum):
    """A day of the week; its place in this list is its number, from 0."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"

    @property
    def number(self) -> int:
        """As `date.weekday()` counts: Monday is 0."""
        return list(Weekday).index(self)


_SHORT = {day.value[:3]: day.value for day in Weekday}


def _day(value: object) -> object:
    if not isinstance(value, str):
        return value
    name = value.strip().lower()
    return _SHORT.get(name, name)


class ReviewSpec(SpecModel):
    """Once a week, what would cost less goes to the alert sinks."""

    aliases: ClassVar[AliasTable] = {"timezone": ("time_zone",)}

    day: Annotated[Weekday, BeforeValidator(_day)] = Field(default=Weekday.MONDAY, description="The day of the week.")
    hour: Annotated[Count, Field(ge=0, le=23)] = Field(default=8, description="The hour of that day, from 0 to 23.")
    time_zone: ZoneName | None = Field(
        default=None,
        description="Whose day and hour, such as Europe/Berlin. Without: that of the organisation's first budget that "
        "follows a calendar, else UTC.",
    )
    top: Annotated[Count, Field(ge=1, le=MAX_TOP)] = Field(default=DEFAULT_TOP, description="Changes at most.")
    days: Annotated[Count, Field(ge=1, le=MAX_DAYS)] = Field(
        default=7, description="So many of the last days are replayed."
    )
    profiles: LocalPath | None = Field(
        default=None, description="File with your own latency profiles, besides those that ship."
    )
    prices: LocalPath | None = Field(
        default=None, description="File with your own prices of machines, in place of those that ship."
    )
