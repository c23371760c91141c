"""Sums over the ledger by any of its groups, as the store returns them and as reports add them up further."""

from typing import Literal, get_args

import msgspec

from swell.state.usage import UsageStatus

GroupColumn = Literal["key_id", "tenant", "model", "endpoint", "status", "prompt_rate", "completion_rate"]
GROUP_COLUMNS: tuple[GroupColumn, ...] = get_args(GroupColumn)
Bucket = Literal["hour", "day"]
BUCKET_MS: dict[Bucket, int] = {"hour": 3_600_000, "day": 86_400_000}  # of UTC, counted from 1970


class UsageGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the requests of one group amount to. What was not grouped by is None.

    Requests that never reached a replica (void) are counted apart: they have neither tokens nor a charge. Bounds count
    where the outcome is unknown. Cached tokens are part of the prompt's, as far as engines said so. Rates are
    nano-dollars per million tokens; `start_unix_ms` is where the hour or the day of UTC begins in which the requests
    arrived.
    """

    key_id: str | None = None
    tenant: str | None = None
    model: str | None = None
    endpoint: str | None = None
    status: UsageStatus | None = None
    prompt_rate: int | None = None
    completion_rate: int | None = None
    start_unix_ms: int | None = None
    requests: int
    void_requests: int
    prompt_tokens: int
    completion_tokens: int
    charge_usd_nanos: int
    cached_tokens: int = 0
