"""Steps of budgets on a server: what workers are told, as limits and raises and windows come and go."""

from alert_world import HOUR, AlertWorld
from msgspec.structs import replace

from swell.server.budget_rows import budget_rows, ledger_rows
from swell.server.overrides import NewOverride, Overrides
from swell.server.publish import Picture, change, limits_of
from swell.state.budgets import KeyBudget
from swell.state.messages import encode_message
from swell.state.records import KeyRecord
from swell.state.snapshot import Limits
from swell.testing.store_suite import audit_entry, key_record
from swell.units import NANOS_PER_USD

LADDER = "{usd: 10, period: day, at_limit: [shed_batch, cheaper_variant, throttle], throttle_requests_per_minute: 7}"


async def test_workers_are_told_what_holds_until_the_period_ends() -> None:
    async with AlertWorld(budget=LADDER.replace("cheaper_variant, ", "")) as world:
        desk = world.budgets
        assert not desk.look()
        world.spend(890)
        assert not desk.look()
        world.spend(10)
        assert desk.look()
        (curb,) = desk.stages.curbs
        assert (curb.steps, curb.requests_per_minute, curb.limit) == (("shed_batch",), 0, world.limit)
        assert curb.resets_unix_ms == world.limit.end_unix_ms
        assert not desk.look()
        world.spend(90)
        assert desk.look()
        (curb,) = desk.stages.curbs
        assert (curb.steps, curb.requests_per_minute) == (("shed_batch", "throttle"), 7)
        assert limits_of(Picture(curbs=desk.stages.curbs)) == {
            "throttle:budget:tenant:search:*:day:UTC:requests_per_minute": 7
        }
        world.spend(10)
        assert not desk.look()  # that it blocks is for people: workers find out by themselves
        (standing, _) = desk.standings()
        assert desk.stages.holding(standing) == ("shed_batch", "throttle", "block")
        world.clock.advance(14 * HOUR)
        await desk.refresh()
        assert desk.look()
        assert desk.stages.curbs == ()


async def test_a_raise_ends_steps_and_its_end_begins_them_again() -> None:
    async with AlertWorld(budget="{usd: 10, period: day, at_limit: [shed_batch]}") as world:
        world.spend(950)
        assert world.budgets.look()
        office = Overrides(lambda: world.spec, world.store, world.clock)
        office.raise_budget(NewOverride("search", "2", "more", seconds=HOUR), "me")
        await world.budgets.refresh()
        assert world.budgets.look()
        assert world.budgets.stages.curbs == ()
        world.clock.advance(HOUR)
        await world.budgets.refresh()
        assert world.budgets.look()


async def test_a_rolling_budget_keeps_its_step_over_its_slots_until_spend_has_left() -> None:
    async with AlertWorld(budget="{usd: 10, period: rolling 24h, at_limit: [throttle]}") as world:
        world.spend(100)
        world.clock.advance(HOUR)
        await world.budgets.refresh()
        world.spend(885)
        assert world.budgets.look()
        held = 0
        for _ in range(30):
            world.clock.advance(HOUR)
            await world.budgets.refresh()
            world.budgets.look()
            held += len(world.budgets.stages.curbs)
        assert held == 23  # then the first dollar has left: 88.5 % is below 93 %


async def test_only_what_changed_is_sent() -> None:
    async with AlertWorld(budget="{usd: 10, period: day, at_limit: [throttle]}") as world:
        before = Picture(budgets=world.budgets.limits, curbs=world.budgets.stages.curbs)
        world.spend(990)
        world.budgets.look()
        after = Picture(budgets=world.budgets.limits, curbs=world.budgets.stages.curbs)
        delta = change(before, after, 1, 2)
        assert delta is not None
        assert (delta.budgets, delta.curbs) == (None, after.curbs)
        assert encode_message(delta)
        ended = change(after, before, 1, 3)
        assert ended is not None
        assert ended.curbs == ()


def a_key(key_id: str, *budgets: KeyBudget) -> KeyRecord:
    return key_record(key_id, expires_at_unix=None, limits=Limits(budgets=budgets))


async def test_a_keys_budget_has_steps_while_the_key_lives() -> None:
    steps = ("shed_batch", "throttle")
    staged = KeyBudget(10 * NANOS_PER_USD, "day", grace_usd_nanos=NANOS_PER_USD, at_limit=steps)
    keys = [a_key("plain", KeyBudget(10 * NANOS_PER_USD, "day"))]
    async with AlertWorld(keys=keys) as world:
        desk = world.budgets
        assert desk.stages.budget_ids == frozenset()
        keys.append(a_key("k1", staged))
        await desk.refresh()
        limit = world.limit_of("k1")
        assert desk.stages.budget_ids == {limit.budget_id}
        assert limit.most_usd_nanos == 11 * NANOS_PER_USD
        world.spend(980, limit)
        world.spend(980, world.limit_of("plain"))
        assert desk.look()
        (curb,) = desk.stages.curbs
        assert (curb.limit, curb.steps, curb.requests_per_minute) == (limit, steps, 10)
        world.spend(120, limit)
        assert not world.spend(1, limit), "the grace is used up"
        desk.look()
        (row,) = [row for row in budget_rows(desk.standings(), world.clock.unix(), desk.stages.holding)
                  if row["owner"] == "k1"]  # fmt: skip
        assert (row["steps"], row["stage"]) == ((*steps, "block"), "block")
        assert (row["grace_usd"], row["grace_used_usd"]) == ("1.000000000", "1.000000000")
        keys[-1] = replace(keys[-1], revoked_at_unix=world.clock.unix())
        await desk.refresh()
        assert desk.look()
        assert desk.stages.curbs == ()


async def test_without_a_server_a_keys_steps_are_told_by_the_ledger() -> None:
    budget = KeyBudget(10 * NANOS_PER_USD, "day", at_limit=("throttle 50%",))
    async with AlertWorld() as world:
        world.store.insert_key(a_key("k1", budget), audit_entry())
        world.charge(600, hours_ago=1.0, key_id="k1")
        (row,) = [row for row in ledger_rows(world.spec, world.store, world.clock.unix()) if row["scope"] == "key"]
        assert (row["owner"], row["steps"], row["spent_usd"]) == ("k1", ("throttle",), "6.000000000")


async def test_budgets_without_steps_are_not_looked_at() -> None:
    async with AlertWorld(budget="{usd: 10, period: day}") as world:
        world.spend(1000)
        assert world.budgets.stages.budget_ids == frozenset()
        assert world.budgets.book.standings(of=frozenset()) == []
        assert not world.budgets.look()
