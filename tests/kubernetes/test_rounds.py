"""Loops that look after a cluster outlive faults in our own code, each of which is about one thing."""

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from swell.adapters.providers.kubernetes.lasting import AGAIN_SECONDS, lasting
from swell.adapters.providers.kubernetes.rounds import BACKOFF_MAX_SECONDS, Rounds
from swell.clock import ManualClock


@dataclass
class Item:
    key: str
    problem: str = ""
    failures: int = 0
    not_before: float = 0.0


@dataclass
class Counting(Rounds[Item]):
    """Of which one cannot be looked at, and one not be written."""

    clock: ManualClock
    items: dict[str, Item]
    looks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.clock, self.items)

    def _look_at(self, item: Item, now: float) -> None:
        self.looks.append(item.key)
        if item.key == "odd":
            raise KeyError(item.key)
        if item.key == "unwritable":
            self._begin(item.key, self._write())

    async def _write(self) -> None:
        raise ValueError("no such field")


async def test_one_that_cannot_be_looked_after_keeps_no_other_waiting_and_is_left_alone_for_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    rounds = Counting(clock, {key: Item(key) for key in ("odd", "unwritable", "even")})
    for item in rounds.items.values():
        rounds.look(item)
    for _ in range(5):
        rounds.turn(clock.monotonic())
        await asyncio.sleep(0)
    assert rounds.looks == ["odd", "unwritable", "even"]
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "what odd needs could not be done",
        "what unwritable needs could not be done",
    ]
    clock.advance(BACKOFF_MAX_SECONDS)
    rounds.turn(clock.monotonic())
    assert rounds.looks[3:] == ["odd", "unwritable"]
    await asyncio.sleep(0)


async def test_a_loop_that_fails_begins_anew_and_its_fault_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    turns: list[str] = []
    waits: list[float] = []

    async def run() -> None:
        turns.append("turn")
        if len(turns) < 3:
            raise KeyError("pod")

    async def pause(seconds: float) -> None:
        waits.append(seconds)

    await lasting(run, pause)
    assert (len(turns), waits) == (3, [AGAIN_SECONDS] * 2)
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


async def test_a_loop_that_is_cancelled_ends() -> None:
    begun = asyncio.Event()

    async def run() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = lasting(run, asyncio.sleep)
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
