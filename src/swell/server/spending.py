"""Infrastructure budgets of a running server: what is left of each, for whom, and what became of it.

Spend comes from the lives of replicas as they are stored, so a restarted server goes on where the one before was. A
model is told what is left without what others have bound: what their replicas may cost until their own next decision
and a drain after it (`policy.scaling.spending`). So decisions that follow one another never overspend together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace as with_changes

from swell.clock import Clock
from swell.metering.accounts import Standing
from swell.metering.infrastructure_budgets import InfrastructureBook, InfrastructureBudget, hourly
from swell.metering.thresholds import MOST_HOURS
from swell.policy.scaling.funded import BINDING
from swell.policy.scaling.spending import Bound, bound_when_kept, cost, lasts_seconds, shares
from swell.ports.store import Store
from swell.server.unserved import budget_of, too_small, unfunded
from swell.server.writer import Writer
from swell.spec import Spec
from swell.spec.thresholds import Threshold, parse_threshold
from swell.state.budgets import BudgetLimit
from swell.state.funding import Fund, Funding, Tariff
from swell.state.replica_runs import ReplicaRun
from swell.state.scaling import Decision, ReplicaState, ReplicaView
from swell.state.snapshot import Unserved
from swell.units import usd, usd_nanos

HOUR_MS = 3_600_000
NO_STARTS: Mapping[str, float] = MappingProxyType({})
PIECE_MS = 30 * 24 * HOUR_MS  # of the past, read at once
LEFTOVER_SECONDS = 660.0  # for which replicas of models that are no longer in the file are expected to be paid


def infrastructure_budgets(spec: Spec) -> tuple[InfrastructureBudget, ...]:
    """All of the file."""
    owners = [("", spec.organisation.infrastructure_budget)]
    owners += [(model.name, model.infrastructure_budget) for model in spec.models]
    return tuple(
        InfrastructureBudget(model, budget.usd_nanos, budget.period, budget.time_zone)
        for model, budgets in owners
        for budget in budgets
    )


def minimums(spec: Spec) -> dict[str, int]:
    """Milliseconds that a replica of each model is billed for at least, where that is anything."""
    return {m.name: ceil(m.minimum_billed_seconds * 1000) for m in spec.models if m.minimum_billed_seconds}


def infrastructure_thresholds(spec: Spec) -> dict[str, tuple[Threshold, ...]]:
    """What to alert at, by `BudgetLimit.budget_id`."""
    written = [spec.organisation.infrastructure_budget, *(model.infrastructure_budget for model in spec.models)]
    texts = [budget.alerts for budgets in written for budget in budgets]
    return {
        budget.budget_id: tuple(map(parse_threshold, alerts))
        for budget, alerts in zip(infrastructure_budgets(spec), texts, strict=True)
    }


@dataclass(frozen=True, slots=True)
class _Told:
    """One model's replicas as of its last decision."""

    views: tuple[ReplicaView, ...]
    tariff: Tariff
    starts: Mapping[str, float]  # seconds from an order to readiness, by pool
    at: float
    decision: Decision | None = None

    @property
    def is_without(self) -> bool:
        """Whether there is none, nor one to come."""
        return all(view.state is ReplicaState.DRAINING for view in self.views)

    def bound(self, now: float, ends_in: float) -> Bound:
        """What is spent on them whatever others decide. A decision that is overdue may be as late again."""
        turn = self.at + self.tariff.turn_seconds - now
        tariff = replace(self.tariff, turn_seconds=turn) if turn > 0 else self.tariff
        return bound_when_kept(tariff, self.views, now, ends_in)


class SpendingDesk:
    """Made once per server. Everything is called on the event loop."""

    def __init__(self, spec: Spec, store: Store, writer: Writer, clock: Clock) -> None:
        self._models = {model.name: model for model in spec.models if model.is_ordered}
        self._minimum_ms = minimums(spec)
        self._book = InfrastructureBook(infrastructure_budgets(spec), self._minimum_ms)
        self._store = store
        self._writer = writer
        self._clock = clock
        self._told: dict[str, _Told] = {}
        self._prices: dict[str, int] = {}  # of the dearest pool of a model, as it said last
        self._unserved: dict[str, Unserved | None] = {}  # as of the last look

    async def begin(self) -> None:
        """Know what is spent of the present periods. Before anything is noted."""
        now = self._clock.unix()
        starts = [budget.limit_at(now).start_unix_ms for budget in self._book.budgets]
        runs: list[ReplicaRun] = []
        for since, until in _pieces(min(starts, default=0), int(now * 1000)) if starts else ():
            runs += await self._writer.call(partial(self._store.list_runs, since, until))
        self._book.begin(runs, now)

    def note(self, run: ReplicaRun) -> None:
        """A replica's life began, went on or ended."""
        if self._book.budgets:
            self._book.note(run, self._clock.unix())

    def bounds(self, model: str) -> bool:
        """Whether a budget bounds the model's replicas."""
        return model in self._models and any(self._budgets_of(model))

    def funding(
        self,
        model: str,
        prices: Mapping[str, int],
        views: Sequence[ReplicaView],
        now: float,
        drain_seconds: float,
        turn_seconds: float,
        starts: Mapping[str, float] = NO_STARTS,
    ) -> Funding | None:
        """What is left for the model, whose replicas are `views` as of now; None where nothing bounds them.

        `prices` are nano-dollars of a replica's hour, `starts` seconds from an order to readiness, by pool.
        """
        budgets = list(self._budgets_of(model))
        if not budgets or model not in self._models:
            return None
        self._prices[model] = max(prices.values(), default=0)
        if len(prices) == 1:  # what runs under an older price goes on under it, so the dearest counts
            prices = dict.fromkeys(prices, self._price(model))
        minimum = self._models[model].minimum_billed_seconds
        tariff = Tariff(tuple(prices.items()), drain_seconds, turn_seconds, minimum)
        known = self._told.get(model)
        self._told[model] = _Told(tuple(views), tariff, starts, now, known.decision if known else None)
        rate = sum(run.usd_nanos_per_hour for run in self._book.running(model))
        return Funding(tuple(self._fund(model, budget, now) for budget in budgets), tariff, rate)

    def decided(self, model: str, decision: Decision) -> None:
        """The model goes on with so many: others may have the rest."""
        known = self._told.get(model)
        if known is not None:
            self._told[model] = replace(known, views=tuple(_after(known.views, decision)), decision=decision)

    def look(self) -> bool:
        """See which models nobody can pay for; whether that has changed since the last look."""
        before = self._unserved
        self._unserved = {model: self.unserved(model) for model in self._told}
        return self._unserved != before

    def unserved(self, model: str) -> Unserved | None:
        """Why the model has no replica and gets none before a budget begins anew; None where that is not so."""
        told = self._told.get(model)
        if told is None or not told.is_without:
            return None
        unix = self._clock.unix()
        spent = [self._book.spent(budget, unix) for budget in self._budgets_of(model)]
        return unfunded(spent, told.tariff, told.starts, unix)

    def too_small(self) -> list[str]:
        """What is to be said of budgets that would not pay for a single replica of a model, whatever is spent."""
        return [
            sentence
            for name, told in self._told.items()
            for sentence in too_small(name, self._budgets_of(name), told.tariff, told.starts)
        ]

    def standings(self) -> list[Standing]:
        """Of every budget in its present period; what is bound counts as reserved."""
        if not self._book.budgets:
            return []
        now, unix = self._clock.monotonic(), self._clock.unix()
        found = []
        for budget in self._book.budgets:
            limit, spent = self._book.spent(budget, unix)
            bound = self._bound(budget, now, _ends_in(limit, unix)).before
            found.append(Standing(limit, spent, bound, has_refused=any(self._starved(budget))))
        return found

    async def hours(self, limit: BudgetLimit, now_unix: float) -> list[int]:
        """Nano-dollars in each hour up to the running one, for forecasts: counted from the period's start on and back,
        without those before the first that has any."""
        running = (int(now_unix * 1000) - limit.start_unix_ms) // HOUR_MS
        first = limit.start_unix_ms + (running - MOST_HOURS) * HOUR_MS
        runs = await self._writer.call(lambda: self._store.list_runs(first, None))
        hours = hourly(limit.owner, runs, first, MOST_HOURS + 1, self._minimum_ms)
        return hours[next((i for i, spent in enumerate(hours) if spent), MOST_HOURS) :]

    def rows(self) -> list[dict[str, Any]]:
        """For `swell budget`: amounts in nano-dollars, and as decimal dollars."""
        now, unix = self._clock.monotonic(), self._clock.unix()
        found = []
        for budget in self._book.budgets:
            limit, spent = self._book.spent(budget, unix)
            runs = self._book.running(budget.model)
            bound = self._bound(budget, now, _ends_in(limit, unix)).before
            ceiling, wanted = self._ceiling(budget), self._wanted(budget, limit)
            rate = sum(run.usd_nanos_per_hour for run in runs)
            found.append(spending_row(limit, spent, bound, rate, unix, ceiling=ceiling, wanted=wanted))
        return found

    def _budgets_of(self, model: str) -> Iterator[InfrastructureBudget]:
        return (budget for budget in self._book.budgets if budget.model in ("", model))

    def _models_of(self, budget: InfrastructureBudget) -> list[str]:
        return [budget.model] if budget.model else list(self._models)

    def _price(self, model: str) -> int:
        """Of a replica's hour, of the dearest kind: what runs under an older price goes on under it."""
        price = self._models[model].usd_per_replica_hour
        said = self._prices.get(model, 0 if price is None else usd_nanos(price))
        return max([said, *(run.usd_nanos_per_hour for run in self._book.running(model))])

    def _fund(self, model: str, budget: InfrastructureBudget, now: float) -> Fund:
        unix = self._clock.unix()
        limit, spent = self._book.spent(budget, unix)
        ends_in, left = _ends_in(limit, unix), limit.cap_usd_nanos - spent
        others = self._bound(budget, now, ends_in, but=model)
        return Fund(
            name=_name(limit),
            cap_usd_nanos=limit.cap_usd_nanos,
            left_usd_nanos=left - others.before,
            next_usd_nanos=limit.cap_usd_nanos - others.after,
            share_usd_nanos=self._share(model, budget, limit, left, ends_in),
            ends_in_seconds=ends_in,
            owner=limit.owner,
        )

    def _share(self, model: str, budget: InfrastructureBudget, limit: BudgetLimit, left: int, ends_in: float) -> int:
        """Floors first, then in proportion to what each would want without any budget."""
        names = self._models_of(budget)
        floors = [cost(self._price(name), ends_in) * self._models[name].replicas.min for name in names]
        wanted = [max(floor, self._wants(name, limit, ends_in)) for name, floor in zip(names, floors, strict=True)]
        return shares(left, floors, wanted)[names.index(model)]

    def _wants(self, model: str, limit: BudgetLimit, ends_in: float) -> int:
        """What a model said last; before that, what it has goes on."""
        known = self._told.get(model)
        said = dict(known.decision.wanted) if known and known.decision else {}
        return said.get(_name(limit), cost(self._price(model), ends_in) * len(self._book.running(model)))

    def _bound(self, budget: InfrastructureBudget, now: float, ends_in: float, but: str = "") -> Bound:
        """By the replicas of all models of a budget, but one."""
        names = self._models_of(budget)
        bounds = [self._told[name].bound(now, ends_in) for name in names if name != but and name in self._told]
        for run in self._book.running(budget.model):
            if run.model not in self._told and run.model != but:
                least = (run.started_unix_ms + self._minimum_ms.get(run.model, 0)) / 1000 - self._clock.unix()
                seconds, price = max(self._undecided_seconds(run.model), least), run.usd_nanos_per_hour
                inside = min(seconds, ends_in)
                bounds.append(Bound(cost(price, inside), cost(price, seconds - inside)))
        return sum(bounds, Bound())

    def _undecided_seconds(self, model: str) -> float:
        """For which a replica is paid of which nobody has decided anything yet: a server has just begun."""
        known = self._models.get(model)
        if known is None:
            return LEFTOVER_SECONDS
        return max(LEFTOVER_SECONDS, known.scaling.drain_seconds + 2 * known.scaling.interval_seconds)

    def _decisions(self, budget: InfrastructureBudget) -> Iterator[tuple[str, Decision]]:
        for name in self._models_of(budget):
            known = self._told.get(name)
            if known is not None and known.decision is not None:
                yield name, known.decision

    def _starved(self, budget: InfrastructureBudget) -> Iterator[bool]:
        """Whether a model has no replica since there is no money for one."""
        return (decision.binding == BINDING and not decision.replicas for _, decision in self._decisions(budget))

    def _ceiling(self, budget: InfrastructureBudget) -> int | None:
        """Nano-dollars an hour that its models may cost now; None where it takes nothing from any of them."""
        decisions = list(self._decisions(budget))
        if budget.model and self.unserved(budget.model) is not None:
            return 0  # though nobody has asked for one yet
        if not any(decision.binding == BINDING for _, decision in decisions):
            return None
        counts = [(name, pool, count) for name, decision in decisions for pool, count in decision.counts]
        return sum(self._told[name].tariff.price(pool) * count for name, pool, count in counts)

    def _wanted(self, budget: InfrastructureBudget, limit: BudgetLimit) -> int | None:
        """What the rest of its period would cost without it, as far as its models have said."""
        said = [dict(decision.wanted).get(_name(limit)) for _, decision in self._decisions(budget)]
        known = [each for each in said if each is not None]
        return sum(known) if known else None


def spending_row(
    limit: BudgetLimit, spent: int, bound: int, rate: int, now_unix: float,
    *, ceiling: int | None = None, wanted: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One budget. `rate` is what runs now, an hour; `runs_out_unix` when it would be used up at that rate."""
    left, ends_in = limit.cap_usd_nanos - spent, _ends_in(limit, now_unix)
    lasts = lasts_seconds(Fund("", limit.cap_usd_nanos, left, 0, left, ends_in), rate)
    amounts: tuple[tuple[str, int | None], ...] = (
        ("cap", limit.cap_usd_nanos), ("spent", spent), ("reserved", bound), ("left", left),
        ("rate", rate), ("ceiling", ceiling), ("wanted", wanted),
    )  # fmt: skip
    return {
        "scope": limit.scope,
        "owner": limit.owner,
        "model": limit.owner,
        "period": limit.label,
        "ends_unix": now_unix + ends_in,
        "runs_out_unix": None if lasts is None else now_unix + lasts,
        **{f"{name}_usd_nanos": nanos for name, nanos in amounts},
        **{f"{name}_usd": None if nanos is None else f"{usd(nanos):f}" for name, nanos in amounts},
    }


def stored_rows(
    spec: Spec, list_runs: Callable[[int | None, int | None], Sequence[ReplicaRun]], now_unix: float
) -> list[dict[str, Any]]:
    """The same where no server runs: nothing that is not stored is known to cost anything."""
    book = InfrastructureBook(infrastructure_budgets(spec), minimums(spec))
    starts = [budget.limit_at(now_unix).start_unix_ms for budget in book.budgets]
    pieces = _pieces(min(starts), int(now_unix * 1000)) if starts else ()
    runs = [run for since, until in pieces for run in list_runs(since, until)]
    book.begin([with_changes(run, ended_unix_ms=run.until_unix_ms) for run in runs], now_unix)
    return [
        spending_row(limit, spent, 0, 0, now_unix)
        for limit, spent in (book.spent(budget, now_unix) for budget in book.budgets)
    ]


def _pieces(since_unix_ms: int, until_unix_ms: int) -> Iterator[tuple[int, int]]:
    begin = since_unix_ms - HOUR_MS  # who ended just before may be billed for a minimum after
    while begin <= until_unix_ms:
        yield begin, begin + PIECE_MS
        begin += PIECE_MS


def _ends_in(limit: BudgetLimit, now_unix: float) -> float:
    return max(0.0, (limit.end_unix_ms or 0) / 1000 - now_unix)


def _name(limit: BudgetLimit) -> str:
    return f"{budget_of(limit.owner)} for {limit.label}"


def _after(views: Sequence[ReplicaView], decision: Decision) -> Iterator[ReplicaView]:
    """The replicas as they will be: who goes drains from now on, who comes was ordered now."""
    left = dict(decision.counts)
    for view in views:
        if view.state is ReplicaState.DRAINING:
            yield view
        elif left.get(view.pool, 0) > 0:
            left[view.pool] -= 1
            yield view
        else:
            yield replace(view, state=ReplicaState.DRAINING, since=decision.at)
    for pool, count in left.items():
        for number in range(count):
            name = f"new-{number}-{pool}"
            yield ReplicaView(name, pool, ReplicaState.STARTING, decision.at, ordered_at=decision.at)
