"""What a model's tokens are charged at, as it was when a request came."""

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
    def of(cls, model: ModelEntry) -> "Rates":
        """The model's."""
        return cls(model.prompt_rate, model.completion_rate)

    def bound(self, admitted: Admitted) -> int:
        """The most that a request can be charged, in nano-dollars."""
        if not (self.prompt or self.completion):
            return 0
        return charge_usd_nanos(admitted.prompt_tokens_bound, admitted.completion_tokens_bound, *self)


def possible(tokens: int) -> int:
    """What an engine reports, inside what can be."""
    return min(max(tokens, 0), MAX_TOKENS)
