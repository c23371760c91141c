"""Who used what replicas cost. Lines add up to the cost, whatever the history."""

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swell.metering.attribution import Attribution, Capability, Group, Line, attribute, split, spread, summed
from swell.metering.infrastructure import cost
from swell.metering.work import Load, work_microseconds
from swell.policy.scaling.capacity import replica_seconds
from swell.state.replica_runs import ReplicaRun
from swell.state.scaling import LatencyProfile, Objective

HOUR_MS = 3_600_000
PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, kv_tokens=60_000)
OBJECTIVE = Objective(5000, 100)
KNOWN = Capability(PROFILE, OBJECTIVE)
SEARCH, ADS = ("search", "k1"), ("ads", "k2")


def life(started: int = 0, ready: int | None = 0, ended: int = HOUR_MS, rate: int = 3_600_000_000) -> ReplicaRun:
    return ReplicaRun(
        replica_id=f"{started}-{ended}", model="m", provider="p", market="spot", accelerator="X",
        usd_nanos_per_hour=rate, started_unix_ms=started, ready_unix_ms=ready, ended_unix_ms=ended, seen_unix_ms=0,
    )  # fmt: skip


lives = st.builds(
    life, st.integers(0, 4 * HOUR_MS), st.none() | st.integers(0, 5 * HOUR_MS), st.integers(0, 6 * HOUR_MS),
    st.integers(0, 10**12),
)  # fmt: skip
loads = st.builds(Load, st.integers(1, 5000), st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**12))
groups = st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["k1", "k2"]))
capabilities = st.sampled_from([KNOWN, Capability()])


def test_half_of_the_time_at_capacity_is_half_of_the_cost() -> None:
    requests = round(1800 / replica_seconds(PROFILE, OBJECTIVE, 1000, 100))
    found = attribute([life()], {SEARCH: Load(requests, 1000 * requests, 100 * requests)}, 0, HOUR_MS, KNOWN)
    assert abs(found.used_usd_nanos - 1_800_000_000) < 2_000_000  # one request takes about a second
    assert found.idle_usd_nanos == 3_600_000_000 - found.used_usd_nanos
    assert found.starting_usd_nanos == 0


def test_starting_idle_and_used_are_lines_of_their_own() -> None:
    late = life(ready=HOUR_MS // 4)
    found = attribute([late, life()], {}, 0, HOUR_MS, KNOWN)
    assert found == Attribution(900_000_000, 6_300_000_000, {})
    assert attribute([late], {}, 0, HOUR_MS, KNOWN, minimum_ms=2 * HOUR_MS).total_usd_nanos == 3_600_000_000
    after = attribute([late], {}, HOUR_MS, 2 * HOUR_MS, KNOWN, minimum_ms=2 * HOUR_MS)
    assert after == Attribution(0, 3_600_000_000, {})


def test_without_a_profile_an_hour_with_requests_is_used_by_weighted_tokens() -> None:
    asked = {SEARCH: Load(1, 600, 0, 7), ADS: Load(1, 0, 50, 9)}
    found = attribute([life()], asked, 0, HOUR_MS, Capability())
    assert {group: line.cost_usd_nanos for group, line in found.used.items()} == {
        SEARCH: 2_700_000_000, ADS: 900_000_000,
    }  # fmt: skip
    assert (found.idle_usd_nanos, found.charge_usd_nanos, found.recovery_usd_nanos) == (0, 16, 16 - 3_600_000_000)
    assert found.used[SEARCH].recovery_usd_nanos == 7 - 2_700_000_000


def test_requests_without_replicas_cost_nothing_and_are_still_charged() -> None:
    found = attribute([], {SEARCH: Load(3, 600, 10, 7)}, 0, HOUR_MS, KNOWN)
    assert (found.total_usd_nanos, found.recovery_usd_nanos) == (0, 7)


def test_idle_is_spread_by_work_over_the_whole_period_and_stays_where_nobody_worked() -> None:
    night = attribute([life()], {}, 0, HOUR_MS, KNOWN)
    assert spread(night) == night
    whole = spread(Attribution(5, 100, {SEARCH: Line(10, 3), ADS: Line(30, 1)}))
    assert whole == Attribution(5, 0, {SEARCH: Line(85, 3), ADS: Line(55, 1)})


@given(st.lists(lives, max_size=6), st.dictionaries(groups, loads, max_size=6), capabilities)
def test_lines_add_up_to_the_cost_and_none_is_negative(
    runs: list[ReplicaRun], asked: dict[Group, Load], capability: Capability
) -> None:
    found = attribute(runs, asked, HOUR_MS, 2 * HOUR_MS, capability)
    for each in (found, spread(found)):
        assert each.total_usd_nanos == sum(cost(run, HOUR_MS, 2 * HOUR_MS) for run in runs)
        assert min(each.starting_usd_nanos, each.idle_usd_nanos, *(x.cost_usd_nanos for x in each.used.values())) >= 0


@given(st.lists(lives, max_size=5), st.lists(st.tuples(groups, loads), max_size=6), st.randoms(), capabilities)
def test_the_order_of_runs_and_groups_changes_nothing(
    runs: list[ReplicaRun], asked: list[tuple[Group, Load]], random: object, capability: Capability
) -> None:
    one = attribute(runs, dict(asked), 0, 2 * HOUR_MS, capability)
    backwards = dict(reversed(list(dict(asked).items())))
    assert attribute(runs[::-1], backwards, 0, 2 * HOUR_MS, capability) == one


@given(
    st.lists(lives, max_size=5),
    st.lists(st.tuples(groups, st.integers(0, 6 * HOUR_MS), loads), max_size=8),
    st.lists(st.integers(0, 6 * HOUR_MS), max_size=8),
    capabilities,
)
def test_cutting_hours_differently_changes_nothing_in_the_total(
    runs: list[ReplicaRun], asked: list[tuple[Group, int, Load]], cuts: list[int], capability: Capability
) -> None:
    def period(edges: list[int]) -> Attribution:
        parts = []
        for low, high in pairwise(edges):
            inside: dict[Group, Load] = {}
            for group, at, load in asked:
                if low <= at < high:
                    inside[group] = inside.get(group, Load(0, 0, 0)) + load
            parts.append(attribute(runs, inside, low, high, capability))
        return summed(parts)

    end = 6 * HOUR_MS + 1
    hourly, otherwise = period([*range(0, end, HOUR_MS), end]), period([0, *sorted(cuts), end])
    assert hourly.total_usd_nanos == otherwise.total_usd_nanos == sum(cost(run, 0, end) for run in runs)
    assert hourly.starting_usd_nanos == otherwise.starting_usd_nanos
    assert hourly.charge_usd_nanos == otherwise.charge_usd_nanos
    assert spread(hourly).total_usd_nanos == hourly.total_usd_nanos


weights = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 10**6), min_size=1)


@given(st.integers(0, 10**12), weights)
def test_a_split_is_exact_fair_to_a_nano_dollar_and_monotone(amount: int, of: dict[str, int]) -> None:
    parts = split(amount, of)
    whole = sum(of.values())
    assert sum(parts.values()) == (amount if whole else 0)
    assert all(abs(parts[key] * whole - amount * weight) < whole for key, weight in of.items() if whole)
    assert all(parts[one] <= parts[other] for one in of for other in of if of[one] < of[other])


@given(st.integers(0, 10**9), weights, st.integers(0, 10**6))
def test_whoever_works_more_than_before_does_not_pay_less(amount: int, of: dict[str, int], more: int) -> None:
    key = min(of)
    assert split(amount, of | {key: of[key] + more})[key] >= split(amount, of)[key]


def test_work_at_capacity_is_what_the_planner_takes_a_request_for() -> None:
    work = work_microseconds({SEARCH: Load(1000, 1_500_000, 200_000)}, PROFILE, OBJECTIVE)[SEARCH]
    assert abs(work / 1e9 - replica_seconds(PROFILE, OBJECTIVE, 1500, 200)) < 1e-6
    assert work_microseconds({SEARCH: Load(2, 3000, 0), ADS: Load(0, 0, 0)}, PROFILE, OBJECTIVE)[ADS] == 0
    slower = replace(PROFILE, prefill_ms_per_token=0.5)
    assert work_microseconds({SEARCH: Load(1000, 1_500_000, 200_000)}, slower, OBJECTIVE)[SEARCH] > work
