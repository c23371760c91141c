"""What the ledger says of the last minute, as use of rate limits."""

from swell.server.seeding import use_of
from swell.state.records import UsageRecord
from swell.state.usage import UsageStatus


def record(status: UsageStatus, prompt: int, completion: int) -> UsageRecord:
    return UsageRecord(
        request_id="r", key_id="k", tenant="t", model="m", endpoint="/v1/completions", status=status,
        prompt_tokens=prompt, completion_tokens=completion, reserved_at_unix_ms=0, settled_at_unix_ms=None,
        replica_id="", http_status=200, duration_ms=1, first_token_ms=1,
    )  # fmt: skip


def test_requests_and_tokens_count_for_key_and_tenant_and_void_ones_do_not() -> None:
    records = [record(UsageStatus.SETTLED, 3, 4), record(UsageStatus.RESERVED, 10, 0), record(UsageStatus.VOID, 9, 9)]
    assert use_of(records) == {
        "key:k:requests_per_minute": 2,
        "key:k:tokens_per_minute": 17,
        "tenant:t:requests_per_minute": 2,
        "tenant:t:tokens_per_minute": 17,
    }
    assert use_of([]) == {}
