"""Spool records of the same request become one change of the ledger."""

from collections.abc import Iterable, Iterator

from swell.state.records import UsageChange
from swell.state.usage import Reserved, Settled, SpoolRecord, UsageStatus

MAX_TOKENS = 2**40  # no request has more; an engine that reports more must not be able to overflow the ledger's sums
MAX_CHARGE_USD_NANOS = 2**45  # of one request, $35,184: for the same reason

_OUTCOMES = {
    UsageStatus.SETTLED.value: UsageStatus.SETTLED.value,
    UsageStatus.ESTIMATED.value: UsageStatus.ESTIMATED.value,
    UsageStatus.VOID.value: UsageStatus.VOID.value,
}


def collapse(spool: str, records: Iterable[SpoolRecord]) -> Iterator[UsageChange]:
    """One change per request, in order of first appearance; of repeated records the first counts.

    Made one by one as they are asked for, so that whoever enters them can give way in between.
    """
    reserved: dict[str, Reserved] = {}
    settled: dict[str, Settled] = {}
    seen: dict[str, bool] = {}  # request id: whether it was sent
    for record in records:
        request_id = record.request_id
        if type(record) is Reserved:
            reserved.setdefault(request_id, record)
            seen[request_id] = record.sent or seen.get(request_id, False)
        elif type(record) is Settled:
            settled.setdefault(request_id, record)
            seen.setdefault(request_id, False)
        else:
            seen[request_id] = True
    for request_id, was_sent in seen.items():
        yield _change(spool, request_id, was_sent, reserved.get(request_id), settled.get(request_id))


def _change(
    spool: str, request_id: str, was_sent: bool, bound: Reserved | None, outcome: Settled | None
) -> UsageChange:
    if bound is None:
        identity: tuple[int | None, str, str, str, str, int, int] = (None, "", "", "", "", 0, 0)
        prompt_tokens = completion_tokens = charge = 0
    else:
        identity = (
            bound.at_unix_ms, bound.key_id, bound.tenant, bound.model, bound.endpoint, bound.prompt_rate,
            bound.completion_rate,
        )  # fmt: skip
        prompt_tokens, completion_tokens = bound.prompt_tokens, bound.completion_tokens
        charge = bound.charge_usd_nanos
    cached_tokens = 0
    if outcome is None:
        ending: tuple[str, int, int, int] = ("", 0, -1, -1)
        settled_at, status = None, UsageStatus.RESERVED.value
    else:
        ending = (outcome.replica_id, outcome.http_status, outcome.duration_ms, outcome.first_token_ms)
        settled_at, status = outcome.at_unix_ms, _OUTCOMES.get(outcome.status, "estimated")
        prompt_tokens, completion_tokens = outcome.prompt_tokens, outcome.completion_tokens
        cached_tokens, charge = outcome.cached_tokens, outcome.charge_usd_nanos
        if status == "void":
            prompt_tokens = completion_tokens = charge = 0
    if not (0 <= prompt_tokens <= MAX_TOKENS and 0 <= completion_tokens <= MAX_TOKENS):
        prompt_tokens, completion_tokens = _clamp(prompt_tokens), _clamp(completion_tokens)
    if not 0 <= cached_tokens <= prompt_tokens:
        cached_tokens = min(max(cached_tokens, 0), prompt_tokens)
    if not 0 <= charge <= MAX_CHARGE_USD_NANOS:
        charge = min(max(charge, 0), MAX_CHARGE_USD_NANOS)
    tokens = prompt_tokens, completion_tokens, cached_tokens
    # Past the named tuple's own constructor, which is written in Python: this runs once for every request.
    return tuple.__new__(
        UsageChange,
        (request_id, spool, *identity, was_sent, settled_at, status, *tokens, charge, *ending),
    )


def _clamp(tokens: int) -> int:
    return min(max(tokens, 0), MAX_TOKENS)
