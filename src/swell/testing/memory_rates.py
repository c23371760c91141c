"""The posted rates of the store in memory."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from swell.ports.store import MAX_LISTED
from swell.state.posted_rates import PostedRate
from swell.state.records import AuditEntry


class MemoryRates:
    """`swell.ports.store.RateStore` in a dictionary. `guarded` wraps each call; `note` takes what is audited."""

    def __init__(
        self, guarded: Callable[[], AbstractContextManager[None]], note: Callable[[AuditEntry], object]
    ) -> None:
        self._guarded = guarded
        self._note = note
        self._rates: dict[tuple[int, str], PostedRate] = {}

    def post_rate(self, rate: PostedRate, audit: AuditEntry) -> PostedRate:
        with self._guarded():
            place = rate.start_unix_ms, rate.model
            if place not in self._rates:
                self._rates[place] = rate
                self._note(audit)
            return self._rates[place]

    def list_rates(self, model: str | None, limit: int) -> list[PostedRate]:
        with self._guarded():
            found = [self._rates[place] for place in sorted(self._rates, reverse=True)]
            return [rate for rate in found if model in (None, rate.model)][: min(limit, MAX_LISTED)]
