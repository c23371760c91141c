"""SIGKILL under load, at seeded random points: every journaled request is in the ledger once, with what it is due.

A failure is run again with SWELL_KILL_SEED and the test's name; the seed and the points are in its output.
"""

from pathlib import Path

import pytest
from kill_asks import End, Outcome
from kill_world import SEED, StartSwell, World, worker_pids

pytestmark = [pytest.mark.kill, pytest.mark.process]

WORKER_RUNS, WORKER_KILLS = 3, 6  # few in one run: a worker that dies often is started again ever more slowly
SERVER_RUNS, SERVER_KILLS = 2, 6
UPSTREAM_RUNS, UPSTREAM_KILLS = 2, 7
MIXED_KILLS = 15
MINIMUM_POINTS = 50

# Shares of limits can run out while no server runs, and while one waits for workers it knows to be alive.
LIMITS_WITHOUT_SERVER = {(503, "limits_unavailable"), (429, "rate_limit_exceeded")}
UNHARMED = {End.COMPLETE, End.LEFT}


def test_there_are_enough_points() -> None:
    points = WORKER_RUNS * WORKER_KILLS + SERVER_RUNS * SERVER_KILLS + UPSTREAM_RUNS * UPSTREAM_KILLS + MIXED_KILLS
    assert points >= MINIMUM_POINTS


@pytest.mark.parametrize("run", range(WORKER_RUNS))
async def test_workers_killed(run: int, swell_up: StartSwell, tmp_path: Path) -> None:
    async with World(swell_up, tmp_path, SEED + run, workers=3) as world:
        for _ in range(WORKER_KILLS):
            await world.kill_worker()
        await world.until_serving()
        await world.served(20)
        tally = await world.account()
    assert _cut_unscripted(world) == [], "no upstream was killed"
    assert tally.rows["settled"] > 50
    assert world.refusals() == {}, "a worker that is started again serves like any other"
    # What a kill cuts off is at most what was open on that worker; nothing else is unsettled.
    cut_off = world.ends().get(End.BROKEN, 0) + world.ends()[End.LEFT] + tally.reserved_answered
    assert tally.rows["reserved"] + tally.rows["void"] <= cut_off
    assert tally.reserved_answered <= WORKER_KILLS


@pytest.mark.parametrize("run", range(SERVER_RUNS))
async def test_servers_killed(run: int, swell_up: StartSwell, tmp_path: Path) -> None:
    async with World(swell_up, tmp_path, SEED + 100 + run) as world:
        before = worker_pids(world.server)
        for _ in range(SERVER_KILLS):
            await world.kill_server()
            await world.served(10)  # while no server runs
            await world.restart_server()
            assert worker_pids(world.server) == before
        tally = await world.account()
    assert set(world.ends(world.server.key)) <= {*UNHARMED, End.ERROR_EVENT}, "an unlimited key needs no server"
    assert _cut_unscripted(world) == []
    assert tally.rows["reserved"] == tally.rows["void"] == tally.sent_twice == 0
    assert set(world.refusals()) <= LIMITS_WITHOUT_SERVER


@pytest.mark.parametrize("run", range(UPSTREAM_RUNS))
async def test_upstreams_killed(run: int, swell_up: StartSwell, tmp_path: Path) -> None:
    async with World(swell_up, tmp_path, SEED + 200 + run, upstreams=2) as world:
        workers = worker_pids(world.server)
        for _ in range(UPSTREAM_KILLS):
            await world.kill_upstream()
        await world.served(20)
        assert worker_pids(world.server) == workers
        tally = await world.account()
    assert [outcome for outcome in world.outcomes if outcome.end not in {*UNHARMED, End.ERROR_EVENT}] == []
    assert all(outcome.ask.stream for outcome in world.outcomes if outcome.end is End.ERROR_EVENT)
    assert tally.rows["reserved"] == 0


async def test_everything_killed(swell_up: StartSwell, tmp_path: Path) -> None:
    async with World(swell_up, tmp_path, SEED + 300, upstreams=2) as world:
        server_lives = True
        for _ in range(MIXED_KILLS):
            kind = world.dice.choice(("worker", "server", "upstream"))
            if kind == "server" and server_lives:
                await world.kill_server()
                server_lives = False
            elif kind == "upstream":
                await world.kill_upstream()
            else:
                if not server_lives:
                    world.server.start()  # nobody else would start the worker again
                    server_lives = True
                await world.kill_worker()
        if not server_lives:
            world.server.start()
        await world.until_serving()
        await world.served(20)
        tally = await world.account()
    assert tally.rows["settled"] > 50
    assert world.refusals(world.server.key) == {}, "one upstream lived all the time"
    assert set(world.refusals()) <= LIMITS_WITHOUT_SERVER


def _cut_unscripted(world: World) -> list[Outcome]:
    """Streams that ended with an error although their script let them run."""
    cut = (outcome for outcome in world.outcomes if outcome.end is End.ERROR_EVENT)
    return [outcome for outcome in cut if outcome.ask.script.die_after is None]
