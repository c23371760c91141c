"""A revoked key is refused by every worker within a second, also when the server has just been killed."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from kill_asks import CHAT, Ask
from kill_load import Connection, Meter
from kill_upstreams import UpstreamProcess
from kill_world import StartSwell, ask_server, serving_workers, spec, status_of

from swell.testing.upstream_script import Script
from swell_process import SwellProcess, wait_until

pytestmark = [pytest.mark.kill, pytest.mark.process]

WORKERS = 4
EFFECTIVE_SECONDS = 1.0
MAX_CONNECTIONS = 200  # until each worker has one: the kernel deals them out by hash


@dataclass
class Watched:
    """A kept connection that asks again and again until it is refused."""

    connection: Connection
    ask: Ask
    incarnation: str = ""
    last_served: float = 0.0  # when the last request that was answered had been sent
    statuses: set[int] = field(default_factory=set)

    async def once(self) -> int:
        sent = time.monotonic()
        outcome = await self.connection.ask(self.ask)
        self.statuses.add(outcome.status)
        if outcome.status == 200:
            self.incarnation = outcome.request_id.split("-")[2]
            self.last_served = sent
        return outcome.status

    async def until_refused(self) -> None:
        while await self.once() == 200:
            pass


async def one_per_worker(server: SwellProcess, key: str, incarnations: set[str]) -> list[Watched]:
    """A connection to every worker."""
    ask, found = Ask(CHAT, key, script=Script(chunks=1)), dict[str, Watched]()
    for _ in range(MAX_CONNECTIONS):
        watched = Watched(Connection(server.port, Meter()), ask)
        assert await watched.once() == 200
        if found.setdefault(watched.incarnation, watched) is not watched:
            watched.connection.close()
        if found.keys() == incarnations:
            break
    assert found.keys() == incarnations
    return list(found.values())


def revoke_at_once(server: SwellProcess, key_id: str) -> Any:
    return ask_server(server, "POST", f"/api/keys/{key_id}/revoke")


def revoke_after_a_restart(server: SwellProcess, key_id: str) -> Any:
    """As soon as the new server answers, whichever workers are connected to it by then."""
    server.kill()
    server.start()
    return wait_until(lambda: ask_server(server, "POST", f"/api/keys/{key_id}/revoke"), seconds=30)


def revoke_without_a_server(server: SwellProcess, key_id: str) -> Any:
    """In the store; the workers cannot know before there is a server again."""
    server.kill()
    revoked = server.command("keys", "revoke", key_id)
    server.start()
    wait_until(lambda: status_of(server), seconds=30)
    return revoked


@pytest.mark.parametrize("revoke", [revoke_at_once, revoke_after_a_restart, revoke_without_a_server])
async def test_every_worker_refuses_a_revoked_key_within_a_second(
    revoke: Any, swell_up: StartSwell, tmp_path: Path
) -> None:
    upstream = UpstreamProcess(tmp_path, "upstream")
    upstream.start()
    try:
        server = swell_up(spec([upstream]), workers=WORKERS)
        incarnations = await asyncio.to_thread(
            wait_until, lambda: len(s := serving_workers(server)) == WORKERS and set(s), seconds=30
        )
        made = server.command("keys", "create", "short-lived")
        watched = await one_per_worker(server, made["key"], incarnations)
        asking = [asyncio.create_task(each.until_refused()) for each in watched]
        revoked = await asyncio.to_thread(revoke, server, made["id"])
        since = time.monotonic()
        async with asyncio.timeout(20):
            await asyncio.gather(*asking)
        lags = [each.last_served - since for each in watched]
        print(f"{revoke.__name__}: the last request that was served came {max(lags):+.3f} s after the revocation")
        assert revoked["state"] == "revoked"
        assert {status for each in watched for status in each.statuses} == {200, 401}
        assert max(lags) < EFFECTIVE_SECONDS
        for each in watched:
            each.connection.close()
    finally:
        upstream.end()
