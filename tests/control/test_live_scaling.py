"""All models that scale, on a make-believe machine: who is seen to at once, what a restart finds, who disturbs whom."""

from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from fleet_world import World

from swell.ports.scaler import Scaler
from swell.server.live_pools import local_pool
from swell.server.loops import Loop
from swell.server.scaling import MakeScaler, Scaling, served_names, swell_scaler
from swell.spec import ModelSpec
from swell.state.messages import Load, ModelLoad
from swell.state.scaling import Decision, Observation, Pool


class OnDemand:
    """One replica as soon as somebody waits, none when nobody asks; the least that scales from and to zero."""

    interval_seconds = 1.0

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def decide(self, seen: Observation) -> Decision:
        if seen.window is None:
            return Decision(seen.now, ((self._pool.name, seen.present),), "nothing seen", "hold", is_hold=True)
        count = int(seen.window.queued + seen.window.in_flight > 0)
        return Decision(
            seen.now, ((self._pool.name, count),), f"{seen.window.queued} wait", "test", is_hold=count == seen.present
        )


class Broken(OnDemand):
    def decide(self, seen: Observation) -> Decision:
        raise ValueError("a fault in the policy")


def model(name: str, replicas: str = "0..4", **fields: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": name, "source": "a.gguf", "replicas": replicas, **fields})


class Live:
    """Models with their loops; one worker, `w`."""

    def __init__(
        self, folder: Path, *models: ModelSpec, make: MakeScaler | None = None, living: Collection[str] = ("w",)
    ) -> None:
        self.living = set(living)
        self.world = World(folder)
        self.world.fleet.want([self.world.workload(spec.name, count=spec.replicas.min) for spec in models])
        self.decided = 0
        self.scaling = Scaling(
            models, self.world.fleet, self.world.clock,
            loads=dict, living=lambda: self.living, make_scaler=make or (lambda spec, pools: OnDemand(pools[0])),
            decided=self._count,
        )  # fmt: skip

    def _count(self) -> None:
        self.decided += 1

    def loop(self, name: str) -> Loop:
        [found] = [loop for loop in self.scaling.loops if loop.name.endswith(f" {name}")]
        return found

    def report(self, **queued: int) -> None:
        loads = tuple(ModelLoad(name, arrivals=count, queued=count) for name, count in queued.items())
        self.scaling.report("w", Load(0, 0, (), (), loads))

    def count(self, name: str) -> int:
        return self.world.fleet.workload(name).count


async def test_who_waits_at_zero_wakes_the_loop_of_its_model_alone(tmp_path: Path) -> None:
    live = Live(tmp_path, model("chat"), model("other"))
    live.report()
    assert not any(loop.wake.is_set() for loop in live.scaling.loops)
    live.report(chat=1)
    assert live.loop("chat").wake.is_set()
    assert not live.loop("other").wake.is_set()
    await live.loop("chat").turn()
    assert (live.count("chat"), live.count("other"), live.decided) == (1, 0, 1)


async def test_what_is_ordered_already_wakes_nobody_again(tmp_path: Path) -> None:
    live = Live(tmp_path, model("chat"))
    live.report()
    live.report(chat=1)
    await live.loop("chat").turn()
    live.loop("chat").wake.clear()
    live.report(chat=5)
    assert not live.loop("chat").wake.is_set()


async def test_an_adapters_request_starts_its_model(tmp_path: Path) -> None:
    spec = ModelSpec.model_validate({"name": "chat", "source": "/m", "replicas": "0..2", "lora": {"sql": "/a"}})
    assert served_names(spec) == ["chat", "sql"]
    live = Live(tmp_path, spec)
    live.report()
    live.report(sql=1)
    await live.loop("chat").turn()
    assert live.count("chat") == 1


async def test_models_of_a_fixed_number_have_no_loop(tmp_path: Path) -> None:
    live = Live(tmp_path, model("chat", "2..2"), model("zero", "0..0"))
    assert live.scaling.loops == []
    live.scaling.adopted(2)
    live.report(chat=1)
    assert live.count("chat") == 2


@pytest.mark.parametrize(
    ("bounds", "found", "wanted"), [("0..4", 3, 3), ("0..2", 3, 2), ("2..4", 1, 2), ("0..4", 0, 0)]
)
async def test_a_restarted_server_wants_what_it_finds_inside_the_bounds(
    tmp_path: Path, bounds: str, found: int, wanted: int
) -> None:
    world = World(tmp_path)
    world.fleet.want([world.workload("chat", count=found)])
    await world.steps(4)
    spec = model("chat", bounds)
    live = Live(tmp_path, spec)
    live.world.machine, live.world.intents = world.machine, world.intents
    await live.world.restart(live.world.workload("chat", count=spec.replicas.min))
    live.scaling = Scaling(
        [spec], live.world.fleet, live.world.clock, loads=dict, living=lambda: live.living,
        make_scaler=lambda _, pools: OnDemand(pools[0]),
    )  # fmt: skip
    live.scaling.adopted(2)
    assert live.count("chat") == wanted
    await live.world.steps(12)
    live.world.fleet.report_in_flight({})
    await live.world.steps(12)
    assert len(live.world.ready()) == wanted
    assert sum(world.machine.starts.values()) == max(found, wanted)


async def test_a_policy_that_fails_changes_nothing_and_stops_no_other(tmp_path: Path) -> None:
    def make(spec: ModelSpec, pools: Sequence[Pool]) -> Scaler:
        return Broken(pools[0]) if spec.name == "broken" else OnDemand(pools[0])

    live = Live(tmp_path, model("broken", "1..4"), model("chat"), make=make)
    live.report()
    live.report(broken=1, chat=1)
    for loop in live.scaling.loops[:2]:
        await loop.turn()
    assert (live.count("broken"), live.count("chat")) == (1, 1)
    assert (live.loop("broken").failures, live.loop("chat").failures) == (1, 0)


async def test_a_server_that_drains_decides_nothing(tmp_path: Path) -> None:
    live = Live(tmp_path, model("chat"))
    live.report()
    live.report(chat=1)
    live.scaling.stop()
    await live.loop("chat").turn()
    assert live.count("chat") == 0
    assert live.scaling.trail.take() == []
    live.world.fleet.want([])  # as its drain does
    (engines,) = [loop for loop in live.scaling.loops if loop.name == "engine metrics"]
    await engines.turn()
    assert engines.failures == 0


async def test_every_turn_is_in_the_trail(tmp_path: Path) -> None:
    """Save for those between two reports, which could see nothing new."""
    live = Live(tmp_path, model("chat"))
    for _ in range(3):
        await live.loop("chat").turn()
    live.report()
    for _ in range(3):
        await live.loop("chat").turn()
    live.report(chat=1)
    await live.loop("chat").turn()
    lines = live.scaling.trail.take()
    assert [(line.before, line.replicas, line.times) for line in lines] == [(0, 0, 3), (0, 1, 1)]


@pytest.mark.parametrize("fields", [{}, {"engine": "vllm", "source": "/models/x"}])
def test_the_policy_that_serves_is_swells_own_with_the_specs_numbers(fields: dict[str, object]) -> None:
    spec = model("chat", "1..3", objectives={"ttft_ms": 800.0}, scaling={"interval_seconds": 2.0}, **fields)
    pool = local_pool(spec)
    scaler = swell_scaler(spec, [pool])
    assert scaler.interval_seconds == 2.0
    assert (pool.usd_per_hour, pool.start_seconds) == (0.0, spec.start_seconds)
    decision = scaler.decide(Observation(0.0, None, ()))
    assert decision.replicas == 1
    assert decision.reason


async def test_what_others_tell_counts_while_one_is_silent_but_none_is_let_go(tmp_path: Path) -> None:
    live = Live(tmp_path, model("chat"), living={"w", "silent"})
    loop = live.loop("chat")
    for second in range(60):
        live.world.clock.advance(1.0)
        live.report(chat=0)
        await loop.turn()
        assert live.count("chat") == 0, second
    live.report(chat=1)
    await loop.turn()
    assert live.count("chat") == 1
    for _ in range(10):
        live.world.clock.advance(1.0)
        live.report(chat=0)
        await loop.turn()
    assert live.count("chat") == 1, "the silent one may be using it"
    live.living.remove("silent")
    live.scaling.forget(live.living)
    for _ in range(3):
        live.world.clock.advance(1.0)
        live.report(chat=0)
        await loop.turn()
    assert live.count("chat") == 0
