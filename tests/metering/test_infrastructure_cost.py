"""What replicas cost, by the millisecond: whatever cuts a run, nothing is lost."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swell.metering.infrastructure import Stretch, cost, replica_ms_by_market, stretch
from swell.state.replica_runs import ReplicaRun

HOUR_MS = 3_600_000
RUN = ReplicaRun(
    replica_id="a", model="chat", provider="process", market="own", accelerator="L4", usd_nanos_per_hour=700_000_000,
    started_unix_ms=1000, ready_unix_ms=61_000, ended_unix_ms=1000 + 2 * HOUR_MS, seen_unix_ms=1000,
)  # fmt: skip

runs = st.builds(
    ReplicaRun,
    replica_id=st.just("a"), model=st.just("m"), provider=st.just("p"), market=st.sampled_from(["own", "spot"]),
    accelerator=st.just(""), usd_nanos_per_hour=st.integers(0, 10**13), started_unix_ms=st.integers(0, 10**6),
    ready_unix_ms=st.none() | st.integers(0, 10**8), ended_unix_ms=st.none() | st.integers(0, 10**8),
    seen_unix_ms=st.integers(0, 10**8),
)  # fmt: skip


def test_a_run_costs_its_hours_at_its_price() -> None:
    assert cost(RUN, 0, 10 * HOUR_MS) == 2 * 700_000_000
    assert stretch(RUN, 0, 10 * HOUR_MS) == Stretch(11_666_666, 1_400_000_000 - 11_666_666, 0, 60_000, 7_140_000)
    assert cost(RUN, 1000, 1000 + HOUR_MS) == 700_000_000
    assert cost(RUN, 5 * HOUR_MS, 6 * HOUR_MS) == cost(RUN, 7 * HOUR_MS, 6 * HOUR_MS) == 0


def test_a_run_without_an_end_is_known_until_it_was_seen_last() -> None:
    alive = replace(RUN, ended_unix_ms=None, seen_unix_ms=1000 + HOUR_MS)
    assert cost(alive, 0, 10 * HOUR_MS) == 700_000_000
    assert cost(replace(alive, seen_unix_ms=500), 0, HOUR_MS) == 0


def test_a_run_that_was_never_ready_only_started() -> None:
    failed = replace(RUN, ready_unix_ms=None)
    assert stretch(failed, 0, 10 * HOUR_MS) == Stretch(1_400_000_000, 0, 0, 2 * HOUR_MS, 0)


def test_a_minimum_is_billed_after_an_early_end() -> None:
    short = replace(RUN, ended_unix_ms=1000 + HOUR_MS // 10)
    assert cost(short, 0, 10 * HOUR_MS, minimum_ms=HOUR_MS) == 700_000_000
    assert stretch(short, 0, 10 * HOUR_MS, minimum_ms=HOUR_MS).over_usd_nanos == 630_000_000
    assert cost(RUN, 0, 10 * HOUR_MS, minimum_ms=HOUR_MS) == 2 * 700_000_000


def test_replica_hours_are_told_by_market() -> None:
    lives = [RUN, replace(RUN, market="spot"), replace(RUN, market="spot")]
    assert replica_ms_by_market(lives, 0, 1000 + HOUR_MS) == {"own": HOUR_MS, "spot": 2 * HOUR_MS}
    assert replica_ms_by_market(lives, 9 * HOUR_MS, 10 * HOUR_MS) == {}


@given(runs, st.lists(st.integers(0, 2 * 10**8), max_size=20), st.sampled_from([0, 60_000, HOUR_MS]))
def test_slices_of_any_cut_add_up(run: ReplicaRun, cuts: list[int], minimum_ms: int) -> None:
    edges = [0, *sorted(cuts), 3 * 10**8]
    pieces = [stretch(run, low, high, minimum_ms) for low, high in pairwise(edges)]
    whole = stretch(run, 0, 3 * 10**8, minimum_ms)
    assert sum(pieces, Stretch()) == whole
    assert whole.total_usd_nanos == cost(run, 0, 3 * 10**8, minimum_ms)
    billed_ms = max(run.until_unix_ms - run.started_unix_ms, minimum_ms, 0)
    assert whole.total_usd_nanos == run.usd_nanos_per_hour * billed_ms // HOUR_MS
    assert all(min(p.starting_usd_nanos, p.serving_usd_nanos, p.over_usd_nanos) >= 0 for p in pieces)
