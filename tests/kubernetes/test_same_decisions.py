"""One spec, three kinds of places, the same signals: the same decisions at the same times.

Processes and containers are children of a make-believe machine with the bindings that those providers have (the real
ones pass the same suite as it does); Pods are a make-believe cluster's, under the real provider.
"""

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from kube_world import Doom, MemoryIntents
from kube_world import World as ClusterWorld

from swell.adapters.providers.container import PORT
from swell.clock import ManualClock
from swell.control.fleet import Fleet
from swell.control.probe import Answer
from swell.control.workload import Workload
from swell.ports.engine import Address
from swell.ports.provider import Binding
from swell.server.scaling import Scaling, swell_scaler
from swell.spec import ModelSpec
from swell.state.messages import Load, ModelLoad
from swell.state.scaling import Decision
from swell.testing.fake_provider import FakeMachine, FakeProvider

SECONDS = 1500
STEPS_A_SECOND = 4
SEEDS = (1, 2)
MODEL = ModelSpec.model_validate(
    {
        "name": "chat",
        "source": "hf://example/model",
        "engine": "vllm",
        "replicas": "0..6",
        "objectives": {"ttft_ms": 2000, "itl_ms": 100},
        "scaling": {"interval_seconds": 5, "idle_seconds": 120},
    }
)


class Place(Protocol):
    """Where replicas run."""

    clock: ManualClock
    fleet: Fleet

    async def steps(self, count: int = 1) -> None: ...


class MachineWorld:
    """Children of a machine, each with a health path that answers; with a network of their own or without."""

    def __init__(self, binding: Binding) -> None:
        self.clock = ManualClock()
        self._machine = FakeMachine(self.clock)
        self._machine.binding = binding
        self.fleet = Fleet(
            providers={"cluster": FakeProvider(self._machine)}, intents=MemoryIntents(Doom()), ask=self._ask,
            clock=self.clock,
        )  # fmt: skip

    async def steps(self, count: int = 1) -> None:
        """Let time pass."""
        for _ in range(count):
            self.clock.advance(1 / STEPS_A_SECOND)
            for child_id in self._machine.living:
                self._machine.addresses.setdefault(child_id, Address("10.0.0.1", PORT))
            self.fleet.report_in_flight({})
            await self.fleet.step(self.clock.monotonic())

    async def _ask(self, url: str, key: str) -> Answer:
        return Answer(200, "")


def loads_of(seed: int) -> Iterator[Load]:
    """What a worker has seen, by the second: quiet, a burst, a plateau with a tide, silence, and somebody who waits."""
    dice = random.Random(seed)
    sums = dict.fromkeys(("prompt", "completed", "output"), 0)
    for second in range(SECONDS):
        for _ in range(_arrivals(dice, second)):
            sums["prompt"] += dice.randint(50, 900)
            sums["output"] += dice.randint(20, 300)
            sums["completed"] += 1
        yield Load(0, 0, (), (), (_model_load(sums, second),))


def _arrivals(dice: random.Random, moment: int) -> int:
    if moment < 100 or 1000 <= moment < 1400:
        return 0
    rate = 25.0 if 300 <= moment < 420 else 4.0 + 3.0 * math.sin(moment / 60)
    return int(rate) + (dice.random() < rate % 1)


def _model_load(sums: dict[str, int], second: int) -> ModelLoad:
    queued = 4 if 300 <= second < 330 or 100 <= second < 104 or second >= 1490 else 0
    count, prompt, output = sums["completed"], sums["prompt"], sums["output"]
    mean_prompt, mean_output = (prompt / count, output / count) if count else (0.0, 0.0)
    return ModelLoad(
        "chat",
        arrivals=count + queued,
        arrived_prompt_tokens=prompt,
        completed=count,
        n_sum=prompt,
        n2_sum=int(count * mean_prompt**2 * 1.3),
        o_sum=output,
        o2_sum=int(count * mean_output**2 * 1.3),
        no_sum=int(count * mean_prompt * mean_output),
        decoded_tokens=output,
        judged=count,
        attained=count - count // 50,
        ttft_ms_sum=count * 400.0,
        itl_ms_sum=count * 30.0,
        open_seconds=count * 5.0,
        in_flight=min(40, count // 20),
        queued=queued,
        oldest_queued_seconds=float(queued > 0),
    )


async def decisions(world: Place, workload: Workload, loads: list[Load]) -> list[Decision]:
    """All that is decided while a place is under that load."""
    world.fleet.want([workload])
    seen: list[Decision] = []
    scaling = Scaling(
        [MODEL], world.fleet, world.clock, loads=dict, living=lambda: {"w"}, make_scaler=swell_scaler,
        saw=lambda _, decision: seen.append(decision),
    )  # fmt: skip
    scaling.adopted(1)
    (loop,) = [each for each in scaling.loops if each.name.endswith(" chat")]
    for second, said in enumerate(loads):
        await world.steps(STEPS_A_SECOND)
        scaling.report("w", said)
        if loop.wake.is_set() or not second % int(MODEL.scaling.interval_seconds):
            loop.wake.clear()
            await loop.turn()
    return seen


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_same_signals_lead_to_the_same_decisions_everywhere(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    loads = list(loads_of(seed))
    found: dict[str, list[Any]] = {}
    makers: dict[str, Callable[[], Place]] = {
        "process": lambda: MachineWorld(Binding()),
        "container": lambda: MachineWorld(Binding("0.0.0.0", PORT)),  # noqa: S104  all of a container's network
    }
    async with ClusterWorld() as cluster:
        workload = cluster.workload("chat", count=0, drain_seconds=0.0)
        for kind, made in {**{kind: make() for kind, make in makers.items()}, "kubernetes": cluster}.items():
            begun = made.clock.monotonic()
            seen = await decisions(made, workload, loads)
            found[kind] = [(each.at - begun, each.counts, each.binding, each.is_hold) for each in seen]
    assert max(counts[0][1] for _, counts, _, _ in found["process"]) >= 2, "it was scaled"
    assert found["process"][-1][1] != found["process"][0][1]
    assert found["process"] == found["container"]
    assert found["process"] == found["kubernetes"]
