"""What the last minute used, read from the ledger: for workers that died before they could tell a restarted server.

The ledger does not say which worker served a request, so all of the last minute is booked. Where other workers live
and report their part themselves, that part counts twice for a minute: too strict, never too lenient.
"""

from collections.abc import Collection, Iterable

from swell.metering.leases import WINDOW_SECONDS
from swell.ports.store import MAX_LISTED, Store
from swell.state.records import UsageFilter, UsageRecord
from swell.state.usage import UsageStatus


def recent_use(store: Store, limits: Collection[str], now_unix: float) -> dict[str, int]:
    """Use by rate limit, of those in `limits`, over the last window (the newest MAX_LISTED requests of it)."""
    if not limits:
        return {}
    since = int((now_unix - WINDOW_SECONDS) * 1000)
    used = use_of(store.list_usage(UsageFilter(since_unix_ms=since), MAX_LISTED))
    return {limit: amount for limit, amount in used.items() if limit in limits}


def use_of(records: Iterable[UsageRecord]) -> dict[str, int]:
    """The records as use of the rate limits of their keys and tenants. Void requests used nothing."""
    used: dict[str, int] = {}
    for record in records:
        if record.status is UsageStatus.VOID:
            continue
        tokens = record.prompt_tokens + record.completion_tokens
        for scope in (f"key:{record.key_id}", f"tenant:{record.tenant}"):
            for measure, amount in (("requests_per_minute", 1), ("tokens_per_minute", tokens)):
                name = f"{scope}:{measure}"
                used[name] = used.get(name, 0) + amount
    return used
