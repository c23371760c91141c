"""The part of the store's contract that is about posted rates."""

# ruff: noqa: S101  asserting is what a suite is for

from msgspec.structs import replace

from swell.ports.store import Store
from swell.state.posted_rates import PostedRate
from swell.state.records import AuditEntry


def posted_rate(model: str = "chat", start_unix_ms: int = 1000, **changes: object) -> PostedRate:
    """A rate with every field set."""
    fields: dict[str, object] = {
        "model": model,
        "start_unix_ms": start_unix_ms,
        "end_unix_ms": start_unix_ms + 1000,
        "label": "2026-11",
        "prompt_rate": 150_000_000,
        "completion_rate": 2**43,
        "basis": "cost",
        "reason": "all that the replicas cost, $1.00, over the tokens",
        "since_unix_ms": 1,
        "until_unix_ms": 900,
        "starting_usd_nanos": 2**60,
        "used_usd_nanos": 3,
        "idle_usd_nanos": 4,
        "charge_usd_nanos": 5,
        "requests": 6,
        "prompt_tokens": 7,
        "completion_tokens": 8,
        "markup_ppm": 100_000,
        "carried_usd_nanos": -9,
        "missed_usd_nanos": -(2**60),
        "counted_until_unix_ms": 900,
        "posted_at_unix_ms": 950,
    }
    return PostedRate(**fields | changes)  # type: ignore[arg-type]  # the suite's own shorthand


def _audit(subject: str) -> AuditEntry:
    return AuditEntry(at_unix=1.0, principal="server", action="prices.post", subject=subject, detail={"prompt_rate": 1})


class RateSuite:
    """The contract of `swell.ports.store.RateStore`."""

    def test_a_rate_is_posted_once_and_audited_once(self, store: Store) -> None:
        first = posted_rate()
        assert store.post_rate(first, _audit("first")) == first
        assert store.post_rate(replace(first, prompt_rate=1, end_unix_ms=5), _audit("second")) == first
        assert store.list_rates(None, 10) == [first]
        assert [entry.subject for entry in store.list_audit(10)] == ["first"]

    def test_rates_are_listed_by_when_they_begin(self, store: Store) -> None:
        rates = [posted_rate("chat", 1000), posted_rate("embed", 1000), posted_rate("chat", 3000)]
        for rate in (rates[2], rates[0], rates[1]):
            store.post_rate(rate, _audit(rate.model))
        assert store.list_rates(None, 10) == [rates[2], rates[1], rates[0]]
        assert store.list_rates("chat", 10) == [rates[2], rates[0]]
        assert store.list_rates("chat", 1) == [rates[2]]
        assert store.list_rates("none", 10) == []
