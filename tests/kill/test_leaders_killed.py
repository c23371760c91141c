"""The leader killed at seeded points under load: Pods are as many as were wanted, and the ledger has every request.

SWELL_LEADER_RUNS says how often; `docs/high-availability.md` has what twenty runs came to.
"""

import os
from pathlib import Path

import pytest
from kill_asks import End
from kill_world import SEED, StartSwell
from leaders_world import REPLICAS, ClusterProcess, LeadersWorld

from swell.testing.postgres_server import PostgresServer

pytestmark = [pytest.mark.kill, pytest.mark.process, pytest.mark.services]

RUNS = int(os.environ.get("SWELL_LEADER_RUNS", "2"))
KILLS = 5  # of more, a busy machine makes more requests than one listing holds
NOT_OFFERED = (404, "endpoint_not_offered")  # embeddings, of a model that writes
LIMITS_WITHOUT_SERVER = {(503, "limits_unavailable"), (429, "rate_limit_exceeded")}


@pytest.mark.parametrize("run", range(RUNS))
async def test_no_request_no_pod_and_no_record_is_lost_or_there_twice(
    run: int, swell_up: StartSwell, own_postgres: PostgresServer, tmp_path: Path
) -> None:
    network = f"127.{1 + SEED % 200}"
    with ClusterProcess(network) as cluster:
        async with LeadersWorld(swell_up, tmp_path, SEED + 600 + run, own_postgres, cluster, network) as world:
            pods = cluster.ask("names")
            workers = {worker.pid for gateway in world.gateways for worker in gateway.workers()}
            assert len(pods) == REPLICAS
            for _ in range(KILLS):
                await world.kill_leader()
                await world.served(10)
                await world.until_waiting()
            assert {worker.pid for gateway in world.gateways for worker in gateway.workers()} == workers
            tally = await world.account()
            assert cluster.ask("names") == pods, "no Pod was started beside them, and none was ended"
            assert cluster.ask("pods") == {"pods": REPLICAS, "claimed": REPLICAS, "deployments": 1}
    assert set(world.ends(world.server.key)) <= {End.COMPLETE, End.LEFT, End.ERROR_EVENT, End.REFUSED}
    assert set(world.refusals(world.server.key)) <= {NOT_OFFERED}
    assert tally.rows["reserved"] == tally.rows["void"] == tally.sent_twice == 0
    assert set(world.refusals()) <= {NOT_OFFERED, *LIMITS_WITHOUT_SERVER}
    assert tally.rows["settled"] > 50
