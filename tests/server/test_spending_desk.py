"""Infrastructure budgets of a server: shared among models, over restarts, and what people are told."""

from collections.abc import AsyncIterator
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as with_changes

from swell.clock import ManualClock
from swell.policy.scaling.diff import Drain, Start, actions
from swell.policy.scaling.spending import most_affordable
from swell.server.alerts import AlertDesk
from swell.server.spending import LEFTOVER_SECONDS, SpendingDesk, stored_rows
from swell.server.writer import Writer
from swell.spec import parse_spec
from swell.state.funding import Funding
from swell.state.replica_runs import ReplicaRun
from swell.state.scaling import Decision, ReplicaState, ReplicaView
from swell.testing.memory_store import MemoryStore
from swell.units import NANOS_PER_USD, usd_nanos

START = 1_700_000_000.0 - 1_700_000_000.0 % 86_400 + 10 * 3600  # ten o'clock
DRAIN, TURN, START_SECONDS = 120.0, 65.0, 5.0
FILE = """
organisation: {{infrastructure_budget: {organisation}}}
models:
  - {{name: chat, source: a.gguf, replicas: "1..9", usd_per_replica_hour: 2, infrastructure_budget: {chat}}}
  - {{name: code, source: b.gguf, replicas: "0..9", usd_per_replica_hour: 5, minimum_billed_seconds: {minimum}}}
  - {{name: far, endpoints: ["http://127.0.0.1:9101"]}}
"""


class Site:
    """Replicas of two models that follow their decisions, with their lives noted and stored."""

    def __init__(self, writer: Writer, organisation: str = "100 / day", chat: str = "[]", minimum: float = 0.0) -> None:
        text = FILE.format(organisation=organisation, chat=chat, minimum=minimum)
        self.spec = parse_spec(text, origin="swell.yaml")
        self.clock, self.store, self.writer = ManualClock(START), MemoryStore(), writer
        self.views: dict[str, list[ReplicaView]] = {"chat": [], "code": []}
        self.runs: dict[str, ReplicaRun] = {}
        self.ends: dict[str, float] = {}

    async def begin(self) -> SpendingDesk:
        self.desk = SpendingDesk(self.spec, self.store, self.writer, self.clock)
        await self.desk.begin()
        return self.desk

    def price(self, model: str) -> int:
        price = next(each.usd_per_replica_hour for each in self.spec.models if each.name == model)
        return usd_nanos(price or Decimal(0))

    def funding(self, model: str) -> Funding:
        now = self.clock.monotonic()
        prices, starts = {"process": self.price(model)}, {"process": START_SECONDS}
        found = self.desk.funding(model, prices, self.views[model], now, DRAIN, TURN, starts)
        assert found is not None
        return found

    def turn(self, model: str, wanted: int, dice: Random | None = None, said: int | None = None) -> int:
        """A decision as the policy makes it, and its replicas at once."""
        now, funding = self.clock.monotonic(), self.funding(model)
        count = most_affordable(funding, "process", self.views[model], now, START_SECONDS, wanted)
        claims = () if said is None else tuple((fund.name, said * NANOS_PER_USD) for fund in funding.funds)
        decision = Decision(now, (("process", count),), "", "budget" if count < wanted else "forecast", wanted=claims)
        self.desk.decided(model, decision)
        for action in actions(decision, self.views[model], {}):
            if isinstance(action, Start):
                for _ in range(action.count):
                    self._start(model, now)
            elif isinstance(action, Drain):
                self._drain(model, action.replica_id, now, dice.uniform(0, DRAIN) if dice else DRAIN)
        return count

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        now, ms = self.clock.monotonic(), int(self.clock.unix() * 1000)
        for model, views in self.views.items():
            for view in list(views):
                if self.ends.get(view.replica_id, now + 1) <= now:
                    late = int((now - self.ends[view.replica_id]) * 1000)
                    self._put(self.runs[view.replica_id], ended_unix_ms=ms - late, seen_unix_ms=ms - late)
                    self.views[model].remove(view)

    def _start(self, model: str, now: float) -> None:
        name = f"{model}-{len(self.runs)}"
        ms = int(self.clock.unix() * 1000)
        price = {"chat": 2, "code": 5}[model] * NANOS_PER_USD
        run = ReplicaRun(
            replica_id=name, model=model, provider="process", market="own", accelerator="",
            usd_nanos_per_hour=price, started_unix_ms=ms, seen_unix_ms=ms,
        )  # fmt: skip
        self._put(run)
        self.views[model].append(ReplicaView(name, "process", ReplicaState.READY, now, ordered_at=now))

    def _drain(self, model: str, name: str, now: float, seconds: float) -> None:
        self.ends[name] = now + seconds
        self.views[model] = [
            ReplicaView(name, "process", ReplicaState.DRAINING, now, ordered_at=v.ordered_at)
            if v.replica_id == name
            else v
            for v in self.views[model]
        ]

    def _put(self, run: ReplicaRun, **changes: object) -> None:
        run = with_changes(run, **changes)
        self.runs[run.replica_id] = run
        self.store.put_runs([run])
        self.desk.note(run)

    @property
    def spent(self) -> int:
        return self.desk.rows()[0]["spent_usd_nanos"]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    writer = Writer()
    yield Site(writer)
    writer.close()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 300), st.sampled_from([0.0, 60.0, 900.0]))
async def test_models_together_never_spend_more_than_the_organisation_has(
    seed: int, dollars: int, minimum: float
) -> None:
    writer, dice = Writer(), Random(seed)
    site = Site(writer, organisation=f"[{dollars} / day, {dollars} / hour]", chat="20 / day", minimum=minimum)
    await site.begin()
    highest: dict[tuple[object, ...], int] = {}
    for _ in range(150):
        for model in dice.sample(["chat", "code"], 2):
            site.turn(model, dice.choice([0, 1, 9]), dice)
            site.pass_time(dice.uniform(0, 32))
        for row in site.desk.rows():
            assert row["spent_usd_nanos"] <= row["cap_usd_nanos"]
            key = (row["owner"], row["period"])
            highest[key] = max(highest.get(key, 0), row["spent_usd_nanos"])
        if dice.random() < 0.02:
            await site.begin()
    assert max(highest.values()) > 0 or dollars < 5
    writer.close()


async def test_a_restarted_server_knows_what_was_spent(site: Site) -> None:
    await site.begin()
    assert site.turn("code", 3) == 3
    site.pass_time(3600)
    site.turn("code", 1)
    site.pass_time(3600)
    before = site.spent
    assert before == pytest.approx((5 * 3 + 5) * NANOS_PER_USD, rel=0.03)
    await site.begin()
    assert site.spent == before
    assert stored_rows(site.spec, site.store.list_runs, site.clock.unix())[0]["spent_usd_nanos"] <= before


async def test_what_a_restarted_server_has_not_decided_about_may_take_its_whole_drain(site: Site) -> None:
    await site.begin()
    alone = site.funding("chat").funds[0].left_usd_nanos
    site.turn("code", 1)
    for drain, seconds in ((30, LEFTOVER_SECONDS), (7200, 7200)):
        text = FILE.replace(
            "usd_per_replica_hour: 5", f"usd_per_replica_hour: 5, scaling: {{{{drain_seconds: {drain}}}}}"
        )
        text = text.format(organisation="100 / day", chat="[]", minimum=0)
        site.spec = parse_spec(text, origin="swell.yaml")
        await site.begin()
        held = alone - site.funding("chat").funds[0].left_usd_nanos
        assert held >= 5 * NANOS_PER_USD * int(seconds) // 3600
        assert held < 5 * NANOS_PER_USD * int(seconds + 100) // 3600


async def test_what_one_model_has_running_is_not_left_for_the_other(site: Site) -> None:
    await site.begin()
    alone = site.funding("chat").funds[0].left_usd_nanos
    site.turn("code", 4)
    [fund] = site.funding("chat").funds
    assert alone - fund.left_usd_nanos == 4 * (5 * NANOS_PER_USD * int(DRAIN + TURN) // 3600 + 1)
    assert fund.name == "the organisation's infrastructure budget for 2023-11-14"


async def test_shares_pay_floors_first_and_then_follow_what_each_wants(site: Site) -> None:
    await site.begin()
    for model, wants in (("chat", 60), ("code", 120)):
        site.turn(model, 1, said=wants)
    chat, code = (site.funding(model).funds[0].share_usd_nanos / NANOS_PER_USD for model in ("chat", "code"))
    floor = 2 * 14  # one replica of chat for the fourteen hours left
    assert chat == pytest.approx(floor + (100 - floor) * (60 - floor) / (60 - floor + 120), abs=0.01)
    assert chat + code == pytest.approx(100, abs=0.01)


async def test_nothing_bounds_who_has_no_budget_or_runs_elsewhere(site: Site) -> None:
    site.spec = parse_spec(FILE.format(organisation="[]", chat="5 / day", minimum=0), origin="swell.yaml")
    desk = await site.begin()
    assert [desk.bounds(model) for model in ("chat", "code", "far")] == [True, False, False]
    assert desk.funding("code", {"process": 5 * NANOS_PER_USD}, (), 0.0, DRAIN, TURN) is None


async def test_rows_tell_when_money_runs_out_and_what_is_given_up(site: Site) -> None:
    await site.begin()
    site.turn("code", 4, said=280)
    site.pass_time(3600)
    [row] = site.desk.rows()
    assert (row["scope"], row["owner"], row["period"], row["cap_usd"]) == (
        "infrastructure",
        "",
        "2023-11-14",
        "100.000000000",
    )
    assert row["rate_usd_nanos"] == 20 * NANOS_PER_USD
    assert row["runs_out_unix"] == pytest.approx(site.clock.unix() + 4 * 3600, abs=5)
    assert row["wanted_usd_nanos"] == 280 * NANOS_PER_USD
    assert row["ceiling_usd_nanos"] is None, "nobody was refused anything"
    site.pass_time(3.98 * 3600)
    site.turn("code", 4)
    [row] = site.desk.rows()
    assert row["ceiling_usd_nanos"] == 0


async def test_thresholds_of_infrastructure_budgets_alert_once(site: Site) -> None:
    desk, said = await site.begin(), []
    alerts = AlertDesk(
        site.spec, site.store, site.writer, site.clock,
        standings=desk.standings, say=said.append, infrastructure_hours=desk.hours,
    )  # fmt: skip
    await alerts.begin()
    site.turn("code", 2)
    for _ in range(7):
        site.pass_time(3600)
        site.turn("code", 2)
        await alerts.watch(site.clock.monotonic())
        await alerts.watch(site.clock.monotonic())
    rows = await alerts.rows(10)
    assert [row["title"] for row in rows][-1] == "Replicas of all models have spent 50% of their budget of 2023-11-14"
    assert len({row["title"] for row in rows}) == len(rows)
    assert "swell status --why" in rows[-1]["text"]
    assert len(said) == len(rows)
    await alerts.close()


async def test_a_minimum_that_is_billed_is_held_for_a_new_replica_and_counted_when_it_ended(site: Site) -> None:
    text = FILE.format(organisation="100 / day", chat="[]", minimum=3600)
    site.spec = parse_spec(text, origin="swell.yaml")
    await site.begin()
    alone = site.funding("chat").funds[0].left_usd_nanos
    assert site.turn("code", 50) == 20, "an hour each is what $100 pay for"
    assert alone - site.funding("chat").funds[0].left_usd_nanos >= 99 * NANOS_PER_USD
    site.turn("code", 0)
    site.pass_time(DRAIN + 1)
    assert site.views["code"] == []
    assert site.spent == 100 * NANOS_PER_USD
    await site.begin()
    assert site.spent == 100 * NANOS_PER_USD, "a restarted server counts it as well"
    assert stored_rows(site.spec, site.store.list_runs, site.clock.unix())[0]["spent_usd_nanos"] == site.spent


async def test_what_a_restarted_server_has_not_decided_about_may_have_a_minimum_to_come(site: Site) -> None:
    site.spec = parse_spec(FILE.format(organisation="100 / day", chat="[]", minimum=3600), origin="swell.yaml")
    await site.begin()
    alone = site.funding("chat").funds[0].left_usd_nanos
    site.turn("code", 1)
    await site.begin()
    assert alone - site.funding("chat").funds[0].left_usd_nanos == pytest.approx(5 * NANOS_PER_USD, rel=0.001)
