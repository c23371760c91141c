"""A server that waits: what it says, that it takes a store which nobody has, and that it can be ended at any moment."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest

from swell.errors import AtCapacity, StateError, StoreInUse
from swell.ports.store import Store
from swell.server.ending import Way
from swell.server.standby import Standby
from swell.testing.memory_store import MemoryStore

PATIENCE_SECONDS = 10.0
AWAY = AtCapacity("the database does not answer", retry_after_seconds=1.0)


class Watched:
    """A store of which is told what a test says; each look is counted."""

    def __init__(self) -> None:
        self.leader, self.marks = "swell other 7 (10.0.0.7)", dict[str, int]()
        self.problem: Exception | None = None
        self.hangs = False
        self.looks, self.closed = 0, 0
        self.looked = asyncio.Event()

    async def look(self) -> tuple[str, Mapping[str, int]]:
        self.looks += 1
        self.looked.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.problem is not None:
            raise self.problem
        return self.leader, self.marks

    async def close(self) -> None:
        self.closed += 1

    async def more(self, count: int = 2) -> None:
        """Until it has been looked at so many times more."""
        wanted = self.looks + count
        async with asyncio.timeout(PATIENCE_SECONDS):
            while self.looks < wanted:
                self.looked.clear()
                await self.looked.wait()


class Told:
    """What the audience was told."""

    def __init__(self) -> None:
        self.waiting_for: list[str] = []
        self.troubles: list[str] = []

    def waiting(self, leader: str) -> None:
        self.waiting_for.append(leader)

    def trouble(self, sentence: str) -> None:
        self.troubles.append(sentence)


class Scene:
    """One that waits, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.watched, self.told = Watched(), Told()
        self.opened: list[Store] = []
        self.opening: Callable[[], Store] = MemoryStore
        self.refusal: StateError | None = None
        self.socket = folder / "admin.sock"
        self.standby = Standby(self.watched, self._check, self._open, self.told, self.socket, look_seconds=0.001)

    def _check(self, marks: Mapping[str, int]) -> None:
        if self.refusal is not None:
            raise self.refusal

    def _open(self) -> Store:
        store = self.opening()
        self.opened.append(store)
        return store

    def begin(self) -> "asyncio.Task[Store | None]":
        return asyncio.ensure_future(self.standby.wait())

    async def end(self, task: "asyncio.Task[Store | None]") -> Store | None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await task


@pytest.fixture
async def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_store_that_nobody_has_is_taken_at_once_and_nothing_is_said(scene: Scene) -> None:
    scene.watched.leader = ""
    assert await scene.end(scene.begin()) is scene.opened[0]
    assert scene.told.waiting_for == []
    assert scene.watched.closed == 1


async def test_who_leads_is_said_once_and_the_store_taken_when_it_is_free(scene: Scene) -> None:
    task = scene.begin()
    await scene.watched.more(3)
    assert scene.opened == []
    scene.watched.leader = ""
    assert await scene.end(task) is scene.opened[0]
    assert scene.told.waiting_for == ["swell other 7 (10.0.0.7)"]


async def test_one_that_was_slower_waits_on(scene: Scene) -> None:
    def taken() -> Store:
        scene.watched.leader, scene.opening = "swell third 9", MemoryStore
        raise StoreInUse("taken")

    scene.watched.leader, scene.opening = "", taken
    task = scene.begin()
    await scene.watched.more(3)
    assert scene.told.waiting_for == ["swell third 9"]
    assert not task.done()
    scene.standby.told.set()
    assert await scene.end(task) is None


async def test_a_database_that_is_away_is_waited_for_and_said_once_each_time(scene: Scene) -> None:
    scene.watched.problem = AWAY
    task = scene.begin()
    await scene.watched.more(3)
    scene.watched.problem = None
    await scene.watched.more()
    scene.watched.problem = AWAY
    await scene.watched.more()
    assert len(scene.told.troubles) == 2
    assert "the database does not answer" in scene.told.troubles[0]
    scene.watched.problem, scene.watched.leader = None, ""
    assert await scene.end(task) is scene.opened[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_even_while_the_database_does_not_answer(scene: Scene, number: signal.Signals) -> None:
    scene.watched.hangs = True
    scene.standby.listen()
    try:
        task = scene.begin()
        await scene.watched.more(1)
        os.kill(os.getpid(), number)
        assert await scene.end(task) is None
    finally:
        for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(each)
    assert scene.standby.told_how() is Way.LEAVE
    assert scene.opened == []
    assert scene.watched.closed == 1


async def test_a_store_that_it_could_not_use_is_refused_while_another_leads(scene: Scene) -> None:
    scene.refusal = StateError("another pepper")
    with pytest.raises(StateError, match="another pepper"):
        await scene.end(scene.begin())
    assert scene.opened == []


async def test_commands_are_told_who_leads_and_can_end_it(scene: Scene) -> None:
    task = scene.begin()
    await scene.watched.more(2)
    transport = httpx.AsyncHTTPTransport(uds=str(scene.socket), retries=3)
    async with httpx.AsyncClient(transport=transport, base_url="http://swell") as client:
        status = (await client.get("/api/status")).json()
        assert (status["waiting"], status["leader"]) == (True, "swell other 7 (10.0.0.7)")
        refused = await client.post("/api/keys", json={"name": "k"})
        assert refused.status_code == 400
        assert "swell other 7 (10.0.0.7) leads; ask that one" in refused.json()["error"]
        assert (await client.post("/api/stop")).status_code == 202
    assert await scene.end(task) is None
    assert not scene.socket.exists()
