"""KEDA and two real servers over one Postgres: only the one that leads answers, and the next one knows its number."""

import asyncio
import json
import secrets
from pathlib import Path

import pytest

from keda_client import grpc, keda
from scripted_upstream import UpstreamThread
from swell.testing.postgres_server import PostgresServer
from swell_process import SwellProcess, SwellUp, choose_free_port, wait_until

pytestmark = [pytest.mark.services, pytest.mark.process]

TAKEN_SECONDS = 40.0  # from one server's end to the other's answers; a takeover takes one or two
ONE = [("swell-replicas", 1, 1.0)]


@pytest.mark.kill
async def test_only_who_leads_answers_and_the_next_one_wants_as_many(
    own_postgres: PostgresServer, upstream: UpstreamThread, swell_up: SwellUp, tmp_path: Path
) -> None:
    database, pepper = own_postgres.new_database(), tmp_path / "pepper"
    pepper.write_bytes(secrets.token_bytes(32))
    pepper.chmod(0o600)

    def up(port: int, *, ready: bool) -> SwellProcess:
        spec = {
            "models": [{"name": "m", "engine": "external", "endpoints": [upstream.url], "replicas": "0..3"}],
            "server": {"store": {"url": own_postgres.url(database)}, "external_scaler": {"port": port}},
        }
        return swell_up(json.dumps(spec), "--ha", ready=ready, environment={"SWELL_PEPPER_FILE": str(pepper)})

    ports = choose_free_port(), choose_free_port()
    first = await asyncio.to_thread(up, ports[0], ready=True)
    assert (await asyncio.to_thread(first.chat)).status == 200
    second = await asyncio.to_thread(up, ports[1], ready=False)
    await asyncio.to_thread(wait_until, lambda: "Waiting: swell " in second.output, seconds=TAKEN_SECONDS)
    async with asyncio.timeout(3 * TAKEN_SECONDS), keda(ports[0]) as leader, keda(ports[1]) as waiting:
        assert await leader.metrics(model="m") == ONE
        with pytest.raises(grpc.AioRpcError) as refused:
            await waiting.spec(model="m")
        assert refused.value.code().name == "UNAVAILABLE"
        stream = leader.follow(model="m")
        assert (await stream.read()).result is True
        await asyncio.to_thread(first.kill)
        with pytest.raises(grpc.AioRpcError) as lost:
            await stream.read()
        assert lost.value.code().name == "UNAVAILABLE"
        assert (await waiting.follow(model="m").read()).result is True, "nobody is told that there shall be none"
        assert await waiting.metrics(model="m") == ONE
