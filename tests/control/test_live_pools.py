"""Models whose replicas are of several kinds: one workload of the fleet each, and one loop that mixes them."""

from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from fleet_world import World

from swell.control.workload import by_model
from swell.server.live_pools import LivePool, local_pool
from swell.server.replica_runs import RunDesk
from swell.server.scaling import Scaling, swell_scaler
from swell.server.writer import Writer
from swell.spec import ModelSpec
from swell.state.messages import Load, ModelLoad
from swell.state.scaling import Decision, Market, Observation, Pool
from swell.testing.memory_store import MemoryStore

SPEC = ModelSpec.model_validate({"name": "chat", "source": "a.gguf", "replicas": "0..9", "spot": {"ondemand_base": 1}})
PROFILE = local_pool(SPEC).profile
DEAR = LivePool(Pool("L4", PROFILE, 0.7, 60.0), "chat@L4", 700_000_000)
SPOT = LivePool(Pool("L4/spot/east", PROFILE, 0.3, 60.0, Market.SPOT, "east", 0.1), "chat@L4/spot/east", 300_000_000)
POOLS = {"chat": (DEAR, SPOT)}


@dataclass
class Mixes:
    """Decides what it is told."""

    counts: dict[str, int] = field(default_factory=dict)
    interval_seconds: float = 5.0

    def decide(self, seen: Observation) -> Decision:
        self.seen = seen
        return Decision(seen.now, tuple(self.counts.items()), "told so", "test")


class Live:
    def __init__(self, folder: Path, spec: ModelSpec = SPEC) -> None:
        self.world, self.scaler, self.spec = World(folder), Mixes(), spec
        self.wanted = [
            self.world.workload(each.workload, count=0, model="chat", pool=each.pool.name) for each in (DEAR, SPOT)
        ]
        self.world.fleet.want(self.wanted)
        self.scaling = self._scaling()

    def _scaling(self) -> Scaling:
        self.arrived = 0
        scaling = Scaling(
            [self.spec], self.world.fleet, self.world.clock,
            loads=dict, living=lambda: {"w"}, make_scaler=lambda spec, pools: self.scaler, pools=POOLS,
        )  # fmt: skip
        scaling.report("w", Load(0, 0, (), (), ()))
        return scaling

    async def decide(self, **counts: int) -> Observation:
        self.scaler.counts = {"L4": counts["dear"], "L4/spot/east": counts["spot"]}
        await self.turn(0)
        return self.scaler.seen

    async def turn(self, arrivals: int) -> None:
        """What has arrived in five seconds, all of which waits, and a turn on it."""
        self.arrived += arrivals
        self.world.clock.advance(5.0)
        load = ModelLoad("chat", arrivals=self.arrived, queued=arrivals)
        self.scaling.report("w", Load(0, 0, (), (), (load,)))
        await self.scaling.loops[0].turn()

    async def restart(self) -> None:
        await self.world.restart(*self.wanted)
        self.scaling = self._scaling()
        self.scaling.adopted(2)

    def counts(self) -> tuple[int, int]:
        fleet = self.world.fleet
        return fleet.workload("chat@L4").count, fleet.workload("chat@L4/spot/east").count


async def test_each_pool_gets_what_the_mix_has_of_it(tmp_path: Path) -> None:
    live = Live(tmp_path)
    await live.decide(dear=1, spot=3)
    assert live.counts() == (1, 3)
    await live.world.steps(3)
    seen = await live.decide(dear=2, spot=1)
    assert sorted(view.pool for view in seen.replicas) == ["L4", *["L4/spot/east"] * 3]
    assert live.counts() == (2, 1)
    rows = live.scaling.rows()
    assert [(row["model"], row["wanted"]) for row in rows] == [("chat", 3)]


async def test_an_order_is_taken_back_from_its_own_pool(tmp_path: Path) -> None:
    live = Live(tmp_path)
    await live.decide(dear=1, spot=2)
    await live.decide(dear=1, spot=1)  # nothing has a place yet
    assert live.counts() == (1, 1)


async def test_all_replicas_serve_the_model_whatever_they_run_on(tmp_path: Path) -> None:
    live = Live(tmp_path)
    await live.decide(dear=1, spot=2)
    await live.world.steps(3)
    assert {replica.serves for replica in live.world.fleet.replicas} == {"chat"}
    assert {replica.pool for replica in live.world.fleet.replicas} == {"L4", "L4/spot/east"}
    [merged] = by_model(live.world.fleet.workloads).values()
    assert (merged.name, merged.count) == ("chat", 3)


async def test_a_restarted_server_wants_the_mix_that_it_finds(tmp_path: Path) -> None:
    live = Live(tmp_path)
    await live.decide(dear=1, spot=2)
    await live.world.steps(3)
    before = {replica.child_id for replica in live.world.fleet.replicas}
    await live.restart()
    assert live.counts() == (1, 2)
    assert {(replica.child_id, replica.pool) for replica in live.world.fleet.replicas} >= {
        (child_id, "L4") for child_id in before if "L4-" in child_id
    }
    await live.world.steps(3)
    assert {replica.child_id for replica in live.world.fleet.replicas} == before


async def test_a_restarted_server_keeps_the_bounds_over_all_pools(tmp_path: Path) -> None:
    live = Live(tmp_path)
    await live.decide(dear=2, spot=3)
    await live.world.steps(3)
    live.spec = SPEC.model_copy(update={"replicas": SPEC.replicas.model_copy(update={"max": 4})})
    await live.restart()
    assert live.counts() == (2, 2)
    live.spec = SPEC.model_copy(update={"replicas": SPEC.replicas.model_copy(update={"min": 7, "max": 9})})
    await live.restart()
    assert sum(live.counts()) == 7


async def test_a_life_costs_what_its_own_pool_costs(tmp_path: Path) -> None:
    live, store, writer = Live(tmp_path), MemoryStore(), Writer()
    try:
        desk = RunDesk([SPEC], store, writer, live.world.clock, pools=POOLS)
        await live.decide(dear=1, spot=1)
        await live.world.steps(3)
        desk.look(live.world.fleet.replicas)
        runs = await desk.list(None, None)
    finally:
        writer.close()
    assert sorted((run.model, run.usd_nanos_per_hour) for run in runs) == [("chat", 300_000_000), ("chat", 700_000_000)]


async def test_a_fixed_number_is_mixed_too(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"replicas": SPEC.replicas.model_copy(update={"min": 3, "max": 3})})
    live = Live(tmp_path, spec)
    live.scaling.adopted(1)
    assert live.counts() == (3, 0)
    await live.decide(dear=1, spot=2)
    assert live.counts() == (1, 2)


async def test_swells_own_policy_mixes_what_the_spec_allows(tmp_path: Path) -> None:
    """Under load it buys spot beside the on-demand base that was asked for."""
    seed = 7
    print(f"seed {seed}")
    dice = Random(seed)
    live = Live(tmp_path)
    scaler = swell_scaler(SPEC, [DEAR.pool, SPOT.pool])
    live.scaler = scaler  # type: ignore[assignment]
    live.scaling = live._scaling()
    for _ in range(40):
        await live.turn(dice.randint(15, 25))
        await live.world.steps(1)
    dear, spot = live.counts()
    assert dear >= 1
    assert spot >= 1
    assert dear + spot <= SPEC.replicas.max
