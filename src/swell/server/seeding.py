"""What the last minute used, read from the ledger: for workers that died before they could tell a restarted server.

The ledger does not say which limits were asked about, so all of the last minute is booked, and as if it had been used
just now: too strict for a minute, never too lenient. Workers that live state their part themselves.
"""

from collections.abc import Collection, Iterable

from swell.metering.leases import WINDOW_SECONDS
from swell.ports.store import Store
from swell.state.records import SpoolUse


def recent_use(
    store: Store, limits: Collection[str], now_unix: float, *, worker: str = "", living: Collection[str] = ()
) -> dict[str, int]:
    """Use by rate limit, of those in `limits`, over the last window: by one worker, or by all that do not live."""
    if not limits:
        return {}
    since = int((now_unix - WINDOW_SECONDS) * 1000)
    used = use_of(store.recent_use(since, worker or None, without=living))
    return {limit: amount for limit, amount in used.items() if limit in limits}


def use_of(uses: Iterable[SpoolUse]) -> dict[str, int]:
    """Sums by key and tenant as use of the rate limits of those keys and tenants."""
    used: dict[str, int] = {}
    for use in uses:
        for scope in (f"key:{use.key_id}", f"tenant:{use.tenant}"):
            for measure, amount in (("requests_per_minute", use.requests), ("tokens_per_minute", use.tokens)):
                name = f"{scope}:{measure}"
                used[name] = used.get(name, 0) + amount
    return used
