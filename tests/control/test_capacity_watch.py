"""Alerts of models that need more than they may have: by their ceiling, by a budget, by a fixed number of replicas."""

from pathlib import Path

from model_watch_world import Watched, model, watched

from swell.server.capacity_watch import BOUND_CALM_SECONDS
from swell.state.funding import Fund
from swell.state.messages import Load, ModelLoad
from swell.state.scaling import Decision
from swell.units import NANOS_PER_USD


async def test_demand_beyond_the_ceiling_is_told_once_until_it_is_over_for_a_while(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        await world.decide(11, "ceiling", seconds=20.0)
        assert world.told() == [], "not so many turns"
        await world.decide(30, "ceiling")
        await world.decide(30, "forecast")
        await world.decide(30, "ceiling")
        assert world.told() == ["model chat capacity warning"]
        (record,) = world.records()
        assert record.alert.title == "Model chat needs more than its 4 replicas"
        assert "demand is 6.2 replicas, and 7.5 are forecast. 3 requests wait now." in record.alert.text
        await world.decide(int(BOUND_CALM_SECONDS // 10) + 1, "forecast")
        assert world.told()[1:] == ["model chat capacity resolved"]


async def test_a_burst_that_the_ceiling_binds_is_no_alert(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        for _ in range(20):
            await world.decide(100, "ceiling", seconds=1.0)
            await world.decide(1, "release")
        assert world.told() == []
        await world.decide(100, "ceiling", seconds=1.0)
        await world.decide(2, "stand-in")  # says how replicas are had, and nothing of how many are needed
        await world.decide(30, "ceiling", seconds=1.0)
        assert world.told() == ["model chat capacity warning"]


def fund(owner: str, left: int = 20, cap: int = 100) -> Fund:
    name = f"the infrastructure budget of {owner} for 2026-11" if owner else "the organisation's infrastructure budget"
    left, cap = left * NANOS_PER_USD, cap * NANOS_PER_USD
    return Fund(name, cap, left, cap, left, ends_in_seconds=90_000.0, owner=owner)


async def test_a_budget_that_binds_is_told_with_what_to_raise(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        await world.decide(20, "budget", fund=fund("chat"))
        (record,) = world.records()
        assert record.alert.title == (
            "Model chat needs more than its infrastructure budget pays for: it has 4 replicas of 8"
        )
        assert "more was needed than the infrastructure budget of chat for 2026-11 pays for" in record.alert.text
        assert "$20.00 of $100.00 is left for it, and it begins anew in 25.0 h" in record.alert.text
        assert "raise infrastructure_budget of model chat in swell.yaml" in record.alert.text
        assert record.alert.values["bound"] == "infrastructure_budget"
        assert record.alert.values["left_usd"] == "20.00"
        await world.decide(int(BOUND_CALM_SECONDS // 10) + 1, "release")
        assert world.told() == ["model chat capacity warning", "model chat capacity resolved"]


async def test_the_organisations_budget_is_named_as_it_is_written(tmp_path: Path) -> None:
    async with watched(tmp_path, model(replicas="2..2")) as world:
        await world.decide(20, "budget", fund=fund(""))
        (record,) = world.records()
        assert "raise organisation.infrastructure_budget in swell.yaml" in record.alert.text


async def test_a_ceiling_that_becomes_a_budget_is_one_episode(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        await world.decide(20, "ceiling")
        await world.decide(20, "budget", fund=fund("chat"))
        await world.decide(20, "ceiling")
        assert world.told() == ["model chat capacity warning"]
        await world.begin()
        await world.decide(20, "budget", fund=fund("chat"))
        assert world.told() == ["model chat capacity warning"], "a restarted server knows of it"


async def test_a_budget_that_binds_while_nothing_is_observed_says_nothing(tmp_path: Path) -> None:
    async with watched(tmp_path, model()) as world:
        unseen = Decision(0.0, (("p", 1),), "…", "budget", is_hold=True, inputs=(("thrift", 1.0),), fund=fund("chat"))
        for _ in range(40):
            world.watch.decided("chat", unseen)
            await world.turn()
        assert world.told() == []


async def serve(world: Watched, seconds: int, each_second: int, answered: int) -> None:
    """Requests of 100 tokens and 50; what is not answered waits."""
    for second in range(seconds):
        world.arrived += each_second
        world.answered = min(world.arrived, world.answered + answered)
        waiting = world.arrived - world.answered
        load = ModelLoad(
            "chat", arrivals=world.arrived, arrived_prompt_tokens=100 * world.arrived,
            completed=world.answered, n_sum=100 * world.answered, n2_sum=10_000 * world.answered,
            o_sum=50 * world.answered, o2_sum=2_500 * world.answered, no_sum=5_000 * world.answered,
            decoded_tokens=50 * world.answered, open_seconds=float(world.waited),
            in_flight=min(8, waiting), queued=max(0, waiting - 8),
        )  # fmt: skip
        world.waited += waiting
        world.watch.report("w", Load(0, 0, (), (), (load,)))
        world.clock.advance(1.0)
        for loop in world.watch.loops[1:]:
            if second % 5 == 0:
                await loop.turn()
        if second % 10 == 0:
            await world.watch.step(world.clock.monotonic())


async def test_a_fixed_number_that_carries_less_than_is_forecast_is_told(tmp_path: Path) -> None:
    async with watched(tmp_path, model(replicas=2)) as world:
        await world.begin(world.world.workload(count=2))
        await world.world.steps(8)
        await serve(world, 600, each_second=1, answered=1)
        assert world.told() == [], "two carry that"
        await serve(world, 400, each_second=20, answered=2)
        (record,) = world.records()
        assert record.alert.title == "Model chat needs more than its 2 replicas, whose number is fixed"
        assert "such as replicas: 2.." in record.alert.text
        assert record.alert.values["bound"] == "fixed"
        assert float(str(record.alert.values["forecast_replicas"])) > 2
        assert world.world.fleet.workload("chat").count == 2, "nothing is decided of it"


async def test_who_is_switched_off_or_runs_elsewhere_is_not_watched(tmp_path: Path) -> None:
    far = model("far", source=None, replicas=None, endpoints=["http://127.0.0.1:9101"])
    async with watched(tmp_path, model("off", replicas=0), far, model("scales")) as world:
        assert len(world.watch.loops) == 1
