"""Replicas that somebody else runs behind one address, as many as Swell decides: in virtual time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
from fleet_world import World
from hypothesis import given
from hypothesis import strategies as st

from swell.adapters.engines.external import External
from swell.control.workload import Workload, model_workload
from swell.errors import AtCapacity
from swell.server.capacity_watch import NONE_READY_SECONDS, ReadyWatch
from swell.server.desired_counts import DesiredCounts
from swell.server.external_scaler import ExternalScaler, NotAnsweredError, Refusal
from swell.server.live_pools import advised_pool, pools_of
from swell.server.scaling import Scaling, swell_scaler
from swell.spec import ModelSpec
from swell.state.messages import Load, ModelLoad
from swell.state.replica import Phase
from swell.state.scaling import LatencyProfile

CHAT = {"model": "chat"}


def chat(replicas: str = "0..4", **fields: object) -> ModelSpec:
    values = {"name": "chat", "endpoints": ["http://10.0.0.5:8000"], "replicas": replicas, **fields}
    return ModelSpec.model_validate(values)


def workload(spec: ModelSpec, folder: Path) -> Workload:
    return model_workload(spec, External(), model_path=None, log_dir=folder, cores=1)


class Advised:
    """A server's parts that have to do with one such model, over a fleet; one gateway worker, `w`."""

    def __init__(self, folder: Path, spec: ModelSpec) -> None:
        self.spec = spec
        self.world = World(folder)
        self.world.fleet.want([workload(spec, folder)])
        self.counts = DesiredCounts(self.world.fleet)
        self.doubt = ""
        self.stopping = asyncio.Event()
        self.scaler = ExternalScaler(self.counts, self._confirm, self.stopping)
        self.scaling = Scaling(
            [spec], self.world.fleet, self.world.clock, loads=dict, living=lambda: {"w"}, make_scaler=swell_scaler,
            counted=self.counts.look,
        )  # fmt: skip
        self.arrivals = 0

    async def _confirm(self) -> None:
        if self.doubt:
            raise AtCapacity(self.doubt, retry_after_seconds=1.0)

    def report(self, queued: int = 0, in_flight: int = 0, arrived: int = 0) -> None:
        self.arrivals += arrived
        load = ModelLoad("chat", arrivals=self.arrivals, queued=queued, in_flight=in_flight)
        self.scaling.report("w", Load(0, 0, (), (), (load,)))

    async def turn(self) -> None:
        (loop,) = [each for each in self.scaling.loops if each.name == "scaling of chat"]
        loop.wake.clear()
        await loop.turn()

    @property
    def is_woken(self) -> bool:
        return any(loop.wake.is_set() for loop in self.scaling.loops)


def following(advised: Advised) -> AsyncGenerator[bool, None]:
    return advised.scaler.activity(CHAT)


def test_every_replica_is_at_the_one_address_and_a_new_ceiling_changes_none(tmp_path: Path) -> None:
    few, many = workload(chat("0..2"), tmp_path), workload(chat("1..9"), tmp_path)
    assert (few.count, many.count) == (0, 1)
    assert {address.url() for address in many.addresses} == {"http://10.0.0.5:8000"}
    assert (len(few.addresses), len(many.addresses)) == (2, 9)
    assert few.fingerprint == many.fingerprint
    fixed = workload(ModelSpec.model_validate({"name": "chat", "endpoints": ["http://10.0.0.5:8000"]}), tmp_path)
    assert (fixed.count, len(fixed.addresses), fixed.is_advised) == (1, 1, False)


async def test_the_fleet_has_as_many_as_are_wanted_once_the_address_answers(tmp_path: Path) -> None:
    advised = Advised(tmp_path, chat())
    world = advised.world
    world.fleet.set_count("chat", 3)
    await world.steps(1)
    for replica in world.fleet.replicas:
        world.health[replica.child_id] = None
    await world.steps(8)
    assert world.phases() == [Phase.STARTING] * 3
    assert advised.counts.all() == {"chat": 3}, "that nobody answers yet changes nothing about how many there shall be"
    world.health.clear()
    await world.steps(8)
    assert world.phases() == [Phase.READY] * 3
    world.fleet.set_count("chat", 1)
    world.fleet.report_in_flight({})
    await world.steps(16)
    assert world.phases().count(Phase.READY) == 1
    assert await advised.scaler.desired(CHAT) == 1


async def test_who_waits_at_zero_is_told_of_before_any_time_has_passed(tmp_path: Path) -> None:
    advised = Advised(tmp_path, chat())
    advised.report()
    async with aclosing(following(advised)) as activity:
        assert await anext(activity) is False
        advised.world.clock.advance(1.0)
        advised.report(queued=1, arrived=1)
        assert advised.is_woken
        before = advised.world.clock.monotonic()
        await advised.turn()
        assert await anext(activity) is True
        assert advised.world.clock.monotonic() == before
        assert await advised.scaler.desired(CHAT) == 1


async def test_many_that_wait_want_more_and_a_quiet_time_wants_none(tmp_path: Path) -> None:
    advised = Advised(tmp_path, chat(scaling={"idle_seconds": 30.0, "start_seconds": 5.0}, parallel=2))
    advised.report()
    await advised.turn()
    told = []
    async with aclosing(following(advised)) as activity:
        told.append(await anext(activity))
        for second in range(120):
            advised.world.clock.advance(1.0)
            waits = 40 if second < 40 else 0
            advised.report(queued=waits, in_flight=2 if waits else 0, arrived=4 if waits else 0)
            if second % 5 == 0:
                await advised.turn()
            await advised.world.steps(1)
            if second == 39:
                told.append(await anext(activity))
                assert await advised.scaler.desired(CHAT) == 4, "as many as it may have"
        told.append(await anext(activity))
    assert told == [False, True, False]
    lines = advised.scaling.trail.take()
    assert [line.replicas for line in lines][-1] == 0
    assert all(line.model == "chat" and line.reason for line in lines)


@pytest.mark.parametrize(
    ("bounds", "remembered", "wanted"),
    [("0..4", {"chat": 3}, 3), ("0..2", {"chat": 3}, 2), ("1..4", {"chat": 0}, 1), ("0..4", {}, 0)],
)
async def test_a_server_that_begins_wants_what_was_decided_last(
    tmp_path: Path, bounds: str, remembered: dict[str, int], wanted: int
) -> None:
    advised = Advised(tmp_path, chat(bounds))
    advised.scaling.adopted(2, remembered)
    assert await advised.scaler.desired(CHAT) == wanted
    advised.world.clock.advance(1.0)
    advised.report()
    advised.world.clock.advance(1.0)
    advised.report()
    await advised.turn()
    assert await advised.scaler.desired(CHAT) == wanted, "the first quiet second is no reason to let go of them"


async def test_a_server_that_may_not_decide_tells_nothing(tmp_path: Path) -> None:
    advised = Advised(tmp_path, chat())
    async with aclosing(following(advised)) as open_before:
        assert await anext(open_before) is False
        advised.doubt = "it is not sure that this server leads"
        with pytest.raises(NotAnsweredError, match="not sure that this server leads") as refused:
            await advised.scaler.desired(CHAT)
        assert refused.value.refusal is Refusal.UNAVAILABLE
        advised.world.fleet.set_count("chat", 2)
        advised.counts.look()
        assert [active async for active in open_before] == [], "it ends, and what is not sure is not told"
    async with aclosing(following(advised)) as opened_after:
        with pytest.raises(NotAnsweredError) as refused:
            await anext(opened_after)
        assert refused.value.refusal is Refusal.UNAVAILABLE


async def test_a_server_that_stops_ends_streams_and_answers_no_more(tmp_path: Path) -> None:
    advised = Advised(tmp_path, chat())
    async with aclosing(following(advised)) as activity:
        assert await anext(activity) is False
        advised.stopping.set()
        assert [active async for active in activity] == []
    with pytest.raises(NotAnsweredError, match="stopping") as refused:
        await advised.scaler.desired(CHAT)
    assert refused.value.refusal is Refusal.UNAVAILABLE


def test_how_fast_a_replica_is_follows_from_what_it_runs_on() -> None:
    spec = chat(upstream_model="meta-llama/Llama-3.1-8B-Instruct", accelerators=["A100-80GB"], usd_per_replica_hour=2)
    found = advised_pool(spec)
    assert found is not None
    assert isinstance(found.pool.profile, LatencyProfile)
    assert (found.pool.profile.name, found.workload) == ("llama-3.1-8b@A100-80GB", "chat")
    assert found.usd_nanos_per_hour == 2_000_000_000
    assert advised_pool(chat()) is None
    assert pools_of(spec, {"chat": (found,)}) == (found,)
    scaler = swell_scaler(spec, [found.pool])
    assert scaler.interval_seconds == 5.0


@given(st.lists(st.integers(0, 4), max_size=30))
async def test_whatever_is_decided_the_last_number_is_told(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int]
) -> None:
    advised = Advised(tmp_path_factory.mktemp("w"), chat())
    told = None
    async with aclosing(following(advised)) as activity:
        told = await anext(activity)
        for count in counts:
            advised.world.fleet.set_count("chat", count)
            advised.counts.look()
            if (count > 0) is not told:
                told = await anext(activity)
            assert told is (count > 0)
            assert await advised.scaler.desired(CHAT) == count


async def test_a_start_that_takes_its_time_is_no_alert_and_one_that_takes_longer_is(tmp_path: Path) -> None:
    advised = Advised(tmp_path, chat(start_timeout_seconds=300.0))
    watch, clock = ReadyWatch(advised.world.clock), advised.world.clock
    advised.world.fleet.set_count("chat", 2)
    assert watch.look(advised.world.fleet.workloads, ()) == []
    clock.advance(NONE_READY_SECONDS + 200.0)
    assert watch.look(advised.world.fleet.workloads, ()) == [], "somebody else starts them, in their own time"
    clock.advance(150.0)
    (finding,) = watch.look(advised.world.fleet.workloads, ())
    assert (finding.kind, finding.model, finding.state) == ("replicas", "chat", "critical")
    assert advised.counts.all() == {"chat": 2}
