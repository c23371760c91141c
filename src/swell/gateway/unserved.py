"""Requests that no replica will serve: refused at once, not held until their time is over.

The server says of which models that is so (`state.snapshot.Unserved`), and why.
"""

from swell.gateway.budget_shares import amount_of, duration, when
from swell.gateway.responses import Refusal
from swell.state.budgets import BudgetLimit
from swell.state.snapshot import ModelEntry
from swell.units import usd_text_at_least

STOPPING_RETRY_SECONDS = 5.0  # in which a server that is restarted usually serves again


def unserved(entry: ModelEntry, unix_ms: int) -> Refusal | None:
    """Why a request for the model that finds no replica will find none; None where it may wait for one.

    A budget refuses until its period ends by this worker's own clock, whatever it has been told of the next one.
    """
    found = entry.unserved
    if found is None:
        return None
    if found.limit is None:
        return stopping()
    limit, ends = found.limit, found.limit.end_unix_ms
    if ends is None or ends <= unix_ms:
        return None
    seconds = (ends - unix_ms) / 1000
    return Refusal(
        429,
        f"No replica of '{entry.name}' can be paid for: {_why(limit, found.need_usd_nanos)} "
        f"It begins anew in {duration(seconds)}.",
        code="infrastructure_budget_exhausted",
        retry_after_seconds=seconds,
    )


def stopping() -> Refusal:
    """503 for a request that no replica takes before the server ends."""
    return Refusal(
        503,
        "The server stops, and no replica serves this request before it does. Try again shortly.",
        code="server_stopping",
        retry_after_seconds=STOPPING_RETRY_SECONDS,
    )


def _why(limit: BudgetLimit, need_usd_nanos: int) -> str:
    whose = f"model '{limit.owner}'" if limit.owner else "the organisation"
    budget = f"the infrastructure budget of {amount_of(limit)} for {whose}{when(limit)}"
    takes = f"the {usd_text_at_least(need_usd_nanos)} that one takes to start, serve and drain"
    if need_usd_nanos > limit.cap_usd_nanos:
        return f"the whole of {budget} is less than {takes}."
    return f"what is left of {budget} is less than {takes}."
