"""Rates that follow from what replicas cost, as they were posted."""

from typing import Literal

import msgspec

RateBasis = Literal["capacity", "cost", "last"]
"""What a rate comes from: a replica's capacity, what the replicas cost before, or the rate that was."""


class PostedRate(msgspec.Struct, frozen=True, kw_only=True):
    """What tokens of a model are charged at from `start_unix_ms` on and before `end_unix_ms`, and why.

    Rates are nano-dollars per million tokens, amounts nano-dollars, times Unix milliseconds. Costs, charges and tokens
    are those between `since_unix_ms` and `until_unix_ms`. `missed_usd_nanos` is what charges have missed of what they
    should have come to since rates are posted (negative: were beyond it), and `carried_usd_nanos` what of it is in this
    rate. The next rate goes by what comes after `counted_until_unix_ms`.
    """

    model: str
    start_unix_ms: int
    end_unix_ms: int
    label: str  # of the period, for people
    prompt_rate: int
    completion_rate: int
    basis: RateBasis
    reason: str  # a sentence
    since_unix_ms: int
    until_unix_ms: int
    starting_usd_nanos: int = 0
    used_usd_nanos: int = 0
    idle_usd_nanos: int = 0
    charge_usd_nanos: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    markup_ppm: int = 0
    carried_usd_nanos: int = 0
    missed_usd_nanos: int = 0
    counted_until_unix_ms: int
    posted_at_unix_ms: int

    @property
    def cost_usd_nanos(self) -> int:
        """What the replicas cost in that time."""
        return self.starting_usd_nanos + self.used_usd_nanos + self.idle_usd_nanos

    @property
    def rates(self) -> tuple[int, int]:
        """Of prompt and completion tokens."""
        return self.prompt_rate, self.completion_rate
