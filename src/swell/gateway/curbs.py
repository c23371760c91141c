"""What a worker does for requests while a budget that they count against is nearly used up.

The server says which steps hold; a worker that is told late is late with them, and no safety depends on it: that is
what the escrow of budgets is for. A key of whose budgets none has a step has no `Curbs` at all.
"""

from collections.abc import Mapping, Sequence

from msgspec import Raw
from msgspec.json import encode
from msgspec.structs import replace

from swell.gateway.budget_shares import amount_of, duration, when, whose
from swell.gateway.request import Admitted, BadRequest, Members, admit
from swell.gateway.responses import Refusal
from swell.gateway.route import ModelRoute
from swell.gateway.shares import Share, Shares
from swell.policy.queueing import BATCH
from swell.state.curbs import Curb
from swell.state.snapshot import ModelEntry

SHED_BATCH, CHEAPER_VARIANT, THROTTLE = "shed_batch", "cheaper_variant", "throttle"


class Curbs:
    """The steps that hold for one key's requests."""

    __slots__ = ("_shedding", "_switching", "_throttles")

    def __init__(self, curbs: Sequence[Curb], shares: Shares) -> None:
        self._shedding = [curb for curb in curbs if SHED_BATCH in curb.steps]
        self._switching = [curb for curb in curbs if CHEAPER_VARIANT in curb.steps]
        self._throttles = [(curb, _throttle(curb, shares)) for curb in curbs if THROTTLE in curb.steps]

    def admit(
        self,
        path: str,
        members: Members,
        route: ModelRoute,
        priority: str,
        unix_ms: int,
        models: Mapping[str, ModelRoute],
    ) -> tuple[ModelRoute, Admitted]:
        """Admit to the model that was asked for, or to its cheaper variant. Raises Refusal and BadRequest.

        A request that the variant would refuse, or could not answer now, goes to the model that was asked for.
        """
        if priority == BATCH:
            for curb in self._shedding:
                if _counts(curb, route.name, unix_ms):
                    raise _shed(curb, unix_ms)
        variant = models.get(route.entry.cheaper_variant)
        if variant is not None and any(_counts(curb, route.name, unix_ms) for curb in self._switching):
            admitted = _admitted_to(variant, path, members)
            if admitted is not None:
                return variant, replace(admitted, served_model=variant.name)
        return route, admit(path, members, route.entry)

    def throttles(self, model: str, unix_ms: int) -> tuple[Share, ...]:
        """The rate limits that a request for `model` must find room in."""
        return tuple(share for curb, share in self._throttles if _counts(curb, model, unix_ms))


def _throttle(curb: Curb, shares: Shares) -> Share:
    share = shares.get(curb.throttle_limit, curb.requests_per_minute)
    share.budget = curb.limit  # of this period: a refusal names it
    return share


def _counts(curb: Curb, model: str, unix_ms: int) -> bool:
    """Whether a request counts against the curb's budget, in its period."""
    limit = curb.limit
    return limit.model in ("", model) and (bool(limit.window_ms) or limit.contains(unix_ms))


def _admitted_to(variant: ModelRoute, path: str, members: Members) -> Admitted | None:
    entry = variant.entry
    if path not in entry.endpoints or not (variant.replicas or (entry.hold_seconds and entry.unserved is None)):
        return None
    try:
        admitted = admit(path, {**members, "model": Raw(encode(entry.name))}, entry)
    except BadRequest:
        return None
    return admitted if _fits(admitted, entry) else None


def _fits(admitted: Admitted, entry: ModelEntry) -> bool:
    """Whether prompt and answer fit into the model's context, where it is known; by the estimate of the prompt."""
    answer = admitted.completion_tokens_bound // max(1, admitted.choices)
    return not entry.context_tokens or admitted.prompt_tokens_estimate + answer <= entry.context_tokens


def _shed(curb: Curb, unix_ms: int) -> Refusal:
    """429 for a batch request while there is little left."""
    limit, resets = curb.limit, curb.resets_unix_ms
    seconds = None if resets is None else max(1.0, (resets - unix_ms) / 1000)
    again = (
        ""
        if seconds is None
        else f" {'Some' if limit.window_ms else 'All'} of it is there again in {duration(seconds)}."
    )
    return Refusal(
        429,
        f"So much of the budget of {amount_of(limit)} for {whose(limit)}{when(limit)} is spent that requests of "
        f"priority batch are refused.{again}",
        code="budget_batch_shed",
        retry_after_seconds=seconds,
    )
