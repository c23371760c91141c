"""Three months at posted rates: every month's lines are its cost, to the nano-dollar, and recovery goes to zero."""

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from swell.metering.attribution import Capability, Group
from swell.metering.costs import CostQuestion, model_costs, span_of
from swell.metering.infrastructure import MS_PER_HOUR, cost
from swell.metering.periods import MONTH, Period, following, period_at, zone_of
from swell.metering.posted_rates import Facts, Offer, posted
from swell.metering.work import NO_LOAD, Load
from swell.policy.scaling.capacity import replica_seconds
from swell.spec.prices import PostedPrice
from swell.state.posted_rates import PostedRate
from swell.state.records import UsageFilter
from swell.state.replica_runs import ReplicaRun
from swell.state.scaling import LatencyProfile, Objective
from swell.state.usage_groups import Bucket, UsageGroup
from swell.units import TOKENS_PER_RATE, usd_nanos

PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 1e-6, 12.0, 0.03, 8e-5, kv_tokens=60_000, max_sequences=8)
CAPABILITY = Capability(PROFILE, Objective(5000, 100))
GROUPS: tuple[Group, ...] = (("ads", "k1"), ("search", "k2"), ("search", "k3"))
HOURLY = usd_nanos("1.0371")
BERLIN = zone_of("Europe/Berlin")  # March has an hour less
DAY_MS = 24 * MS_PER_HOUR


class Months:
    """Hourly traffic with days and nights on replicas that come and go, charged at whatever rate stands."""

    def __init__(self, seed: int, first: Period, count: int, used: float) -> None:
        self.periods = [first]
        for _ in range(count - 1):
            after = following(MONTH, BERLIN, self.periods[-1])
            assert after is not None
            self.periods.append(after)
        self._rng = np.random.default_rng(seed)
        self._an_hour = used * 3600 / replica_seconds(PROFILE, CAPABILITY.objective, 900, 150)
        self.runs = list(self._lives(_ms(first.start_unix), _ms(self.periods[-1].end_unix or 0)))
        self.asked: dict[int, dict[Group, Load]] = {}

    def _lives(self, start: int, end: int) -> Iterator[ReplicaRun]:
        for day in range(start, end, DAY_MS):
            for index in range(1 + int(self._rng.integers(1, 4))):
                begun = day + int(self._rng.integers(0, 8 * MS_PER_HOUR))
                ended = begun + int(self._rng.integers(MS_PER_HOUR, 20 * MS_PER_HOUR))
                yield ReplicaRun(
                    replica_id=f"{day}-{index}", model="m", provider="p", market="spot", accelerator="X",
                    usd_nanos_per_hour=HOURLY, started_unix_ms=begun, ready_unix_ms=begun + 180_000,
                    ended_unix_ms=ended, seen_unix_ms=ended,
                )  # fmt: skip

    def ask(self, since_ms: int, until_ms: int, rate: PostedRate) -> None:
        """The traffic of some hours, charged request by request."""
        for hour in range(since_ms, until_ms, MS_PER_HOUR):
            self.asked[hour] = {}
            for group in GROUPS:
                count = int(self._rng.poisson(self._an_hour / len(GROUPS)))
                prompts, outputs = self._rng.integers(1, 1800, count), self._rng.integers(1, 300, count)
                charges = -(-(prompts * rate.prompt_rate + outputs * rate.completion_rate) // TOKENS_PER_RATE)
                sums = (int(each.sum()) for each in (prompts, outputs, charges))
                self.asked[hour][group] = Load(count, *sums)

    def facts(self, since_ms: int, until_ms: int) -> Facts:
        question = CostQuestion(
            self.runs, Period(since_ms / 1000, until_ms / 1000, ""), BERLIN, lambda model: CAPABILITY
        )
        found = model_costs(self._groups, question, span_of(self.runs, None))
        return Facts(since_ms, until_ms, found[0].attribution)

    def _groups(self, where: UsageFilter, by: object, bucket: Bucket | None) -> list[UsageGroup]:
        since, until = where.since_unix_ms or 0, where.until_unix_ms or 0
        return [
            _group(hour, group, load)
            for hour in range(since, until, MS_PER_HOUR)
            for group, load in self.asked.get(hour, {}).items()
            if load.requests
        ]


def _group(hour: int, group: Group, load: Load) -> UsageGroup:
    return UsageGroup(
        model="m", tenant=group[0], key_id=group[1], start_unix_ms=hour, requests=load.requests, void_requests=0,
        prompt_tokens=load.prompt_tokens, completion_tokens=load.completion_tokens,
        charge_usd_nanos=load.charge_usd_nanos,
    )  # fmt: skip


def _ms(unix: float) -> int:
    return round(unix * 1000)


def _recoveries(months: Months, terms: Mapping[str, object]) -> list[tuple[int, int]]:
    """(cost, recovery) of each month, whose rates are posted an hour before they begin. Checks every month's lines."""
    offer = Offer("m", PostedPrice(**terms), CAPABILITY, HOURLY)  # type: ignore[arg-type]  # the test's own shorthand
    last: PostedRate | None = None
    found = []
    for period in months.periods:
        start, end = _ms(period.start_unix), _ms(period.end_unix or 0)
        known = Facts(start, start) if last is None else months.facts(last.counted_until_unix_ms, start - MS_PER_HOUR)
        last = posted(offer, period, known, last, start)
        months.ask(start, end, last)
        spent = months.facts(start, end).attribution
        lines = [spent.starting_usd_nanos, spent.idle_usd_nanos, *(x.cost_usd_nanos for x in spent.used.values())]
        assert sum(lines) == spent.total_usd_nanos == sum(cost(run, start, end) for run in months.runs)
        assert min(lines) >= 0
        asked = [load for hour, loads in months.asked.items() if start <= hour < end for load in loads.values()]
        assert spent.charge_usd_nanos == sum(asked, NO_LOAD).charge_usd_nanos
        found.append((spent.total_usd_nanos, spent.recovery_usd_nanos))
    return found


@pytest.mark.parametrize("utilisation", ["0.2", "0.9"])
def test_a_wrong_first_rate_is_made_up_for_in_the_months_that_follow(utilisation: str) -> None:
    months = Months(8, period_at(MONTH, BERLIN, 1_769_900_000.0), 3, used=0.4)
    (spent, early), (_, middle), (_, late) = _recoveries(months, {"utilisation": utilisation})
    assert abs(early) > 0.3 * spent, "the guess was far off"
    assert early * middle < 0, "the second month makes up for it"
    assert abs(early + middle) < abs(early)
    assert abs(early + middle + late) < abs(early) / 4


def test_without_recovery_each_month_stands_for_itself_and_a_markup_is_earned() -> None:
    months = Months(9, period_at(MONTH, BERLIN, 1_769_900_000.0), 3, used=0.4)
    terms = {"utilisation": "0.2", "recover": False, "markup_percent": 20}
    _, *later = _recoveries(months, terms)
    for spent, recovery in later:
        assert recovery / spent == pytest.approx(0.2, abs=0.12), "as the months before were alike"
