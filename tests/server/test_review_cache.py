"""What routing by prefix would save: beside the simulator's own engines, from exact rows, and when nothing is said."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from review_catalogue import WRONG, write_catalogue
from swell.server import review_cache
from swell.server.review_cache import FEWEST_HOURS, FEWEST_REQUESTS, CacheUse, PrefixCache, prefix_cache_of
from swell.server.review_edits import Change, changed
from swell.server.review_replays import Case, scenario
from swell.server.review_saving import HOUR_SECONDS, nanos
from swell.simulator.engine import Job
from swell.simulator.fleet import SimReplica
from swell.simulator.own import swell_scaler
from swell.simulator.run import Replay
from swell.spec import ModelSpec, parse_spec
from swell.state.scaling import LatencyProfile, Pool
from swell.state.traffic import Traffic

HOUR_MS = 3_600_000
SPREAD = parse_spec(WRONG, origin="swell.yaml").models[0]
POOL = Pool("BIG", LatencyProfile("house-8b", "BIG", 1, 3.2, 0.02, 6e-7, 5.4, 0.013, 3.3e-5, 900_000), 8.0, 60.0)


def rows(
    hour: int, replicas: int, share: float, *, requests: int = 40, prompt: int = 1000, **changes: Any
) -> list[Any]:
    """An hour of a tenant, dealt to the replicas in turn."""
    row = {
        "tenant": "search", "endpoint": "/v1/chat/completions", "status": "settled", "prompt_tokens": prompt,
        "cached_tokens": int(prompt * share),
    } | changes  # fmt: skip
    return [
        row | {"reserved_at_unix_ms": hour * HOUR_MS + number, "replica_id": f"chat-{number % replicas}"}
        for number in range(requests)
    ]


def found(*hours: list[Any], model: ModelSpec = SPREAD) -> PrefixCache:
    use = CacheUse()
    for hour in (rows(0, 1, 0.5), *hours):  # from whose hits on the engine is known to tell
        use.add(hour)
    return prefix_cache_of(use, model, POOL)


def typical(count: int = 4, **changes: Any) -> list[list[Any]]:
    """Hours on one replica with 60 % cached, and as many over four with 20 %."""
    alone = [rows(1 + number, 1, 0.6, **changes) for number in range(count)]
    return alone + [rows(1 + count + number, 4, 0.2, **changes) for number in range(count)]


def test_what_is_saved_is_the_prefill_between_the_two_shares() -> None:
    cache = found(*typical())
    (missed,) = cache.missed
    assert (missed.tenant, missed.alone.share, missed.spread.share) == ("search", 0.6, 0.2)
    assert (missed.alone.hours, missed.spread.hours, missed.alone.replicas, missed.spread.replicas) == (4, 4, 1, 4)
    one = POOL.profile.prefill_ms(600) - POOL.profile.prefill_ms(200)  # tokens 200 to 600 of every request
    assert missed.prefill_seconds == pytest.approx(4 * 40 * one / 1000)
    worth = nanos(missed.prefill_seconds / HOUR_SECONDS * POOL.usd_per_hour)
    assert missed.saving.usd_nanos == worth
    assert missed.saving.usd_nanos_per_month == pytest.approx(worth * 30.44 * 24 / 8)
    assert missed.saving.interval == (worth, worth)  # every hour is alike
    assert missed.saving.confidence == "low"
    assert cache.share == pytest.approx(0.4)


def test_a_day_of_each_kind_is_medium_confidence_and_nothing_is_high() -> None:
    assert found(*typical(23)).missed[0].saving.confidence == "low"
    assert found(*typical(24)).missed[0].saving.confidence == "medium"
    assert found(*typical(200)).missed[0].saving.confidence == "medium"


def test_only_tenants_who_miss_hits_are_named_the_largest_first() -> None:
    others = [*typical(tenant="ads", prompt=3000), *(rows(h, 1 + 3 * (h > 4), 0.4, tenant="even") for h in range(1, 9))]
    cache = found(*typical(), *others)
    assert [each.tenant for each in cache.missed] == ["ads", "search"]
    assert cache.is_compared


@pytest.mark.parametrize(
    "hours",
    [
        [rows(1 + number, 1 + 3 * (number > 3), 0.6) for number in range(8)],  # spread, and it does not matter
        [rows(1 + number, 1 + 3 * (number > 3), 0.24 - 0.04 * (number > 3)) for number in range(8)],  # hardly
        [rows(1 + number, 4 - 3 * (number > 3), 0.6 - 0.4 * (number > 3)) for number in range(8)],  # the reverse
        [
            *(rows(1 + n, 1, (0.95, 0.15)[n % 2]) for n in range(4)),
            *(rows(5 + n, 4, (0.1, 0.7)[n % 2]) for n in range(4)),
        ],
    ],
    ids=["no difference", "little", "the reverse", "uncertain"],
)
def test_what_is_not_there_or_not_sure_is_not_told(hours: list[list[Any]]) -> None:
    cache = found(*hours)
    assert cache.is_spread
    assert cache.is_compared
    assert cache.missed == ()


def test_without_hours_to_compare_with_it_is_known_that_nothing_is_known() -> None:
    spread = [rows(1 + number, 4, 0.2) for number in range(8)]
    assert found(*spread) == PrefixCache(share=pytest.approx(0.2), is_spread=True)
    few = [rows(20 + number, 1, 0.6) for number in range(FEWEST_HOURS - 1)]
    quiet = [rows(30 + number, 1, 0.6, requests=FEWEST_REQUESTS - 1) for number in range(9)]
    assert not found(*spread, *few, *quiet).is_compared
    assert found(*spread, *few, *quiet, rows(50, 1, 0.6)).missed
    assert not found(*(rows(1 + number, 1, 0.2) for number in range(8))).is_spread


def test_an_engine_that_tells_nothing_is_no_engine_that_found_nothing() -> None:
    use = CacheUse()
    for hour in typical(4, cached_tokens=0):
        use.add(hour)
    assert prefix_cache_of(use, SPREAD, POOL) == PrefixCache()
    # It began to tell when the fleet had shrunk: nothing is known of the hours over four replicas.
    before = [rows(number, 4, 0.0) for number in range(4)]
    after = [rows(4 + number, 1, 0.6) for number in range(4)]
    use = CacheUse()
    for hour in (*before, *after):
        use.add(hour)
    cache = prefix_cache_of(use, SPREAD, POOL)
    assert cache.missed == ()
    assert cache.share == pytest.approx(0.6)


@pytest.mark.parametrize(
    "changes",
    [{"status": "estimated"}, {"endpoint": "/v1/embeddings", "cached_tokens": 0}, {"prompt_tokens": 0}],
    ids=str,
)
def test_what_no_engine_told_the_tokens_of_changes_nothing(changes: dict[str, Any]) -> None:
    more = [rows(1 + number, 4, 0.0) for number in range(8)]
    assert found(*typical(), *([row | changes for row in hour] for hour in more)) == found(*typical())


def test_a_model_that_is_routed_by_prefix_already_only_has_its_share() -> None:
    by_prefix = changed(SPREAD, [Change(("routing",), "prefix_affinity")])
    assert found(*typical(), model=by_prefix) == PrefixCache(share=pytest.approx(0.4))


def test_pages_may_come_in_any_order_and_size() -> None:
    dice = random.Random(11)
    every = [row for hour in (rows(0, 1, 0.5), *typical()) for row in hour]
    dice.shuffle(every)
    use = CacheUse()
    for begin in range(0, len(every), 7):
        use.add(every[begin : begin + 7])
    assert prefix_cache_of(use, SPREAD, POOL) == found(*typical())


def test_so_many_tenants_are_compared_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review_cache, "MOST_TENANTS", 1)
    cache = found(*typical(), *typical(tenant="ads", prompt=3000))
    assert [each.tenant for each in cache.missed] == ["ads"]


def test_draws_in_pieces_are_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(5)
    hours = [rows(1 + n, 1 + 3 * (n % 2), dice.uniform(0.1, 0.3) + 0.4 * (1 - n % 2)) for n in range(40)]
    whole = found(*hours).missed[0]
    monkeypatch.setattr(review_cache, "_DRAWN_AT_ONCE", 50)
    pieces = found(*hours).missed[0]
    assert pieces == whole
    assert whole.saving.interval is not None
    low, high = whole.saving.interval
    assert low < whole.saving.usd_nanos < high


# Beside the simulator


class _Recorded(Replay):
    """A replay that keeps a ledger."""

    def __init__(self, case: Case, first_hour: int) -> None:
        staged = scenario(case, case.model)
        super().__init__(staged, swell_scaler(staged))
        self._first_ms = first_hour * HOUR_MS
        self.ledger: list[dict[str, Any]] = []

    def _finish(self, job: Job, replica: SimReplica, now: float) -> None:
        super()._finish(job, replica, now)
        prompt = job.prompt - job.tokens
        self.ledger.append({
            "reserved_at_unix_ms": self._first_ms + int(job.arrival * 1000), "prompt_tokens": prompt,
            "cached_tokens": min(job.cached, prompt), "status": "settled", "replica_id": replica.replica_id,
            "endpoint": "/v1/chat/completions", "tenant": "search",
        })  # fmt: skip


def _conversations(hours: float, per_second: float, seed: int) -> Traffic:
    """Of 30 people at a time: every prompt is the one before it and a block more, from 1 to 16 blocks."""
    dice = np.random.default_rng(seed)
    at = np.sort(dice.uniform(0, hours * HOUR_SECONDS, int(hours * HOUR_SECONDS * per_second)))
    blocks: list[tuple[int, ...]] = []
    open_ones: list[tuple[int, ...]] = [()] * 30
    fresh: Iterator[int] = iter(range(seed * 10**9 + 1, seed * 10**9 + 10**8))
    for who in dice.integers(0, len(open_ones), len(at)):
        grown = (*open_ones[who], next(fresh))
        blocks.append(grown)
        open_ones[who] = grown if len(grown) < 16 else ()
    prompts = np.array([512 * len(each) + 100 for each in blocks], dtype=np.int32)
    outputs = dice.integers(20, 100, len(at)).astype(np.int32)
    return Traffic(at, prompts, outputs, start_unix=0.0, prefix_blocks=blocks, block_tokens=512)


def test_the_estimate_is_what_the_simulators_engines_save_on_one_replica_and_prefix_routing_most_of_it(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    files = write_catalogue(tmp_path_factory.mktemp("catalogue"))

    def replayed(replicas: int, first_hour: int, hours: float, seed: int, routing: str) -> list[dict[str, Any]]:
        fleet = [Change(("replicas", "min"), replicas), Change(("replicas", "max"), replicas)]
        model = changed(SPREAD, [*fleet, Change(("routing",), routing)])
        run = _Recorded(Case(model, _conversations(hours, 0.2, seed), *files), first_hour)
        run.run()
        return run.ledger

    alone = replayed(1, 0, 5.0, 1, "least_outstanding_tokens")
    spread = replayed(4, 5, 4.0, 2, "least_outstanding_tokens")
    on_one = replayed(1, 5, 4.0, 2, "least_outstanding_tokens")
    routed = replayed(4, 5, 4.0, 2, "prefix_affinity")
    use = CacheUse()
    use.add([*alone, *spread])
    pool = scenario(Case(SPREAD, _conversations(0.1, 0.2, 3), *files), SPREAD).pools[0]
    (missed,) = prefix_cache_of(use, SPREAD, pool).missed
    assert missed.alone.hours == 4  # from the hour after its first hit on
    assert missed.spread.hours == 4
    assert missed.alone.share > missed.spread.share + 0.2

    def prefill_seconds(ledger: list[dict[str, Any]]) -> float:
        whole, done = (sum(pool.profile.prefill_ms(row[name]) for row in ledger) for name in _TOKENS)
        return (whole - done) / 1000

    most = prefill_seconds(spread) - prefill_seconds(on_one)
    saved = prefill_seconds(spread) - prefill_seconds(routed)
    assert missed.prefill_seconds == pytest.approx(most, rel=0.05)
    assert 0.7 * missed.prefill_seconds < saved < missed.prefill_seconds


_TOKENS = ("prompt_tokens", "cached_tokens")
