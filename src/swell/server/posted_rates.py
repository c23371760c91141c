"""The posted rates of a running server: which hold now, which are next, and the posting of them.

A rate is stored before anybody is told of it, and the store has one per model and beginning: so it is posted once,
whatever is restarted, and never changes. The one of the next period is posted while the present one has half of its
LEAD left, from what was known when all of it was left: requests that were admitted before have ended by then, as a
rule. Workers are told it ahead and charge it from its first millisecond on. Where no server ran at that time, the last
rate is charged until one does; so it is while the wall clock has just been set, since what is posted stays.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from swell.clock import Clock
from swell.errors import ModelUnavailable, SwellError
from swell.metering.attribution import Attribution, Line, summed
from swell.metering.capability import capability_of
from swell.metering.costs import CostQuestion, ModelCost, load_of, model_costs, span_of
from swell.metering.periods import Period, period_at, zone_of
from swell.metering.posted_rates import Facts, Offer, capacity_rates, posted
from swell.metering.reports import slices
from swell.metering.work import NO_LOAD
from swell.ports.store import Store
from swell.server.loops import Loop
from swell.server.writer import Writer
from swell.spec import ModelSpec, Spec
from swell.spec.prices import PostedPrice
from swell.state import catalogue
from swell.state.posted_rates import PostedRate
from swell.state.records import AuditEntry, UsageFilter
from swell.state.replica_runs import ReplicaRun
from swell.state.snapshot import NextRates
from swell.state.usage_groups import Bucket, GroupColumn, UsageGroup
from swell.units import usd_nanos

LEAD_SECONDS = 3600.0  # before a period begins: what is known then decides its rate; of short periods LEAD_SHARE
LEAD_SHARE = 24
POST_SECONDS = 2.0  # between two looks at the clock
JUMP_SECONDS = 60.0  # by which the wall clock may leave time behind it and not count as set
SETTLE_SECONDS = 600.0  # for which a clock that was set must go on from there, before anything is posted by it
KEPT_RATES = 16  # of each model, in memory
PRINCIPAL = "swell"  # whom the audit log names: nobody asked for it

Runs = Callable[[int | None, int | None], Awaitable[Sequence[ReplicaRun]]]
_log = logging.getLogger(__name__)


def offers_of(spec: Spec) -> dict[str, Offer]:
    """The models whose rates follow from their cost. UserError where nobody knows what a first rate could be."""
    return {model.name: _offer(model, price) for model in spec.models if (price := _terms(spec, model.name))}


def _terms(spec: Spec, model: str) -> PostedPrice | None:
    return spec.prices[model].posted if model in spec.prices else None


def _offer(model: ModelSpec, terms: PostedPrice) -> Offer:
    own = {} if terms.profiles is None else catalogue.load_profiles(Path(terms.profiles), extend=False)
    is_profiled = len(model.accelerators) == 1 and model.nodes == 1  # profiles that ship are of one machine
    accelerator = model.accelerators[0] if is_profiled else ""
    offer = Offer(
        model.name,
        terms,
        capability_of(model.name, model, accelerator, own),
        usd_nanos(model.usd_per_replica_hour or 0),
    )
    if capacity_rates(offer) is None:
        raise ModelUnavailable(
            model.name,
            f"prices.{model.name}.posted: nobody knows what a replica of {model.name} can carry, which its first "
            "rate needs; say tokens_per_second there, name the model's one accelerator in its accelerators, or a file "
            "in profiles that `swell profile` wrote",
        )
    return offer


class RateDesk:
    """Made once per server. Everything is called on the event loop; `loop` is to be run.

    `runs` tells replicas' lives in some time, `ingest` enters what workers wrote, `publish` tells workers.
    """

    def __init__(
        self,
        spec: Spec,
        store: Store,
        writer: Writer,
        clock: Clock,
        *,
        runs: Runs,
        ingest: Callable[[], Awaitable[None]],
        publish: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._offers = offers_of(spec)
        self._models = {adapter.name: model.name for model in spec.models for adapter in model.lora}
        self._store = store
        self._writer = writer
        self._clock = clock
        self._runs = runs
        self._ingest = ingest
        self._publish = publish
        self._rates: dict[str, list[PostedRate]] = {}  # by model, newest first
        self._told: object = None
        self._offset, self._set_at = self._clock_offset(), -SETTLE_SECONDS  # of the wall clock; monotonic
        self.loop = Loop("posted rates", self.step, POST_SECONDS, clock)

    async def begin(self) -> None:
        """Read what is posted, and post what is not yet. Nobody is told: workers are not connected yet."""
        for model in self._offers:
            self._rates[model] = await self._writer.call(partial(self._store.list_rates, model, KEPT_RATES))
        await self._post_due()
        self._told = self._picture()

    async def step(self, now: float = 0.0) -> None:
        """One turn: post what is due by now, and tell the workers where that, or the time, changes anything.

        Raises SwellError where a rate could not be posted, after all others were, and the workers told.
        """
        try:
            if self._is_clock_settled():
                await self._post_due()
        finally:
            picture = self._picture()
            if picture != self._told:
                self._publish()
                self._told = picture

    def rates_of(self, name: str) -> tuple[int, int]:
        """What tokens of a model or an adapter are charged at now: its fixed rates, or those that are posted."""
        price = self._spec.price_of(name)
        if price.posted is None:
            return price.rates
        now, rates = self._now_ms(), self._posted(name)
        standing = next((rate for rate in rates if rate.start_unix_ms <= now), rates[-1] if rates else None)
        return standing.rates if standing is not None else (0, 0)

    def next_rates(self, name: str) -> NextRates | None:
        """What is posted already for the next period."""
        if self._spec.price_of(name).posted is None:
            return None
        now = self._now_ms()
        ahead = [rate for rate in self._posted(name) if rate.start_unix_ms > now]
        return NextRates(ahead[-1].start_unix_ms, *ahead[-1].rates) if ahead else None

    async def listed(self, model: str | None, limit: int) -> list[PostedRate]:
        """What is posted, newest first."""
        return await self._writer.call(lambda: self._store.list_rates(model, limit))

    def _posted(self, name: str) -> list[PostedRate]:
        return self._rates.get(name if name in self._offers else self._models.get(name, ""), [])

    def _picture(self) -> object:
        return [(self.rates_of(model), self.next_rates(model)) for model in self._offers]

    def _clock_offset(self) -> float:
        return self._clock.unix() - self._clock.monotonic()

    def _is_clock_settled(self) -> bool:
        now, offset = self._clock.monotonic(), self._clock_offset()
        if abs(offset - self._offset) > JUMP_SECONDS:
            self._offset, self._set_at = offset, now
        return now - self._set_at >= SETTLE_SECONDS

    async def _post_due(self) -> None:
        failed: SwellError | None = None
        for offer in self._offers.values():
            try:
                await self._post_of(offer)
            except SwellError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def _post_of(self, offer: Offer) -> None:
        now, rates = self._now_ms(), self._rates[offer.model]
        current = next((rate for rate in rates if rate.start_unix_ms <= now < rate.end_unix_ms), None)
        if current is None:
            current = await self._post(offer, now, now)
        is_near = now >= current.end_unix_ms - _lead_ms(current.start_unix_ms, current.end_unix_ms) // 2
        if is_near and not any(rate.start_unix_ms == current.end_unix_ms for rate in self._rates[offer.model]):
            await self._post(offer, current.end_unix_ms, now)

    async def _post(self, offer: Offer, at_ms: int, now_ms: int) -> PostedRate:
        """Post the rate of the period that `at_ms` is in."""
        rates = self._rates[offer.model]
        last = next((rate for rate in rates if rate.end_unix_ms <= at_ms), None)
        period = _uncovered(offer.terms, rates, at_ms)
        facts = await self._facts(offer, period, last, now_ms)
        rate = posted(offer, period, facts, last, now_ms)
        audit = AuditEntry(
            at_unix=now_ms / 1000,
            principal=PRINCIPAL,
            action="prices.post",
            subject=offer.model,
            detail={
                "period": rate.label, "start_unix_ms": rate.start_unix_ms, "prompt_rate": rate.prompt_rate,
                "completion_rate": rate.completion_rate, "basis": rate.basis, "reason": rate.reason,
            },
        )  # fmt: skip
        rate = await self._writer.call(lambda: self._store.post_rate(rate, audit))
        _log.info("a rate was posted", extra={"model": rate.model})
        found = [rate, *(each for each in rates if each.start_unix_ms != rate.start_unix_ms)]
        found.sort(key=lambda each: -each.start_unix_ms)
        self._rates[offer.model] = found[:KEPT_RATES]
        return rate

    async def _facts(self, offer: Offer, period: Period, last: PostedRate | None, now_ms: int) -> Facts:
        """What the rate of `period` goes by: what the last one does not count, else the period before."""
        start = round(period.start_unix * 1000)
        if last is not None and last.end_unix_ms == start:
            since = last.counted_until_unix_ms
            until = start if now_ms >= start else start - _lead_ms(last.start_unix_ms, last.end_unix_ms)
        else:
            before = period_at(offer.terms.period.value, zone_of(offer.terms.time_zone), max(0.0, start / 1000 - 1))
            since, until = round(before.start_unix * 1000), start
        until = max(since, until)
        await self._ingest()
        runs = [run for run in await self._runs(since, until) if run.model == offer.model]
        if last is None or last.end_unix_ms != start:  # what ran before it had a price says nothing
            priced = [run.started_unix_ms for run in runs if run.usd_nanos_per_hour]
            since = min(until, max(since, min(priced, default=until)))
        found = await self._attributed(offer, runs, since, until)
        return Facts(since, until, found)

    async def _attributed(self, offer: Offer, runs: Sequence[ReplicaRun], since_ms: int, until_ms: int) -> Attribution:
        """Day by day, so that no read of the ledger keeps the store from others for longer."""
        if not runs:  # nothing was paid for; who was charged meanwhile waited for a replica that came after it
            where = UsageFilter(since_unix_ms=since_ms, until_unix_ms=until_ms)
            groups = await self._writer.call(lambda: self._ask(where, (), None))
            loads = [load_of(each) for each in groups if self._models.get(each.model or "", each.model) == offer.model]
            return Attribution(used={("", ""): Line(load=sum(loads, NO_LOAD))})
        zone = zone_of(offer.terms.time_zone)
        span = span_of(runs, await self._writer.call(self._store.usage_span))
        found: list[ModelCost] = []
        for day in slices(Period(since_ms / 1000, until_ms / 1000, ""), zone, span):
            question = CostQuestion(
                runs,
                Period(day.start_unix_ms / 1000, day.end_unix_ms / 1000, day.label),
                zone,
                lambda model: offer.capability,
                lambda name: self._models.get(name, name),
            )
            found += await self._writer.call(partial(model_costs, self._ask, question, span))
        return summed(cost.attribution for cost in found)

    def _ask(self, where: UsageFilter, by: Sequence[GroupColumn], bucket: Bucket | None) -> list[UsageGroup]:
        """By model alone: who it was does not matter, and there may be many."""
        return self._store.group_usage(where, ("model",), bucket)

    def _now_ms(self) -> int:
        return int(self._clock.unix() * 1000)


def _uncovered(terms: PostedPrice, rates: Sequence[PostedRate], at_ms: int) -> Period:
    """What of the calendar's period around `at_ms` no rate stands in, as far as it is one stretch with it."""
    period = period_at(terms.period.value, zone_of(terms.time_zone), at_ms / 1000)
    ended = [rate.end_unix_ms / 1000 for rate in rates if rate.end_unix_ms <= at_ms]
    begun = [rate.start_unix_ms / 1000 for rate in rates if rate.start_unix_ms > at_ms]
    start = max(period.start_unix, *ended, 0.0)
    return Period(start, min(period.end_unix or start, *begun, float("inf")), period.label)


def _lead_ms(start_ms: int, end_ms: int) -> int:
    return min(int(LEAD_SECONDS * 1000), (end_ms - start_ms) // LEAD_SHARE)
