"""The grouped reads of the store in memory."""

from collections.abc import Iterable, Sequence
from typing import Any

from swell.ports.store import require_few_groups
from swell.state.records import UsageChange
from swell.state.usage import UsageStatus
from swell.state.usage_groups import BUCKET_MS, Bucket, GroupColumn, UsageGroup


def arrived(row: UsageChange) -> int | None:
    """When the request arrived, as far as is known."""
    return row.settled_at_unix_ms if row.reserved_at_unix_ms is None else row.reserved_at_unix_ms


def grouped(rows: Iterable[UsageChange], by: Sequence[GroupColumn], bucket: Bucket | None) -> list[UsageGroup]:
    """`UsageStore.group_usage` over rows that match."""
    found: dict[tuple[Any, ...], list[UsageChange]] = {}
    for row in rows:
        at = arrived(row)
        if at is not None:
            start = () if bucket is None else (at - at % BUCKET_MS[bucket],)
            found.setdefault((*(getattr(row, name) for name in by), *start), []).append(row)
    require_few_groups(len(found))
    names = (*by, *(() if bucket is None else ("start_unix_ms",)))
    return [_summed(dict(zip(names, key, strict=True)), found[key]) for key in sorted(found)]


def _summed(key: dict[str, Any], rows: Sequence[UsageChange]) -> UsageGroup:
    if "status" in key:
        key["status"] = UsageStatus(key["status"])
    return UsageGroup(
        **key,
        requests=sum(row.status != "void" for row in rows),
        void_requests=sum(row.status == "void" for row in rows),
        prompt_tokens=sum(row.prompt_tokens for row in rows),
        completion_tokens=sum(row.completion_tokens for row in rows),
        charge_usd_nanos=sum(row.charge_usd_nanos for row in rows),
        cached_tokens=sum(row.cached_tokens for row in rows),
    )
