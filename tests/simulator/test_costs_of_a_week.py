"""A simulated week with spot preemptions, attributed hour by hour: the lines are the cost, to the nano-dollar."""

from collections import defaultdict
from dataclasses import replace
from math import pi, sin
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from swell.metering.attribution import Capability, Group, attribute, spread, summed
from swell.metering.costs import CostQuestion, model_costs, span_of
from swell.metering.infrastructure import MS_PER_HOUR, cost
from swell.metering.periods import Period
from swell.metering.work import NO_LOAD, Load
from swell.simulator.result import Scenario
from swell.simulator.run import Replay
from swell.simulator.spot import market_for
from swell.state.records import UsageFilter
from swell.state.replica_runs import ReplicaRun
from swell.state.scaling import Decision, LatencyProfile, Market, Objective, Observation, Pool
from swell.state.traffic import Traffic
from swell.state.usage_groups import Bucket, UsageGroup
from swell.units import charge_usd_nanos, usd_nanos

PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, kv_tokens=60_000, max_sequences=1)
ON_DEMAND = Pool("X", PROFILE, usd_per_hour=3.6, start_seconds=180.0)
SPOT = tuple(
    replace(ON_DEMAND, name=f"X/spot/{zone}", usd_per_hour=usd, market=Market.SPOT, zone=zone, hazard_per_hour=0.7)
    for zone, usd in (("us-east-1a", 1.0371), ("us-west-2a", 1.113))
)
POOLS = {pool.name: pool for pool in (ON_DEMAND, *SPOT)}
OBJECTIVE = Objective(5000, 100, 0.99, beyond_prefill=True)
GROUPS: tuple[Group, ...] = (("ads", "k1"), ("search", "k2"), ("search", "k3"))
HOUR = 3600.0
WEEK = 7 * 24 * HOUR
RATES = 150_000_000, 600_000_000


class Tides:
    """More replicas by day than by night, spot wherever it is to be had."""

    interval_seconds = 300.0

    def decide(self, seen: Observation) -> Decision:
        wanted = 3 + round(2 * sin(2 * pi * seen.now / (24 * HOUR)))
        counts = (("X", 1), *((pool.name, wanted // 2 + index) for index, pool in enumerate(SPOT)))
        return Decision(seen.now, counts, "tides", "plan")


class Watched(Replay):
    """A replay that tells its replicas' lives and its requests."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario, Tides())
        self.ready_at: dict[str, float] = {}
        self.runs: list[ReplicaRun] = []
        self.asked: dict[int, dict[Group, Load]] = defaultdict(dict)

    def _end(self, replica):  # type: ignore[no-untyped-def]
        if replica.replica_id in self._replicas:
            self.runs.append(_run(replica, self.ready_at.get(replica.replica_id), self._now))
        super()._end(replica)

    def _refresh(self) -> None:
        super()._refresh()
        for candidate in self._view.candidates:
            self.ready_at.setdefault(candidate.replica_id, self._now)

    def _arrive(self, index: int, now: float, prompt: int, output: int) -> None:
        hour, group = _ms(now) // MS_PER_HOUR * MS_PER_HOUR, GROUPS[index * index % len(GROUPS)]
        load = Load(1, prompt, output, charge_usd_nanos(prompt, output, *RATES))
        self.asked[hour][group] = self.asked[hour].get(group, NO_LOAD) + load
        super()._arrive(index, now, prompt, output)


def _run(replica, ready: float | None, now: float) -> ReplicaRun:  # type: ignore[no-untyped-def]
    pool = replica.pool
    return ReplicaRun(
        replica_id=replica.replica_id, model="m", provider="simulated", market=pool.market.value,
        accelerator=pool.profile.accelerator, usd_nanos_per_hour=usd_nanos(str(pool.usd_per_hour)),
        started_unix_ms=_ms(replica.ordered_at), ready_unix_ms=None if ready is None else _ms(ready),
        ended_unix_ms=_ms(now), seen_unix_ms=_ms(now),
    )  # fmt: skip


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


@pytest.fixture(scope="module")
def week() -> Watched:
    rng = np.random.default_rng(8)
    count = int(WEEK / 40)
    traffic = Traffic(
        np.sort(rng.uniform(0, WEEK, count)),
        rng.integers(1, 3000, count).astype(np.int32),
        rng.integers(1, 300, count).astype(np.int32),
    )
    scenario = Scenario(
        traffic, tuple(POOLS.values()), OBJECTIVE, 1, 12, seed=8, failed_starts=0.05,
        spot=market_for(SPOT, seed=8, horizon_seconds=WEEK + HOUR),
    )  # fmt: skip
    replayed = Watched(scenario)
    replayed.run()
    return replayed


@pytest.mark.parametrize("capability", [Capability(PROFILE, OBJECTIVE), Capability()])
@pytest.mark.parametrize("minimum_ms", [0, MS_PER_HOUR])
def test_lines_add_up_to_the_bill_exactly(week: Watched, capability: Capability, minimum_ms: int) -> None:
    end = max(run.until_unix_ms for run in week.runs) + minimum_ms
    hours = [
        attribute(week.runs, week.asked.get(hour, {}), hour, hour + MS_PER_HOUR, capability, minimum_ms)
        for hour in range(0, end, MS_PER_HOUR)
    ]
    whole = summed(hours)
    result = week.result("tides", 0.0)
    assert len(hours) >= 7 * 24
    assert result.preemptions > 0
    bill = sum(
        run.usd_nanos_per_hour * max(run.until_unix_ms - run.started_unix_ms, minimum_ms) // MS_PER_HOUR
        for run in week.runs
    )
    for each in (whole, spread(whole)):
        lines = [each.starting_usd_nanos, each.idle_usd_nanos, *(line.cost_usd_nanos for line in each.used.values())]
        assert sum(lines) == each.total_usd_nanos == bill == sum(cost(run, 0, end, minimum_ms) for run in week.runs)
        assert min(lines) >= 0
        assert each.charge_usd_nanos == sum(load.charge_usd_nanos for asked in week.asked.values()
                                            for load in asked.values())  # fmt: skip
    assert whole.starting_usd_nanos > 0
    assert all(line.cost_usd_nanos > 0 for line in whole.used.values())
    if not minimum_ms:
        assert bill / 1e9 == pytest.approx(result.cost_usd, rel=1e-6), "the simulator's own bill, of floats"


def test_a_report_over_the_week_adds_up_to_the_same_in_every_zone(week: Watched) -> None:
    """Zones at half past, and weeks that begin and end in the middle of an hour, cut hours in two."""
    end = max(run.until_unix_ms for run in week.runs)

    def ask(where: UsageFilter, by: object, bucket: Bucket | None) -> list[UsageGroup]:
        since, until = where.since_unix_ms or 0, where.until_unix_ms or 0
        return [_group(hour, group, load) for hour, asked in week.asked.items() if since <= hour < until
                for group, load in asked.items()]  # fmt: skip

    totals = set()
    for zone in ("UTC", "Asia/Kathmandu", "America/New_York"):
        period = Period(0.0, end / 1000 + 1, "week")
        question = CostQuestion(week.runs, period, ZoneInfo(zone), lambda model: Capability(PROFILE, OBJECTIVE))
        [found] = model_costs(ask, question, span_of(week.runs, None))
        totals.add((found.attribution.total_usd_nanos, found.attribution.charge_usd_nanos))
        assert sum(found.replica_ms.values()) == sum(run.until_unix_ms - run.started_unix_ms for run in week.runs)
        assert found.replica_ms.keys() == {"on_demand", "spot"}
    [(total, _)] = totals
    assert total == sum(cost(run, 0, end) for run in week.runs)


def _group(hour: int, group: Group, load: Load) -> UsageGroup:
    return UsageGroup(
        model="m", tenant=group[0], key_id=group[1], start_unix_ms=hour, requests=load.requests, void_requests=0,
        prompt_tokens=load.prompt_tokens, completion_tokens=load.completion_tokens,
        charge_usd_nanos=load.charge_usd_nanos,
    )  # fmt: skip
