"""Which models no replica will serve before a budget begins anew, and which budgets never pay for one."""

import dataclasses
from collections.abc import AsyncIterator
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_picture import MODELS, SPEC, replica
from test_spending_desk import DRAIN, START_SECONDS, TURN, Site

from swell.policy.scaling.spending import affords_one, cost_of_one
from swell.server.publish import picture_of
from swell.server.unserved import ending
from swell.server.writer import Writer
from swell.state.funding import Fund, Funding, Tariff
from swell.state.replica import Phase
from swell.state.snapshot import Unserved
from swell.units import NANOS_PER_USD

ONE_OF_CHAT = 2 * NANOS_PER_USD * int(DRAIN + TURN + START_SECONDS) // 3600 + 1


@pytest.fixture
async def writer() -> AsyncIterator[Writer]:
    writer = Writer()
    yield writer
    writer.close()


async def test_a_budget_that_pays_for_no_replica_is_named_and_said_beforehand(writer: Writer) -> None:
    site = Site(writer, chat="0.05 / hour")
    desk = await site.begin()
    assert site.turn("chat", 0) == 0
    assert [row["ceiling_usd_nanos"] for row in desk.rows() if row["owner"] == "chat"] == [0], "also if nobody asks"
    assert site.turn("chat", 1) == 0
    assert site.turn("code", 0) == 0
    found = desk.unserved("chat")
    assert found is not None
    assert found.limit is not None
    assert (found.limit.owner, found.limit.cap_usd_nanos) == ("chat", NANOS_PER_USD // 20)
    assert found.need_usd_nanos == ONE_OF_CHAT
    assert desk.unserved("code") is None
    [sentence] = desk.too_small()
    assert sentence.startswith(
        "the infrastructure budget of chat is $0.05 an hour, less than the $0.11 that one replica"
    )


async def test_a_look_tells_what_changed_since_the_last(writer: Writer) -> None:
    site = Site(writer, chat="0.05 / hour")
    desk = await site.begin()
    site.turn("chat", 1)
    assert [desk.look(), desk.look()] == [True, False]
    site.pass_time(3600)
    assert [desk.look(), desk.look()] == [True, False], "another period, to be told"


async def test_spent_money_is_missed_when_the_last_replica_goes_and_until_the_budget_begins_anew(
    writer: Writer,
) -> None:
    site = Site(writer, chat="1 / hour")
    desk = await site.begin()
    counts = []
    for _ in range(110):
        counts.append(site.turn("chat", 1))
        assert (desk.unserved("chat") is not None) == (counts[-1] == 0)
        site.pass_time(30)
    assert counts[0] == 1
    assert counts[-1] == 0
    assert counts == sorted(counts, reverse=True), "once gone, none comes before the hour is over"
    site.pass_time(300)
    assert site.turn("chat", 1) == 1
    assert desk.unserved("chat") is None


async def test_what_others_have_bound_may_come_back_and_refuses_nobody(writer: Writer) -> None:
    site = Site(writer, organisation="1.9 / hour")
    desk = await site.begin()
    assert site.turn("code", 9) == 7
    assert site.turn("chat", 1) == 0
    assert desk.unserved("chat") is None


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 60))
async def test_who_is_refused_could_never_have_been_given_a_replica_then(seed: int, quarters: int) -> None:
    writer, dice = Writer(), Random(seed)
    site = Site(writer, organisation=f"[{quarters / 4} / hour, 200 / day]", chat="1.5 / hour")
    desk = await site.begin()
    refused = 0
    for _ in range(120):
        for model in dice.sample(["chat", "code"], 2):
            is_refused = desk.unserved(model) is not None
            count = site.turn(model, dice.choice([0, 1, 1, 4]), dice)
            if is_refused:
                refused += 1
                assert count == 0
            site.pass_time(dice.uniform(0, 32))
    assert refused or quarters > 2
    writer.close()


@given(
    st.lists(st.integers(1, 10**11), min_size=1, max_size=3), st.integers(0, 10**12), st.integers(0, 10**12),
    st.floats(0, 10_000),
)  # fmt: skip
def test_a_budget_that_never_pays_for_one_does_not_pay_inside_a_period(
    prices: list[int], left: int, after: int, ends_in: float
) -> None:
    tariff = Tariff(tuple((f"p{index}", price) for index, price in enumerate(prices)), DRAIN, TURN)
    starts = {name: START_SECONDS for name, _ in tariff.prices}
    fund = Fund("", left, left, after, left, ends_in)
    affords = affords_one(Funding((fund,), tariff), starts)
    need = cost_of_one(tariff, starts)
    if ends_in > DRAIN + TURN + START_SECONDS:
        assert not affords or left >= need - 1
        assert affords or left < need * 1.04 + 2
    elif affords:
        assert left + after >= need - 2


def test_a_server_that_stops_promises_only_who_is_about_to_serve() -> None:
    for phase in Phase:
        one = [replica("chat", phase, None)]
        assert (ending(one, "chat") is None) == (phase in (Phase.PENDING, Phase.STARTING, Phase.READY))
        assert ending(one, "other") == Unserved()
    assert ending([], "chat") == Unserved()
    far = dataclasses.replace(replica("chat", Phase.PENDING, None), waiting="its place does not answer")
    assert ending([far], "chat") == Unserved(), "it cannot begin"
    assert ending([far, replica("chat", Phase.STARTING, None)], "chat") is None


def test_workers_are_told_of_a_model_and_its_adapters() -> None:
    told = picture_of(
        MODELS, SPEC.tenants, (), (), workers=1, created_unix=1, now_unix=1.0,
        unserved=lambda model: Unserved(None, 7) if model == "chat" else None,
    )  # fmt: skip
    assert {entry.name: entry.unserved for entry in told.models} == {
        "chat": Unserved(None, 7),
        "tuned": Unserved(None, 7),
        "far": None,
    }
