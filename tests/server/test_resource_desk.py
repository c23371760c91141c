"""The desk of resources: what is written of them and when, and what is served where their cluster does not answer."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from swell.clock import ManualClock
from swell.errors import AtCapacity, RetryLater, StateError, SwellError, UserError
from swell.server.resource_desk import BETWEEN_SECONDS, MAX_WRITES, ResourceDesk
from swell.server.resource_status import Progress, progress_of, status_of
from swell.server.spec_change import Change, NextSpec, SpecDesk
from swell.spec import Spec, check_spec
from swell.spec.custom_resources import MODELS, TENANTS
from swell.spec.declared import Declared, Wanted, merge
from swell.state.records import DecisionRecord

HERE = "http://127.0.0.1:9101"
FILE = check_spec({"models": [], "server": {"custom_resources": {}}}, origin="a test")


def model(name: str, *, generation: int = 1, uid: str = "", content: str = "") -> Declared:
    text = content or f'{{"endpoints": ["{HERE}"]}}'
    return Declared("2026-01-01T00:00:00Z", MODELS, name, uid or f"uid-of-{name}", generation, text)


def decision(name: str, replicas: int, reason: str, *, is_hold: bool = False) -> DecisionRecord:
    return DecisionRecord(
        decision_id=f"{name}/{reason}",
        model=name,
        at_unix=60.0,
        until_unix=60.0,
        times=1,
        before=0,
        replicas=replicas,
        is_hold=is_hold,
        binding="demand",
        reason=reason,
    )


class MemoryDeclarations:
    """Resources without a cluster. `away`: it does not answer; `slower`: somebody else is quicker so many times."""

    def __init__(self, *items: Declared) -> None:
        self.changed = asyncio.Event()
        self.items = list(items)
        self.statuses: dict[str, Mapping[str, Any]] = {}
        self.writes: list[str] = []
        self.away = False
        self.slower = 0

    async def begin(self) -> Sequence[Declared]:
        self._answer()
        return list(self.items)

    def current(self) -> Sequence[Declared]:
        return list(self.items)

    def status_of(self, item: Declared) -> Mapping[str, Any]:
        return self.statuses.get(item.uid, {})

    async def write_status(self, item: Declared, status: Mapping[str, Any]) -> bool:
        self._answer()
        self.writes.append(item.name)
        if self.slower:
            self.slower -= 1
            return False
        self.statuses[item.uid] = status
        return True

    async def close(self) -> None:
        return

    def _answer(self) -> None:
        if self.away:
            raise AtCapacity("no answer", retry_after_seconds=1.0)


class Serving:
    """A server as the desk sees it. What it hands over to, it becomes."""

    def __init__(self, wanted: Wanted, change: Change, clock: ManualClock) -> None:
        self._change, self._clock = change, clock
        self.rows: dict[str, list[dict[str, Any]]] = {"replicas": [], "scaling": []}
        self.lines: list[DecisionRecord] = []
        self.has_begun = True
        self.asked = 0
        self.changes = 0
        self.spec_desk: SpecDesk | None = self._desk(wanted)

    def _desk(self, wanted: Wanted) -> SpecDesk:
        return SpecDesk(wanted, None, self._change, self._clock, self._hand_over)

    def _hand_over(self, following: NextSpec) -> None:
        self.changes += 1
        self.spec_desk = self._desk(following.wanted)

    def status(self) -> dict[str, Any]:
        return self.rows

    async def decisions(self, model: str | None, limit: int) -> list[DecisionRecord]:
        self.asked += 1
        return [line for line in self.lines if line.model == model][:limit]


class World:
    """A desk that has begun, and a server."""

    def __init__(self, kept: Path, *items: Declared) -> None:
        self.clock = ManualClock()
        self.declared = MemoryDeclarations(*items)
        self.desk = ResourceDesk(self.declared, lambda: self.server, self.clock, kept, pause=self._pause)
        self.pauses: asyncio.Queue[float] = asyncio.Queue()
        self.go_on = asyncio.Semaphore(0)
        self.server: Serving | None = None
        self.prepare: Callable[[Spec], None] = lambda spec: None

    async def begin(self) -> Serving:
        await self.desk.begin()
        change = Change(lambda file: FILE, self.desk.join, self._prepare)
        self.server = Serving(self.desk.join(FILE, {}), change, self.clock)
        return self.server

    def fail(self, problems: list[SwellError]) -> None:
        """What is prepared while there are some."""
        if problems:
            raise problems.pop(0)

    def _prepare(self, spec: Spec) -> None:
        self.prepare(spec)

    async def _pause(self, seconds: float) -> None:
        self.pauses.put_nowait(seconds)
        await self.go_on.acquire()

    async def look(self) -> None:
        """One look at what became of them."""
        await self.desk._status_step(0.0)

    async def join(self) -> bool:
        return await self.desk._join()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "resources.json"


def ready(name: str, count: int) -> list[dict[str, Any]]:
    return [{"model": name, "phase": "ready"}] * count


async def test_a_status_is_written_once_and_again_when_it_changes(kept: Path) -> None:
    world = World(kept, model("chat"))
    server = await world.begin()
    await world.look()
    await world.look()
    assert world.declared.writes == ["chat"]
    assert world.declared.statuses["uid-of-chat"]["phase"] == "Starting"
    server.rows["replicas"] = ready("chat", 1)
    await world.look()
    assert world.declared.writes == ["chat", "chat"]
    assert world.declared.statuses["uid-of-chat"]["phase"] == "Ready"


async def test_what_was_written_before_a_restart_is_not_written_again(kept: Path) -> None:
    world = World(kept, model("chat"))
    await world.begin()
    await world.look()
    again = World(kept, model("chat"))
    again.declared.statuses = world.declared.statuses
    await again.begin()
    again.clock.advance(1000.0)
    await again.look()
    assert again.declared.writes == []


async def test_one_that_is_made_anew_under_its_name_gets_a_status_of_its_own(kept: Path) -> None:
    world = World(kept, model("chat"))
    await world.begin()
    await world.look()
    world.declared.items = [model("chat", uid="another")]
    await world.look()
    assert world.declared.writes == ["chat"], "nobody has looked at it yet"
    assert await world.join()
    await world.look()
    assert world.declared.statuses["another"]["phase"] == "Starting"


async def test_a_write_that_lost_a_race_is_tried_again_and_the_others_go_on(kept: Path) -> None:
    world = World(kept, model("a"), model("b"))
    await world.begin()
    world.declared.slower = 1
    await world.look()
    assert world.declared.statuses.keys() == {"uid-of-b"}
    await world.look()
    assert world.declared.writes == ["a", "b", "a"]


async def test_writes_are_bounded_in_a_look(kept: Path) -> None:
    world = World(kept, *(model(f"m{number:03}") for number in range(MAX_WRITES + 5)))
    await world.begin()
    await world.look()
    assert len(world.declared.writes) == MAX_WRITES
    await world.look()
    assert len(set(world.declared.writes)) == len(world.declared.writes) == MAX_WRITES + 5


async def test_the_last_decision_is_asked_for_when_another_number_is_wanted(kept: Path) -> None:
    world = World(kept, model("chat", content='{"source": "hf://a/b", "replicas": {"min": 0, "max": 3}}'))
    server = await world.begin()
    server.rows["scaling"] = [{"model": "chat", "wanted": 0}]
    await world.look()
    assert world.declared.statuses["uid-of-chat"]["phase"] == "AtZero"
    server.lines = [decision("chat", 2, "steady", is_hold=True), decision("chat", 2, "4 requests wait")]
    server.rows["scaling"] = [{"model": "chat", "wanted": 2}]
    await world.look()
    await world.look()
    assert server.asked == 2
    assert world.declared.statuses["uid-of-chat"]["lastDecision"] == {
        "replicas": 2,
        "reason": "4 requests wait",
        "at": "1970-01-01T00:01:00Z",
    }


async def test_a_change_is_joined_and_one_that_changes_nothing_is_no_change(kept: Path) -> None:
    world = World(kept, model("chat"))
    server = await world.begin()
    world.declared.items.append(model("more"))
    assert await world.join()
    assert server.changes == 1
    assert server.spec_desk is not None
    assert [each.name for each in server.spec_desk.wanted.spec.models] == ["chat", "more"]
    world.declared.items.append(model("bad", content="{}"))
    assert await world.join()
    assert server.changes == 1
    await world.look()
    assert world.declared.statuses["uid-of-bad"]["phase"] == "Refused"


async def test_many_changes_are_one_and_there_is_a_time_between_two(kept: Path) -> None:
    world = World(kept)
    server = await world.begin()
    world.desk.start()
    async with asyncio.timeout(10.0):
        for number in range(3):
            for name in range(5):
                world.declared.items.append(model(f"m-{number}-{name}"))
                world.declared.changed.set()
            assert await world.pauses.get() == BETWEEN_SECONDS
            assert server.changes == number + 1
            world.go_on.release()
    assert server.spec_desk is not None
    assert len(server.spec_desk.wanted.spec.models) == 15
    await world.desk.close()


async def test_a_server_that_is_busy_is_asked_again(kept: Path) -> None:
    world = World(kept)
    server = await world.begin()
    desk = server.spec_desk
    assert desk is not None
    desk._begin()
    with pytest.raises(RetryLater):
        await desk.join()
    assert not await world.join()
    server.spec_desk = None
    assert not await world.join()


async def test_what_cannot_be_served_is_tried_again_each_time_later_though_nothing_changes(kept: Path) -> None:
    world = World(kept)
    server = await world.begin()
    problems = [StateError("no"), UserError("still not"), StateError("nor now")]
    world.prepare = lambda spec: world.fail(problems)
    world.declared.items.append(model("more"))
    world.declared.changed.set()
    world.desk.start()
    pauses: list[float] = []
    async with asyncio.timeout(10.0):
        while server.changes == 0:
            pauses.append(await world.pauses.get())
            world.go_on.release()
    assert [each for each in pauses if each != BETWEEN_SECONDS][:3] == [15.0, 30.0, 60.0]
    assert problems == []
    await world.desk.close()


async def test_what_a_successor_could_not_serve_is_tried_again_and_then_soon_forgotten(kept: Path) -> None:
    world = World(kept)
    await world.begin()
    for seconds in (15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0):
        world.desk.failed()
        assert await world.pauses.get() == seconds
        assert not world.declared.changed.is_set()
        world.go_on.release()
        async with asyncio.timeout(5.0):
            await world.declared.changed.wait()
        world.declared.changed.clear()
        assert await world.join()
    assert await world.join()
    world.desk.failed()
    assert await world.pauses.get() == 15.0, "what was joined in between was served"
    await world.desk.close()


async def test_a_server_that_has_not_begun_is_asked_nothing(kept: Path) -> None:
    world = World(kept, model("chat"))
    server = await world.begin()
    server.has_begun = False
    world.declared.items.append(model("more"))
    assert not await world.join()
    await world.look()
    assert (server.changes, world.declared.writes) == (0, [])


async def test_a_cluster_that_does_not_answer_leaves_what_was_read_last(kept: Path) -> None:
    world = World(kept, model("chat"))
    await world.begin()
    later = World(kept)
    later.declared.away = True
    server = await later.begin()
    assert server.spec_desk is not None
    assert [each.name for each in server.spec_desk.wanted.spec.models] == ["chat"]


@pytest.fixture(params=["", "nonsense", "[1]"])
def worthless(request: pytest.FixtureRequest, kept: Path) -> Path:
    """Nothing that could have been read before."""
    if request.param:
        kept.write_text(request.param)
    return kept


async def test_without_a_cluster_or_anything_read_before_nobody_serves_half(worthless: Path) -> None:
    world = World(worthless)
    world.declared.away = True
    with pytest.raises(AtCapacity, match="no answer"):
        await world.begin()


def test_a_transition_is_dated_when_it_happens_and_not_later() -> None:
    item = model("chat")
    wanted = merge(FILE, [item])

    def told(here: Progress, before: Mapping[str, Any], now: float) -> dict[str, Any]:
        found = status_of(item, wanted, {"chat": here}, {}, before, now)
        assert found is not None
        return found

    first = told(Progress(0, 1), {}, 0.0)
    second = told(Progress(1, 1), first, 60.0)
    third = told(Progress(2, 2), second, 120.0)
    times = [[each["lastTransitionTime"][14:16] for each in status["conditions"]] for status in (first, second, third)]
    assert times == [["00", "00"], ["00", "01"], ["00", "01"]]
    assert third["conditions"][1]["message"] == "2 of 2 replicas are ready"


def test_what_was_not_looked_at_yet_has_no_status() -> None:
    wanted = merge(FILE, [model("chat")])
    assert status_of(model("chat", generation=2), wanted, {}, {}, {}, 0.0) is None


def test_a_tenant_is_accepted_and_nothing_else() -> None:
    item = Declared("", TENANTS, "search", "uid", 1, "{}")
    status = status_of(item, merge(FILE, [item]), {}, {}, {}, 0.0)
    assert status is not None
    assert [each["type"] for each in status["conditions"]] == ["Accepted"]
    assert status.keys() == {"observedGeneration", "phase", "conditions"}


def test_replicas_are_counted_by_model() -> None:
    status = {
        "replicas": [*ready("a", 2), {"model": "a", "phase": "starting"}, *ready("other", 1)],
        "scaling": [{"model": "a", "wanted": 3}, {"model": "other", "wanted": 1}],
    }
    assert progress_of(status, {"a": 5, "b": 2}) == {"a": Progress(2, 3), "b": Progress(0, 2)}
