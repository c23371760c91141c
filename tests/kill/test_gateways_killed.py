"""SIGKILL under load, with gateways on machines of their own: no lost usage record, whoever is killed, and when."""

from pathlib import Path

import pytest
from gateway_world import GatewayWorld
from kill_asks import End
from kill_world import SEED, StartSwell

pytestmark = [pytest.mark.kill, pytest.mark.process]

SERVER_RUNS, SERVER_KILLS = 2, 5
MIXED_RUNS, MIXED_KILLS = 2, 8
LIMITS_WITHOUT_SERVER = {(503, "limits_unavailable"), (429, "rate_limit_exceeded")}
UNHARMED = {End.COMPLETE, End.LEFT}


@pytest.mark.parametrize("run", range(SERVER_RUNS))
async def test_servers_killed(run: int, swell_up: StartSwell, tmp_path: Path) -> None:
    async with GatewayWorld(swell_up, tmp_path, SEED + 400 + run) as world:
        before = {worker.pid for gateway in world.gateways for worker in gateway.workers()}
        for _ in range(SERVER_KILLS):
            await world.kill_server()
            await world.served(10)  # while no server runs
            await world.restart_server()
        assert {worker.pid for gateway in world.gateways for worker in gateway.workers()} == before
        tally = await world.account()
    assert set(world.ends(world.server.key)) <= {*UNHARMED, End.ERROR_EVENT}, "an unlimited key needs no server"
    assert tally.rows["reserved"] == tally.rows["void"] == tally.sent_twice == 0
    assert set(world.refusals()) <= LIMITS_WITHOUT_SERVER
    assert tally.rows["settled"] > 50


@pytest.mark.parametrize("run", range(MIXED_RUNS))
async def test_everything_killed(run: int, swell_up: StartSwell, tmp_path: Path) -> None:
    async with GatewayWorld(swell_up, tmp_path, SEED + 500 + run, upstreams=2) as world:
        for _ in range(MIXED_KILLS):
            kind = world.dice.choice(("worker", "server", "gateway", "upstream"))
            if kind == "server":
                await world.kill_server()
                await world.served(5)
                await world.restart_server()
            elif kind == "upstream":
                await world.kill_upstream()
            elif kind == "gateway":
                await world.kill_gateway()
            else:
                await world.kill_worker()
            await world.until_serving()
        await world.served(20)
        tally = await world.account()
    assert tally.rows["settled"] > 50
    assert set(world.refusals()) <= LIMITS_WITHOUT_SERVER | {(503, "stopping")}
