"""Rates of a running server: posted once, ahead of their period, over restarts, and told to workers in time."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from swell.clock import ManualClock
from swell.errors import StateError, UserError
from swell.gateway.rates import Rates
from swell.server.posted_rates import PRINCIPAL, SETTLE_SECONDS, RateDesk, offers_of
from swell.server.publish import Served, picture_of
from swell.server.writer import Writer
from swell.spec import parse_spec
from swell.state.posted_rates import PostedRate
from swell.state.records import SpoolPosition
from swell.state.replica_runs import ReplicaRun
from swell.state.snapshot import NextRates
from swell.testing.memory_store import MemoryStore
from swell.testing.run_suite import replica_run
from swell.testing.store_suite import usage_change

DOLLAR = 10**9
HOUR_MS = 3_600_000
SPEC = """
models:
  - {{name: chat, source: hf://org/chat, usd_per_replica_hour: 1, lora: {{tuned: /adapters/tuned}}}}
  - {{name: fixed, source: b.gguf, usd_per_replica_hour: 1}}
prices:
  chat: {price}
  fixed: {{input: 0.15, output: 0.60}}
"""
DAILY = "{posted: {period: day, tokens_per_second: 100, utilisation: 1}}"
FIRST = (694_444_445, 2_777_777_778)  # a dollar over 360,000 completion tokens


def unix_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


@dataclass
class RateWorld:
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=lambda: ManualClock(unix_ms("2026-11-29T12:00:00+00:00") / 1000))
    writer: Writer = field(default_factory=Writer)
    published: int = 0
    ingested: int = 0

    async def server(self, price: str = DAILY, text: str = SPEC) -> RateDesk:
        """A server begins; what an earlier one had in mind is gone."""
        desk = RateDesk(
            parse_spec(text.format(price=price), origin="swell.yaml"), self.store, self.writer, self.clock,
            runs=self._runs, ingest=self._ingest, publish=self._publish,
        )  # fmt: skip
        await desk.begin()
        return desk

    async def _runs(self, since: int | None, until: int | None) -> list[ReplicaRun]:
        return self.store.list_runs(since, until)

    async def _ingest(self) -> None:
        self.ingested += 1

    def _publish(self) -> None:
        self.published += 1

    def at(self, text: str) -> None:
        self.clock.advance(unix_ms(text) / 1000 - self.clock.unix())

    def is_set_to(self, text: str) -> None:
        """The wall clock, by somebody, while no time passes."""
        self.clock.jump_unix(unix_ms(text) / 1000 - self.clock.unix())

    def ran(self, begun: str, ended: str, hourly: int = DOLLAR) -> None:
        start, end = unix_ms(begun), unix_ms(ended)
        self.store.put_runs([
            replica_run(begun, started_unix_ms=start, ready_unix_ms=start, ended_unix_ms=end, seen_unix_ms=end,
                        accelerator="", usd_nanos_per_hour=hourly)
        ])  # fmt: skip

    def asked(self, at: str, tokens: int, charge: int = 0, model: str = "chat") -> None:
        change = usage_change(
            f"{model}-{at}", "pair", reserved_at_unix_ms=unix_ms(at), model=model, prompt_tokens=tokens,
            completion_tokens=0, charge_usd_nanos=charge,
        )  # fmt: skip
        self.store.apply_usage([change], SpoolPosition("w1", 1, 1))

    def rates(self) -> list[PostedRate]:
        return self.store.list_rates(None, 100)[::-1]


@pytest.fixture
async def world() -> AsyncIterator[RateWorld]:
    made = RateWorld()
    yield made
    made.writer.close()


async def test_the_first_rate_holds_at_once_and_stays_over_restarts(world: RateWorld) -> None:
    desk = await world.server()
    [rate] = world.rates()
    assert (rate.model, rate.label, rate.basis) == ("chat", "2026-11-29", "capacity")
    assert desk.rates_of("chat") == desk.rates_of("tuned") == rate.rates == pytest.approx(FIRST, rel=1e-8)
    assert desk.rates_of("fixed") == (150_000_000, 600_000_000)
    assert desk.next_rates("chat") is None
    again = await world.server("{posted: {period: day, tokens_per_second: 7, markup_percent: 50}}")
    assert again.rates_of("chat") == rate.rates, "posted for the day, whatever the file says by now"
    assert world.rates() == [rate]
    [entry] = world.store.list_audit(10)
    assert (entry.principal, entry.action, entry.subject) == (PRINCIPAL, "prices.post", "chat")
    assert entry.detail["prompt_rate"] == rate.prompt_rate


async def test_the_next_rate_is_posted_ahead_once_and_follows_from_cost(world: RateWorld) -> None:
    desk = await world.server()
    world.ran("2026-11-29T12:00:00+00:00", "2026-11-30T00:00:00+00:00")
    world.asked("2026-11-29T13:00:00+00:00", 1_000_000, 5 * DOLLAR)
    world.asked("2026-11-29T14:00:00+00:00", 1_000_000, 5 * DOLLAR, model="tuned")
    world.asked("2026-11-29T14:00:00+00:00", 9_000_000, 7 * DOLLAR, model="fixed")
    world.at("2026-11-29T23:29:59+00:00")
    await desk.step()
    assert len(world.rates()) == 1
    assert world.published == 0
    world.at("2026-11-29T23:30:00+00:00")
    await desk.step()
    await desk.step()
    _, rate = world.rates()
    assert (rate.label, rate.cost_usd_nanos, rate.requests) == ("2026-11-30", 11 * DOLLAR, 2), "until an hour before"
    assert (rate.missed_usd_nanos, rate.carried_usd_nanos) == (DOLLAR, 458_333_334), "half a day's, over a day"
    assert rate.prompt_rate == -(-(11 * DOLLAR + 458_333_334) // 2)
    assert world.published == 1
    assert world.ingested == 2
    assert desk.next_rates("tuned") == NextRates(rate.start_unix_ms, *rate.rates)
    assert desk.next_rates("fixed") is None
    world.at("2026-11-30T00:00:00+00:00")
    assert desk.rates_of("chat") == rate.rates
    await desk.step()
    assert world.published == 2
    assert desk.next_rates("chat") is None
    assert len(world.rates()) == 2


async def test_every_moment_is_counted_in_one_rate(world: RateWorld) -> None:
    """The hour that a rate does not know yet is in the next one, also where a server began late."""
    desk = await world.server()
    world.ran("2026-11-29T12:00:00+00:00", "2026-12-04T00:00:00+00:00")
    for day in ("2026-11-29T23:40:00+00:00", "2026-11-30T23:40:00+00:00"):
        world.asked(day.replace("23:40", "23:10"), 1000, 1)
        world.at(day)
        await desk.step()
    world.at("2026-12-02T05:00:00+00:00")
    desk = await world.server()
    rates = world.rates()
    assert [rate.label for rate in rates] == ["2026-11-29", "2026-11-30", "2026-12-01", "2026-12-02"]
    assert [rate.since_unix_ms for rate in rates[1:]] == [rate.counted_until_unix_ms for rate in rates[:-1]]
    assert rates[-1].until_unix_ms == rates[-1].start_unix_ms, "posted late, and of all that was before"
    assert sum(rate.cost_usd_nanos for rate in rates) == 60 * DOLLAR
    assert rates[-1].missed_usd_nanos == 60 * DOLLAR - sum(rate.charge_usd_nanos for rate in rates)
    assert [rate.requests for rate in rates] == [0, 0, 1, 1]
    assert rates[1].basis == "last"


async def test_without_a_server_the_last_rate_is_charged_and_a_gap_carries_nothing(world: RateWorld) -> None:
    await world.server()
    world.ran("2026-12-03T00:00:00+00:00", "2026-12-04T00:00:00+00:00")
    world.asked("2026-12-03T14:00:00+00:00", 1_000_000, 99 * DOLLAR)
    world.at("2026-12-04T05:00:00+00:00")
    desk = await world.server()
    first, rate = world.rates()
    assert (rate.label, rate.cost_usd_nanos, rate.missed_usd_nanos) == ("2026-12-04", 24 * DOLLAR, 0)
    assert desk.rates_of("chat") == rate.rates == (24 * DOLLAR, first.completion_rate)


async def test_what_ran_before_it_had_a_price_does_not_make_tokens_cheap(world: RateWorld) -> None:
    world.ran("2026-11-28T00:00:00+00:00", "2026-11-28T20:00:00+00:00", hourly=0)
    world.ran("2026-11-28T20:00:00+00:00", "2026-11-29T00:00:00+00:00")
    world.asked("2026-11-28T02:00:00+00:00", 100_000_000)
    world.asked("2026-11-28T22:00:00+00:00", 1_000_000)
    desk = await world.server()
    assert desk.rates_of("chat")[0] == 4 * DOLLAR


async def test_fixed_beats_posted_at_once_and_a_changed_period_begins_when_the_old_one_ends(world: RateWorld) -> None:
    desk = await world.server("{posted: {period: month, tokens_per_second: 100}}")
    fixed = await world.server("{input: 1, output: 2}")
    assert (fixed.rates_of("chat"), fixed.next_rates("chat")) == ((DOLLAR, 2 * DOLLAR), None)
    desk = await world.server("{posted: {period: week, tokens_per_second: 100}}")
    assert len(world.rates()) == 1
    world.at("2026-11-30T23:45:00+00:00")
    await desk.step()
    month, week = world.rates()
    assert (month.label, week.label) == ("2026-11", "2026-W49")
    assert week.start_unix_ms == month.end_unix_ms == unix_ms("2026-12-01T00:00:00+00:00")
    assert week.end_unix_ms == unix_ms("2026-12-07T00:00:00+00:00")


@pytest.mark.parametrize("wrong", ["2026-11-28T12:00:00+00:00", "2026-12-08T12:00:00+00:00"])
async def test_nothing_is_posted_for_a_time_that_a_clock_shows_for_a_moment(world: RateWorld, wrong: str) -> None:
    """What is posted stays, so that a rate for a day far ahead would cut off what leads to it."""
    desk = await world.server()
    first = desk.rates_of("chat")
    world.is_set_to(wrong)
    await desk.step()
    assert desk.rates_of("chat") == first
    world.is_set_to("2026-11-29T12:00:00+00:00")
    await desk.step()
    assert [rate.label for rate in world.rates()] == ["2026-11-29"]
    world.at("2026-11-29T23:45:00+00:00")
    await desk.step()
    assert [rate.label for rate in world.rates()] == ["2026-11-29", "2026-11-30"]


async def test_a_clock_that_stays_where_it_was_set_is_believed(world: RateWorld) -> None:
    desk = await world.server()
    world.is_set_to("2026-12-08T12:00:00+00:00")
    await desk.step()
    world.clock.advance(SETTLE_SECONDS)
    await desk.step()
    assert [rate.label for rate in world.rates()] == ["2026-11-29", "2026-12-08"]


async def test_a_rate_of_a_far_day_does_not_keep_the_next_one_from_being_posted_ahead(world: RateWorld) -> None:
    desk = await world.server()
    world.is_set_to("2026-12-08T12:00:00+00:00")
    await world.server()  # begun while the clock was wrong: it cannot know
    world.is_set_to("2026-11-29T12:00:00+00:00")
    desk = await world.server()
    world.at("2026-11-29T23:45:00+00:00")
    await desk.step()
    assert [rate.label for rate in world.rates()] == ["2026-11-29", "2026-11-30", "2026-12-08"]
    assert desk.next_rates("chat") == NextRates(world.rates()[1].start_unix_ms, *world.rates()[1].rates)


async def test_charges_of_a_time_without_replicas_are_not_lost(world: RateWorld) -> None:
    """A request is admitted a moment before the replica that it starts is seen."""
    desk = await world.server()
    world.asked("2026-11-29T22:59:59+00:00", 1000, 7)
    world.at("2026-11-29T23:45:00+00:00")
    await desk.step()
    rate = world.rates()[-1]
    assert (rate.requests, rate.charge_usd_nanos, rate.missed_usd_nanos) == (1, 7, -7)
    assert rate.basis == "last"


async def test_a_model_whose_rate_cannot_be_posted_keeps_no_other_from_its_own(world: RateWorld) -> None:
    text = SPEC.replace("  fixed: {{input: 0.15, output: 0.60}}", "  fixed: {price}")
    desk = await world.server(DAILY, text)
    world.at("2026-11-29T23:45:00+00:00")
    world.store.fail_next(None, None, StateError("the disk is full"))
    with pytest.raises(StateError):
        await desk.step()
    assert (desk.next_rates("chat"), desk.next_rates("fixed") is not None) == (None, True)
    assert world.published == 1


async def test_a_rate_that_cannot_be_stored_is_told_to_nobody_and_tried_again(world: RateWorld) -> None:
    desk = await world.server()
    world.at("2026-11-29T23:45:00+00:00")
    world.store.fail_next(None, None, StateError("the disk is full"))
    with pytest.raises(StateError):
        await desk.step()
    assert desk.next_rates("chat") is None
    assert world.published == 0
    await desk.step()
    assert desk.next_rates("chat") is not None


async def test_workers_charge_the_next_rate_from_its_first_millisecond_on(world: RateWorld) -> None:
    desk = await world.server()
    world.ran("2026-11-29T12:00:00+00:00", "2026-11-30T00:00:00+00:00")
    world.asked("2026-11-29T13:00:00+00:00", 1_000_000)
    world.at("2026-11-29T23:45:00+00:00")
    await desk.step()
    old, new = (rate.rates for rate in world.rates())
    spec = parse_spec(SPEC.format(price=DAILY), origin="swell.yaml")
    picture = picture_of(
        [Served(model, ()) for model in spec.models], (), [], [], workers=1, created_unix=0,
        now_unix=world.clock.unix(), price_of=desk.rates_of, next_rates=desk.next_rates,
    )  # fmt: skip
    [chat, tuned, fixed] = picture.models
    midnight = unix_ms("2026-11-30T00:00:00+00:00")
    for entry in (chat, tuned):
        assert Rates.of(entry, lambda: midnight - 1) == (midnight - 1, old)
        assert Rates.of(entry, lambda: midnight) == (midnight, new)
    assert Rates.of(fixed, lambda: midnight) == (0, (150_000_000, 600_000_000))


def test_what_nobody_could_work_out_is_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"prices\.chat\.posted: nobody knows .*tokens_per_second"):
        offers_of(parse_spec(SPEC.format(price="posted"), origin="swell.yaml"))
    known = SPEC.replace("hf://org/chat,", "hf://meta-llama/Llama-3.1-8B-Instruct, accelerators: [L4],")
    [offer] = offers_of(parse_spec(known.format(price="posted"), origin="swell.yaml")).values()
    assert offer.capability.profile is not None
