"""The mix from turn to turn: cheap where it can be had, bridged where it cannot, and bounded whatever happens."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mix_scene import MIX, OBJECTIVE, POOLS, PROFILE, START, TICK, A, B, C, Fleet, X

from swell.policy.scaling.mix import MixMemory, spread
from swell.policy.scaling.mix_need import MixSettings, in_reference, miss_usd, usual_share
from swell.policy.scaling.placement import PlacementRules
from swell.state.scaling import Decision, LatencyProfile, Market, Observation, Pool, ReplicaState, ReplicaView, Window

STARTS = round(START / TICK) + 3  # turns until what was ordered is ready


def warm(need: int = 6, **more: object) -> Fleet:
    fleet = Fleet(**more)  # type: ignore[arg-type]
    fleet.run(40, need)
    return fleet


def test_everything_is_spot_in_several_zones_in_the_end_and_then_nothing_changes() -> None:
    fleet = warm()
    assert fleet.count("X") == 0
    assert fleet.ready >= 6
    assert sum(fleet.count(pool.name) > 0 for pool in (A, B, C)) >= 2
    before = fleet.decisions[-1].counts
    fleet.run(360, 6)  # an hour
    assert all(decision.is_hold and decision.counts == before for decision in fleet.decisions[-360:])


def test_nothing_observed_means_hold() -> None:
    fleet = warm()
    present = {pool.name: fleet.count(pool.name) for pool in POOLS}
    decision = fleet.turn(60, window=False)
    assert decision.is_hold
    assert dict(decision.counts) == present


def test_on_demand_is_ordered_with_the_first_spot_and_cancelled_when_that_is_confirmed() -> None:
    fleet = Fleet()
    first = fleet.turn(4)
    assert dict(first.counts)["X"] == 4
    assert first.binding == "stand-in"
    assert "4 on demand stand in" in first.reason
    assert sum(count for name, count in first.counts if name != "X") >= 1
    fleet.run(2, 4)
    assert fleet.count("X") == 0
    assert fleet.count(A.name) + fleet.count(B.name) + fleet.count(C.name) >= 4


def test_a_zone_that_takes_everything_is_replaced_in_the_same_turn_and_avoided() -> None:
    fleet = warm()
    lost = max((A, B, C), key=lambda pool: fleet.count(pool.name))
    held = fleet.count(lost.name)
    fleet.take(lost.name)
    fleet.closed.add(lost.name)
    decision = fleet.turn(6)
    assert fleet.ordered.get(lost.name, 0) == 0
    assert sum(fleet.ordered.values()) >= held - (sum(count for _, count in decision.counts) - 6)
    assert sum(count for _, count in decision.counts) >= 6
    assert lost.name in decision.reason
    assert fleet.run(STARTS, 6).counts is not None
    assert fleet.ready >= 6


def test_where_no_spot_is_to_be_had_on_demand_carries_the_need_and_goes_when_spot_is_ready_again() -> None:
    fleet = warm()
    for pool in (A, B, C):
        fleet.take(pool.name)
        fleet.closed.add(pool.name)
    decision = fleet.turn(6)
    assert dict(decision.counts)["X"] == 6
    fleet.run(100, 6)
    assert (fleet.count("X", ReplicaState.READY), fleet.count(A.name)) == (6, 0)
    fleet.closed.clear()
    for _ in range(200):
        fleet.turn(6)
        assert fleet.ready >= 6
    assert fleet.count("X") == 0


def test_a_zone_that_refuses_is_asked_for_one_replica_less_and_less_often() -> None:
    fleet = Fleet(closed={A.name})
    asked: list[float] = []
    for _ in range(400):
        fleet.turn(6)
        if fleet.ordered.get(A.name):
            assert fleet.ordered[A.name] == 1
            asked.append(fleet.now)
    apart = [later - before for before, later in pairwise(asked)]
    assert 2 < len(apart) < 40
    assert apart[0] <= 200
    assert max(apart) >= 600
    assert fleet.ready >= 6


def test_a_zone_with_many_losses_is_given_less() -> None:
    fleet = warm(8)
    favourite = max((A, B, C), key=lambda pool: fleet.count(pool.name))
    before = fleet.count(favourite.name)
    for _ in range(12):
        fleet.take(favourite.name)
        fleet.run(90, 8)
    assert fleet.count(favourite.name) < before
    assert fleet.ready >= 8


def test_the_rules_hold_once_everything_is_ready() -> None:
    fleet = warm(6, rules=PlacementRules(on_demand_base=1, max_spot_fraction=0.5))
    on_demand = fleet.count("X")
    assert on_demand >= fleet.ready / 2
    assert warm(6, rules=PlacementRules(on_demand_base=2)).count("X") == 2
    assert warm(0, rules=PlacementRules(min_replicas=2)).ready == 2
    assert warm(9, rules=PlacementRules(max_replicas=4)).ready == 4
    assert warm(0).ready == 0


def test_a_ceiling_that_binds_is_named_with_what_is_given_up() -> None:
    fleet = warm(10, rules=PlacementRules(usd_per_hour=5.0))
    decision = fleet.decisions[-1]
    assert fleet.spend(decision) <= 5.0
    assert decision.binding == "budget"
    assert "the ceiling of spend binds" in decision.reason
    assert "of what is needed is given up" in decision.reason
    assert fleet.ready >= 4  # of the cheapest: 0.8 an hour


events = st.lists(
    st.tuples(
        st.integers(0, 12),  # need
        st.sampled_from(("", A.name, B.name, C.name)),  # taken
        st.sampled_from(("", A.name, B.name, C.name)),  # closed, or opened again
    ),
    min_size=1,
    max_size=40,
)
rules = st.builds(
    PlacementRules,
    on_demand_base=st.integers(0, 2),
    max_spot_fraction=st.sampled_from((0.0, 0.5, 1.0)),
    min_replicas=st.integers(0, 2),
    max_replicas=st.integers(4, 30),
    usd_per_hour=st.sampled_from((None, 4.0, 12.0)),
)


@settings(max_examples=40, deadline=None)
@given(happens=events, rule=rules)
def test_whatever_happens_spend_stays_inside_and_nothing_ready_goes_that_is_needed(
    happens: list[tuple[int, str, str]], rule: PlacementRules
) -> None:
    fleet = Fleet(rules=rule)
    for need, taken, toggled in happens:
        fleet.take(taken)
        fleet.closed ^= {toggled} - {""}
        for _ in range(4):
            before = fleet.ready + sum(
                r.state is ReplicaState.STARTING and fleet.now + TICK - r.ordered_at >= START for r in fleet.replicas
            )
            decision = fleet.turn(need)
            assert all(count >= 0 for _, count in decision.counts)
            assert rule.usd_per_hour is None or fleet.spend(decision) <= rule.usd_per_hour + 1e-6
            if rule.usd_per_hour is None and rule.max_spot_fraction == 1:
                assert fleet.ready >= min(before, need, rule.max_replicas)


@settings(max_examples=30, deadline=None)
@given(happens=events, low=st.integers(0, 12), more=st.integers(0, 12))
def test_more_need_never_means_less_capacity_and_equal_things_seen_decide_the_same(
    happens: list[tuple[int, str, str]], low: int, more: int
) -> None:
    fleet = Fleet()
    for need, taken, toggled in happens:
        fleet.take(taken)
        fleet.closed ^= {toggled} - {""}
        fleet.turn(need)

    def decided(need: int) -> Decision:
        asked = Decision(fleet.now + TICK, (("X", need),), "", "forecast", is_hold=True)
        seen = Observation(fleet.now + TICK, Window(fleet.now + TICK, TICK), tuple(fleet.replicas))
        return spread(fleet.settings, fleet.memory, seen, asked, MIX)[0]

    assert decided(low + more).replicas >= min(decided(low).replicas, low + more)
    assert decided(low) == decided(low)
    assert decided(low).replicas >= low


def test_machines_of_other_sizes_count_for_what_they_carry() -> None:
    fast = LatencyProfile("m", "Y", 1, 4.0, 0.025, 0.0, 6.0, 0.015, 4e-5, kv_tokens=800_000)
    large = Pool("Y", fast, 4.0, START)
    cheap = Pool("Y/spot/us-east-1b", fast, 1.0, START, Market.SPOT, "us-east-1b", 0.25)
    mixed = MixSettings((X, large, cheap), OBJECTIVE)
    ready = tuple(ReplicaView(f"Y-{i}", "Y", ReplicaState.READY, 0.0) for i in range(3))
    seen = Observation(10.0, Window(10.0, TICK), ready)
    assert in_reference(mixed, seen, MIX).ready >= 6
    asked = Decision(10.0, (("X", 8),), "", "forecast", is_hold=True)
    decision, _ = spread(mixed, MixMemory(), seen, asked, MIX)
    counts = dict(decision.counts)
    assert counts["X"] == 0  # 3 usd for one; the large ones carry two for 4
    assert 4 <= counts["Y"] + counts["Y/spot/us-east-1b"] <= 8


def test_machines_that_cannot_answer_long_prompts_have_no_part() -> None:
    slow = LatencyProfile("m", "Z", 1, 8.0, 0.05, 0.0, 12.0, 0.03, 8e-5, kv_tokens=3000)
    small = Pool("Z/spot/us-east-1a", slow, 0.1, START, Market.SPOT, "us-east-1a", 0.25)
    fleet = Fleet(pools=(X, small))
    fleet.run(30, 4)
    assert fleet.count("Z/spot/us-east-1a") > 0  # all prompts have 1,000 tokens
    uneven = type(MIX)(1000.0, 200.0, 8e6, 2000.0)
    asked = Decision(10.0, (("X", 4),), "", "forecast", is_hold=True)
    seen = Observation(10.0, Window(10.0, TICK), ())
    decision, _ = spread(MixSettings((X, small), OBJECTIVE), MixMemory(), seen, asked, uneven)
    assert dict(decision.counts) == {"X": 4, "Z/spot/us-east-1a": 0}
    assert PROFILE.kv_tokens > 3000


@pytest.mark.parametrize("need", [1, 3, 10])
def test_what_was_decided_is_said(need: int) -> None:
    fleet = warm(need)
    assert all(f"for {need} of X" in decision.reason for decision in fleet.decisions)
    assert {name for name, _ in fleet.decisions[-1].inputs} >= {"usd_per_hour", "standing_in", "leaving", "short"}


def test_a_miss_is_worth_more_where_bursts_are_dear_and_the_objective_is_high() -> None:
    asked = Decision(0.0, (("X", 8),), "", "forecast", inputs=(("level", 4.0),))
    assert usual_share(asked) == 0.5
    assert usual_share(replace(asked, inputs=(("level", 9.0),))) == 1.0
    settings_ = MixSettings(POOLS, OBJECTIVE)
    strict = replace(settings_, objective=replace(OBJECTIVE, attainment=0.999))
    steady, bursty = (miss_usd(settings_, 8, share, MIX, 1.0) for share in (1.0, 0.5))
    assert 0 < steady < bursty < miss_usd(strict, 8, 0.5, MIX, 1.0)
    assert miss_usd(settings_, 0, 1.0, MIX, 1.0) == 0.0
