"""Whether a server still leads: asked before what outlives it is changed, and lost once and for good."""

from collections.abc import Iterator

import pytest

from swell.clock import ManualClock
from swell.errors import AtCapacity, StoreInUse, StoreLost, SwellError
from swell.server.leadership import HELD_SECONDS, Leadership
from swell.server.writer import Writer
from swell.testing.memory_store import MemoryStore

AWAY = AtCapacity("the database is away", retry_after_seconds=1.0)


class Scene:
    """A store that says what it is told to say."""

    def __init__(self, *, is_shared: bool = True) -> None:
        self.clock, self.writer, self.store = ManualClock(), Writer(), _Store()
        self.lost = 0
        self.leadership = Leadership(self.store, self.writer, self.clock, self._lose, is_shared=is_shared)

    def _lose(self) -> None:
        self.lost += 1

    async def refused(self) -> str:
        with pytest.raises(AtCapacity) as error:
            await self.leadership.confirm()
        return str(error.value)


class _Store(MemoryStore):
    asked = 0
    problem: SwellError | None = None

    def confirm(self) -> None:
        self.asked += 1
        if self.problem is not None:
            raise self.problem


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.writer.close()


async def test_an_answer_is_good_for_a_second_from_when_it_was_asked_for(scene: Scene) -> None:
    await scene.leadership.confirm()
    await scene.leadership.confirm()
    assert scene.store.asked == 1
    scene.clock.advance(HELD_SECONDS)
    await scene.leadership.confirm()
    assert scene.store.asked == 2


@pytest.mark.parametrize("problem", [AWAY, StoreInUse("a command has it")])
async def test_while_nobody_can_tell_nothing_may_be_changed_and_nothing_is_lost(
    scene: Scene, problem: SwellError
) -> None:
    scene.store.problem = problem
    assert "not sure that this server leads" in await scene.refused()
    scene.store.problem = None
    await scene.leadership.confirm()
    assert scene.lost == 0


async def test_it_is_lost_once_and_never_had_again(scene: Scene) -> None:
    await scene.leadership.confirm()
    scene.clock.advance(HELD_SECONDS)
    scene.store.problem = StoreLost("another server has used the store")
    await scene.refused()
    scene.store.problem = None
    scene.clock.advance(HELD_SECONDS)
    assert "another server leads" in await scene.refused()
    assert scene.lost == 1
    assert scene.store.asked == 2


async def test_it_is_found_to_be_lost_without_anything_to_do(scene: Scene) -> None:
    scene.store.problem = StoreLost("another server has used the store")
    (loop,) = scene.leadership.loops
    await loop.turn()
    await loop.turn()
    assert scene.lost == 1


async def test_a_server_that_is_alone_asks_nobody() -> None:
    scene = Scene(is_shared=False)
    scene.store.problem = AWAY
    await scene.leadership.confirm()
    assert scene.store.asked == 0
    assert scene.leadership.loops == []
    scene.writer.close()
