"""What a model's tokens are charged at, as it was when a request came."""

from collections.abc import Callable
from typing import NamedTuple

from swell.gateway.request import Admitted
from swell.state.snapshot import ModelEntry
from swell.units import charge_usd_nanos

MAX_TOKENS = 2**40  # no request has more


class Rates(NamedTuple):
    """Nano-dollars per million tokens."""

    prompt: int
    completion: int

    @classmethod
    def of(cls, model: ModelEntry, clock: Callable[[], int]) -> tuple[int, "Rates"]:
        """The moment of admission and the model's rates in it.

        `clock` gives Unix milliseconds. It is asked only where the rates will change; else the moment is 0, for the
        time does not decide anything yet.
        """
        after = model.next_rates
        if after is None:
            return 0, cls(model.prompt_rate, model.completion_rate)
        now = clock()
        if now < after.from_unix_ms:
            return now, cls(model.prompt_rate, model.completion_rate)
        return now, cls(after.prompt_rate, after.completion_rate)

    def bound(self, admitted: Admitted) -> int:
        """The most that a request can be charged, in nano-dollars."""
        if not (self.prompt or self.completion):
            return 0
        return charge_usd_nanos(admitted.prompt_tokens_bound, admitted.completion_tokens_bound, *self)


def possible(tokens: int) -> int:
    """What an engine reports, inside what can be."""
    return min(max(tokens, 0), MAX_TOKENS)
