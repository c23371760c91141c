"""What a worker does while a budget is nearly used up: batch is refused, variants answer, rates are low."""

import json
from typing import Any

import pytest

from swell.gateway.admit import Claim, CurbedClaim
from swell.gateway.curbs import Curbs
from swell.gateway.directory import Directory
from swell.gateway.request import BadRequest, Members, read_members
from swell.gateway.responses import Refusal
from swell.gateway.route import ModelRoute, Replica
from swell.gateway.shares import Shares, limit_refusal
from swell.state.budgets import BudgetLimit, Scope
from swell.state.curbs import Curb
from swell.state.snapshot import Delta, KeyEntry, ModelEntry, ReplicaEntry, Snapshot, TenantEntry

CHAT = "/v1/chat/completions"
NOW_MS = 1_000_000
LIMIT = BudgetLimit("budget:x:0", "budget:x", Scope.TENANT, "search", 5 * 10**9, "2026-11", 0, 2_000_000)
ALL = ("shed_batch", "cheaper_variant", "throttle")


def clock() -> float:
    return 1000.0


def entry(name: str, **fields: Any) -> ModelEntry:
    return ModelEntry(**{"name": name, "upstream_model": name, "endpoints": (CHAT,), "hold_seconds": 9.0} | fields)


def routes(*entries: ModelEntry) -> dict[str, ModelRoute]:
    made = {each.name: ModelRoute(each.name, clock) for each in entries}
    for each in entries:
        made[each.name].update(each, 1, lambda replica: Replica(replica, clock, None))
    return made


def chat(**fields: Any) -> Members:
    body = {"model": "big", "messages": [{"role": "user", "content": "hello"}], **fields}
    return read_members(json.dumps(body).encode(), depth=20)


def curbs(*steps: str, limit: BudgetLimit = LIMIT, **fields: Any) -> Curbs:
    return Curbs([Curb(limit, steps, resets_unix_ms=limit.end_unix_ms, **fields)], Shares(clock))


def served(found: Curbs, models: dict[str, ModelRoute], unix_ms: int = NOW_MS, **fields: Any) -> tuple[str, str]:
    """The model that answers, and what the answer will say of it."""
    route, admitted = found.admit(CHAT, chat(**fields), models["big"], "standard", unix_ms, models)
    assert json.loads(admitted.body)["model"] == route.entry.upstream_model
    return route.name, admitted.served_model


BIG, SMALL = entry("big", cheaper_variant="small"), entry("small", upstream_model="tiny")


def test_a_request_goes_to_the_cheaper_variant_and_says_so() -> None:
    assert served(curbs("cheaper_variant"), routes(BIG, SMALL)) == ("small", "small")
    assert served(curbs("shed_batch", "throttle", requests_per_minute=1), routes(BIG, SMALL)) == ("big", "")
    assert served(curbs("cheaper_variant"), routes(entry("big"), SMALL)) == ("big", "")


@pytest.mark.parametrize(
    "variant",
    [
        entry("other"),
        entry("small", endpoints=("/v1/completions",)),
        entry("small", hold_seconds=0.0),  # no replica, and nobody would start one
        entry("small", max_tokens_cap=99),
        entry("small", n_cap=1),
        entry("small", context_tokens=110),
    ],
)
def test_a_request_that_does_not_fit_the_variant_goes_to_the_model_that_was_asked_for(variant: ModelEntry) -> None:
    models = routes(BIG, variant)
    assert served(curbs("cheaper_variant"), models, max_tokens=100, n=2) == ("big", "")


def test_a_variant_with_a_replica_needs_no_other_to_be_started() -> None:
    ready = entry("small", hold_seconds=0.0, replicas=(ReplicaEntry("r", "127.0.0.1", 1),), context_tokens=150)
    assert served(curbs("cheaper_variant"), routes(BIG, ready), max_tokens=100, n=2) == ("small", "small")


def test_what_the_model_itself_refuses_is_refused_as_ever() -> None:
    with pytest.raises(BadRequest, match="this model allows 1 to 8192"):
        served(curbs("cheaper_variant"), routes(BIG, SMALL), max_tokens=10_000)


def test_batch_requests_are_refused_until_the_reset() -> None:
    models = routes(BIG, SMALL)
    found = curbs("shed_batch", "cheaper_variant")
    with pytest.raises(Refusal) as caught:
        found.admit(CHAT, chat(), models["big"], "batch", NOW_MS, models)
    refusal = caught.value
    assert (refusal.status, refusal.code, refusal.retry_after_seconds) == (429, "budget_batch_shed", 1000.0)
    assert (
        "So much of the budget of $5.00 for tenant 'search' in 2026-11 is spent that requests of priority batch"
        in refusal.message
    )
    assert "All of it is there again in 17 min." in refusal.message
    route, _ = found.admit(CHAT, chat(), models["big"], "standard", NOW_MS, models)
    assert route.name == "small"


def test_a_budget_for_a_model_curbs_that_model_alone_and_its_own_period_alone() -> None:
    models = routes(BIG, SMALL, entry("other", cheaper_variant="small"))
    of_other = BudgetLimit("budget:o:0", "budget:o", Scope.TENANT, "search", 1, "x", 0, 2_000_000, model="other")
    assert served(curbs("cheaper_variant", limit=of_other), models) == ("big", "")
    assert served(curbs("cheaper_variant"), models, unix_ms=2_000_000) == ("big", "")
    rolling = BudgetLimit("budget:r:0", "budget:r", Scope.TENANT, "search", 1, "x", 0, 60_000, window_ms=3_600_000)
    assert served(curbs("cheaper_variant", limit=rolling), models) == ("small", "small")  # whichever slot it is by now


def test_a_throttled_budget_is_a_rate_limit_beside_the_keys_own() -> None:
    shares = Shares(clock)
    directory = Directory(b"p", shares, lambda replica: Replica(replica, clock, None), clock)
    key = KeyEntry("k", "search", ())
    directory.apply(Snapshot(1, 1, 1, (BIG,), (key,), (TenantEntry("search"),), (LIMIT,)))
    known = directory._keys["k"]
    assert known.curbs is None
    curb = Curb(LIMIT, ("throttle",), 3)
    assert directory.apply_delta(Delta(1, 2, curbs=(curb,)))
    assert directory._keys["k"] is known  # nothing else was made anew
    assert known.curbs is not None
    share = shares.get(curb.throttle_limit, 3)
    assert known.curbs.throttles("big", NOW_MS) == (share,)
    _, admitted = known.curbs.admit(CHAT, chat(), directory.models["big"], "standard", NOW_MS, directory.models)
    claim = Claim.of(known, admitted, "big", 0, NOW_MS)
    assert claim.take() == (share, 1)
    share.balance = 1
    assert claim.take() is None
    assert (share.balance, share.used) == (0, 1)
    assert claim.rate_headers().startswith(b"x-ratelimit-limit-requests: 3\r\n")
    claim.give_back(went_out=False)
    assert (share.balance, share.used) == (1, 0)
    refusal = limit_refusal(share, 7.0)
    assert (refusal.status, refusal.code, refusal.retry_after_seconds) == (429, "budget_throttled", 7.0)
    assert refusal.message.startswith(
        "The budget of $5.00 for tenant 'search' in 2026-11 lets 3 requests per minute through"
    )
    assert directory.apply_delta(Delta(1, 3, curbs=()))
    assert known.curbs is None
    assert type(Claim.of(known, admitted, "big", 0, NOW_MS)) is Claim


def test_a_claim_says_which_model_answers_where_another_was_asked_for() -> None:
    shares = Shares(clock)
    directory = Directory(b"p", shares, lambda replica: Replica(replica, clock, None), clock)
    snapshot = Snapshot(
        1, 1, 1, (BIG, SMALL), (KeyEntry("k", "search", ()),), (TenantEntry("search"),), (LIMIT,),
        (Curb(LIMIT, ("cheaper_variant",)),),
    )  # fmt: skip
    directory.apply(snapshot)
    key, models = directory._keys["k"], directory.models
    assert key.curbs is not None
    for asked, line in (("big", b"x-swell-served-model: small\r\n"), ("small", b"")):
        route, admitted = key.curbs.admit(CHAT, chat(), models[asked], "standard", NOW_MS, models)
        claim = Claim.of(key, admitted, route.name, 5, NOW_MS)
        assert isinstance(claim, CurbedClaim)
        assert claim.rate_headers() == line


def test_keys_of_others_are_not_curbed() -> None:
    directory = Directory(b"p", Shares(clock), lambda replica: Replica(replica, clock, None), clock)
    keys = (KeyEntry("k", "search", ()), KeyEntry("other", "ads", ()))
    directory.apply(Snapshot(1, 1, 1, (BIG,), keys, (), (LIMIT,), (Curb(LIMIT, ALL, 1),)))
    assert directory._keys["other"].curbs is None
    assert directory.apply_delta(Delta(1, 2, keys=(KeyEntry("k", "search", (), priority="batch"),)))
    assert directory._keys["k"].curbs is not None
