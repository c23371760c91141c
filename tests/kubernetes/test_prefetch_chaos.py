"""Whatever fails meanwhile, and whenever servers are killed: an end that nobody complains of has left nothing behind.

A seed chooses what is declared and when, which requests fail and how, at which write a server dies, whether `prefetch`
is in the next one's file, and whether the API has recovered when all ends.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from kube_world import STEP_SECONDS, World
from test_prefetch_faults import BOTH, IMAGES, MODELS, NO_NODE, OFF, QUEUED, asleep, made

from swell.adapters.providers.kubernetes import prefetch
from swell.adapters.providers.kubernetes.prefetch_manifests import IMAGE, KEPT_SECONDS, MODEL
from swell.adapters.providers.kubernetes.prefetch_plan import RETRY_SECONDS
from swell.adapters.providers.kubernetes.watch import BACKOFF_MAX_SECONDS
from swell.server.draining import PREPARED_SECONDS
from swell.testing.cluster import Refused
from swell.testing.cluster.objects import Object

SEEDS = range(12)
EVENTS = 8  # at most before each end
ENDS = 6
KINDS = ("jobs", "daemonsets")
SHARES = (0.0, 0.1, 0.3, 0.5, 0.8)
FAULTS = (403, 409, 429, 500, 500, 503)
SETTINGS = (BOTH, BOTH, MODELS, IMAGES, QUEUED, OFF)
RECOVERY_SECONDS = 3 * BACKOFF_MAX_SECONDS


@dataclass
class Storm:
    """Faults of a cluster: each request about Jobs and DaemonSets may fail, before it had its effect or after."""

    world: World
    chance: random.Random
    share: float = 0.0
    faults: list[str] = field(default_factory=list)

    def begin(self) -> None:
        cluster = self.world.cluster
        apply, delete = cluster.apply, cluster.delete

        def lossy_apply(kind: str, name: str, *args: Any, **options: Any) -> Object:
            with self._answering("patch", kind):
                return apply(kind, name, *args, **options)

        def lossy_delete(kind: str, name: str, *args: Any) -> None:
            with self._answering("delete", kind):
                delete(kind, name, *args)

        cluster.before_request = self._refuse
        cluster.apply, cluster.delete = lossy_apply, lossy_delete  # type: ignore[method-assign]

    def _refuse(self, verb: str, kind: str) -> None:
        if kind not in KINDS or self.chance.random() >= self.share:
            return
        status = self.chance.choice(FAULTS)
        # Who prepares nothing takes a refusal to show it for an answer: rights for it are given with `prefetch`.
        if status == 403 and self.world.settings.prefetch is None:
            status = 500
        self.faults.append(f"{status} to {verb} {kind}")
        raise Refused(status, "a fault", retry_after=1 if status == 429 else 0)

    @contextmanager
    def _answering(self, verb: str, kind: str) -> Iterator[None]:
        """The answer may be lost, and with it what watches would have told."""
        is_lost = kind in KINDS and self.chance.random() < self.share / 2
        if is_lost:
            self.faults.append(f"lost {verb} {kind}")
            self.world.cluster.break_watches()
        yield
        if is_lost:
            raise Refused(500, "the connection broke")


async def _happen(storm: Storm) -> None:
    """One event, and some time after it."""
    world, chance = storm.world, storm.chance
    match chance.choice(("declare", "declare", "undeclare", "kill", "kill", "restart", "watches", "time")):
        case "declare":
            _declare(world, chance)
        case "undeclare":
            world.want()
        case "kill":
            world.doom.kill_at = world.doom.writes + chance.randint(1, 3)
            world.doom.dies_after = chance.random() < 0.5
        case "restart":
            world.settings = chance.choice(SETTINGS)
            await world.restart()
        case "watches":
            world.cluster.forget_events()
            world.cluster.break_watches()
        case "time":
            await world.steps(seconds=chance.choice((60.0, RETRY_SECONDS, KEPT_SECONDS)))
    await world.steps(chance.randint(1, 6))


def _declare(world: World, chance: random.Random) -> None:
    names = chance.sample(("chat", "other", "third"), chance.randint(1, 3))
    world.want(*(asleep(world, name) for name in names), asleep(world, "far", NO_NODE))


@pytest.mark.parametrize("seed", SEEDS)
async def test_an_end_that_nobody_complains_of_has_left_nothing_behind(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "BEGIN_SECONDS", 0.0)  # by the machine's clock: nobody waits for it here
    chance = random.Random(seed)
    async with World(settings=BOTH) as world:
        storm = Storm(world, chance)
        storm.begin()
        world.controllers.batch.admitting.add("downloads")
        world.controllers.kubelet.refused["other"] = "no such model"
        for _ in range(ENDS):
            storm.share = chance.choice(SHARES)
            for _ in range(chance.randint(1, EVENTS)):
                await _happen(storm)
            world.doom.kill_at = None
            if chance.random() < 0.5:  # at the last moment
                _declare(world, chance)
                await world.quiet()
            storm.share = chance.choice((0.0, storm.share))
            world.want()
            if chance.random() < 0.5:  # killed, and `swell down` finds what is left
                await world.restart()
            await _ended(world, PREPARED_SECONDS)
            assert not made(world) or world.fleet.preparations(), f"nobody was told: {storm.faults[-20:]}"
            assert all(each.by_hand for _, each in world.fleet.preparations()), "told, and not how to delete it"
            storm.share = 0.0
            await _ended(world, RECOVERY_SECONDS)
            # A kind that a watch was refused counts as hidden until its next event or list: that may be told still.
            left = [each for _, each in world.fleet.preparations() if each.what in (MODEL, IMAGE)]
            assert (made(world), left) == (set(), []), storm.faults[-20:]


async def _ended(world: World, seconds: float) -> None:
    for _ in range(int(seconds / STEP_SECONDS)):
        if not world.fleet.preparations():
            return
        await world.steps()
