"""A loop survives its failures, waits longer after each, and forgets them after a good while."""

import asyncio
import logging

import pytest

from swell.clock import ManualClock
from swell.errors import AtCapacity
from swell.server.loops import MAX_BACK_OFF_SECONDS, Loop
from swell.server.writer import Writer


async def test_failures_are_logged_and_back_off_up_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    async def step(now: float) -> None:
        raise ValueError("no")

    loop = Loop("test", step, 0.25, ManualClock())
    with caplog.at_level(logging.ERROR):
        pauses = [await loop.turn() for _ in range(9)]
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == MAX_BACK_OFF_SECONDS
    assert len(caplog.records) == 9
    assert caplog.records[0].__dict__["loop"] == "test"


async def test_a_good_turn_forgives() -> None:
    outcomes = iter([ValueError(), None, ValueError()])

    async def step(now: float) -> None:
        outcome = next(outcomes)
        if outcome:
            raise outcome

    loop = Loop("test", step, 0.25, ManualClock())
    assert [await loop.turn() for _ in range(3)] == [0.5, 0.25, 0.5]


async def test_a_step_that_ran_long_before_it_failed_begins_anew() -> None:
    clock = ManualClock()

    async def step(now: float) -> None:
        clock.advance(61)
        raise ValueError

    loop = Loop("test", step, 0.0, clock)
    assert [await loop.turn() for _ in range(3)] == [0.5, 0.5, 0.5]


async def test_waking_turns_at_once() -> None:
    turns: list[float] = []
    seen = asyncio.Event()

    async def step(now: float) -> None:
        turns.append(now)
        seen.set()

    loop = Loop("test", step, 3600.0, ManualClock())
    running = asyncio.create_task(loop.run())
    async with asyncio.timeout(5):
        await seen.wait()
        seen.clear()
        loop.wake.set()
        await seen.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(turns) == 2


@pytest.mark.parametrize("passes", range(4))
async def test_one_that_is_woken_and_cancelled_at_once_ends(passes: int) -> None:
    """`asyncio.wait_for` of Python 3.11 forgets a cancellation that meets the end of what it waits for."""
    seen = asyncio.Event()

    async def step(now: float) -> None:
        seen.set()

    loop = Loop("test", step, 3600.0, ManualClock())
    running = asyncio.create_task(loop.run())
    await seen.wait()
    for _ in range(4):
        await asyncio.sleep(0)  # until it waits
    loop.wake.set()
    for _ in range(passes):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=2.0)
    running.cancel()
    assert done == {running}


async def test_the_writer_runs_one_call_at_a_time_and_refuses_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swell.server.writer.MAX_WAITING", 2)
    writer = Writer()
    order: list[int] = []
    calls = [asyncio.ensure_future(writer.call(lambda n=n: order.append(n))) for n in range(3)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    writer.close()
    assert order == [0, 1]
    assert isinstance(results[2], AtCapacity)
    assert writer.last_seconds > 0
