"""Ledgers in memory for reports: requests with their times, prices and charges."""

from datetime import datetime

from swell.state.records import SpoolPosition, UsageChange
from swell.testing.memory_store import MemoryStore
from swell.testing.store_suite import usage_change
from swell.units import charge_usd_nanos


def unix_ms(text: str) -> int:
    """Of a time with its offset, such as 2026-11-01T00:00:00+01:00."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def request(request_id: str, at: str | int, **fields: object) -> UsageChange:
    """A settled request of 1,000 prompt and 200 completion tokens, charged at its rates."""
    at_ms = unix_ms(at) if isinstance(at, str) else at
    given: dict[str, object] = {
        "reserved_at_unix_ms": at_ms,
        "settled_at_unix_ms": at_ms + 900,
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "prompt_rate": 150_000_000,
        "completion_rate": 600_000_000,
        **fields,
    }
    names = ("prompt_tokens", "completion_tokens", "prompt_rate", "completion_rate")
    given.setdefault("charge_usd_nanos", charge_usd_nanos(*(int(str(given[name])) for name in names)))
    return usage_change(request_id, "pair", **given)


def void(request_id: str, at: str) -> UsageChange:
    """A request that never reached a replica."""
    return request(request_id, at, status="void", prompt_tokens=0, completion_tokens=0, cached_tokens=0)


def ledger(*changes: UsageChange) -> MemoryStore:
    """A store with these requests."""
    store = MemoryStore()
    store.apply_usage(changes, SpoolPosition("spool1", 1, 1))
    return store
