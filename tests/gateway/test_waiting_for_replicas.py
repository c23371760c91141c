"""Queues: bounded, in order of class and arrival, held not failed, and nobody waits behind somebody else's trouble."""

import msgspec
import pytest
from gateway_under_test import Gateway, StartGateway
from http_client import CHAT, Connection, body_for

from swell.errors import AtCapacity
from swell.gateway.spool import Spool
from swell.policy.queueing import OTHERS_SECONDS, PRIORITIES
from swell.state.usage import SpoolRecord
from swell.state.worker import Bounds, Timeouts
from swell.testing.upstream_script import Script

LONG_KEPT = Timeouts(keep_alive_seconds=5000.0, body_seconds=5000.0, header_seconds=5000.0)


async def hold(gateway: Gateway) -> Connection:
    """A request that occupies its replica until the upstream's release."""
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(chunks=1, hang_after=-1)))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    return connection


async def enqueue(gateway: Gateway, chunks: int = 1, **headers: str) -> Connection:
    """A request that finds no room."""
    connection = await gateway.connect()
    before = gateway.route.queued
    connection.send(CHAT, body_for(CHAT, Script(chunks=chunks)), **headers)
    await gateway.until(lambda: gateway.route.queued == before + 1)
    return connection


async def test_what_finds_no_room_waits_and_is_sent_in_its_order(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1)
    first = await hold(gateway)
    waiting = [await enqueue(gateway, chunks) for chunks in (2, 3, 4)]
    assert all(not entry.sent for entry in list(gateway.ledger.values())[1:])
    gateway.upstream.release()
    for connection in (first, *waiting):
        assert (await connection.answer()).status == 200
    assert [seen.answer.completion_tokens for seen in gateway.upstream.seen] == [1, 2, 3, 4]
    assert gateway.upstream.stats.peak_in_flight == 1
    assert all(entry.sent for entry in gateway.ledger.values())


async def test_classes_take_weighted_turns_and_batch_fills_what_they_leave(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1)
    first = await hold(gateway)
    arrivals = ["batch"] * 2 + ["standard"] * 6 + ["interactive"] * 6
    waiting = [await enqueue(gateway, chunks, x_swell_priority=name) for chunks, name in enumerate(arrivals, 1)]
    gateway.upstream.release()
    for connection in (first, *waiting):
        assert (await connection.answer()).status == 200
    served = [arrivals[seen.answer.completion_tokens - 1] for seen in list(gateway.upstream.seen)[1:]]
    assert served[-2:] == ["batch", "batch"]
    assert served[:6].count("interactive") == 4
    assert served[0] == "interactive"


async def test_a_key_gets_no_better_class_than_its_own(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1, priority="standard")
    first = await hold(gateway)
    for asked in ("interactive", "standard", "nonsense", ""):
        await enqueue(gateway, x_swell_priority=asked)
    await enqueue(gateway, x_swell_priority="batch")
    waiting = {name: gateway.route.queue.waiting(name) for name in PRIORITIES}
    assert waiting == {"interactive": 0, "standard": 4, "batch": 1}
    gateway.upstream.release()
    assert (await first.answer()).status == 200
    await gateway.until(lambda: not gateway.service.exchanges)


async def test_a_full_queue_refuses_and_another_class_still_has_room(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1, bounds=Bounds(queued_requests=2))
    first = await hold(gateway)
    waiting = [await enqueue(gateway) for _ in range(2)]
    refused = await gateway.ask(CHAT, body_for(CHAT))
    assert (refused.status, refused.error, refused.headers["retry-after"]) == (503, "queue_full", "1")
    waiting.append(await enqueue(gateway, x_swell_priority="batch"))
    gateway.upstream.release()
    for connection in (first, *waiting):
        assert (await connection.answer()).status == 200
    assert len(gateway.ledger) == 4  # nothing was written for the one that never waited


@pytest.mark.parametrize(("name", "seconds"), [("interactive", 3.0), ("standard", 7.0), ("batch", 20.0)])
async def test_each_class_waits_its_own_time(start_gateway: StartGateway, name: str, seconds: float) -> None:
    queue_seconds = {"interactive": 3.0, "standard": 7.0, "batch": 20.0}
    gateway = await start_gateway(max_in_flight=1, queue_seconds=queue_seconds, timeouts=LONG_KEPT)
    first = await hold(gateway)
    waiting = await enqueue(gateway, x_swell_priority=name)
    gateway.pass_time(seconds - 0.1)
    assert gateway.route.queued == 1
    gateway.pass_time(0.3)
    answer = await waiting.answer()
    assert (answer.status, answer.error) == (503, "queue_timeout")
    assert answer.headers["retry-after"] == "1"
    assert gateway.outcomes_of("void") == [("void", 0, 0, 503)]
    gateway.upstream.release()
    assert (await first.answer()).status == 200


async def test_without_replicas_requests_are_held_until_one_is_there(start_gateway: StartGateway) -> None:
    gateway = await start_gateway()
    upstreams, gateway.upstreams = gateway.upstreams, []
    gateway.publish()
    waiting = await enqueue(gateway, 2)
    gateway.upstreams = upstreams
    gateway.publish()
    assert (await waiting.answer()).status == 200
    assert gateway.outcomes == [("settled", 11, 2, 200)]


async def test_requests_for_a_model_that_is_removed_are_told_in_time(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1, timeouts=LONG_KEPT)
    first = await hold(gateway)
    waiting = await enqueue(gateway)
    gateway.publish(models=())
    gateway.pass_time(31.0)
    answer = await waiting.answer()
    assert answer.status in (404, 503)
    gateway.upstream.release()
    assert (await first.answer()).status == 200


async def test_a_replica_is_ejected_after_failures_in_a_row_and_probed_with_one_request(
    start_gateway: StartGateway,
) -> None:
    gateway = await start_gateway(bounds=Bounds(retries=0), timeouts=LONG_KEPT)
    for _ in range(3):
        assert (await gateway.ask(CHAT, body_for(CHAT, Script(die_after=-1)))).status == 502
    waiting = [await enqueue(gateway, chunks) for chunks in (2, 3)]
    gateway.pass_time(0.9)
    assert gateway.upstream.stats.requests == 3
    gateway.upstream.script = Script(hang_after=-1)
    gateway.pass_time(0.2)
    await gateway.upstream.until(lambda: gateway.upstream.stats.requests == 4)
    assert gateway.route.queued == 1  # one probe, and the rest waits for its outcome
    assert (await waiting[0].answer()).status == 200
    gateway.service.check()
    assert (await waiting[1].answer()).status == 200


async def test_many_failures_at_once_eject_a_replica_no_longer_than_one(start_gateway: StartGateway) -> None:
    """Ten requests die with a replica that restarts: it is back after a second, not after a minute."""
    gateway = await start_gateway(bounds=Bounds(retries=0), timeouts=LONG_KEPT)
    connections = [await gateway.connect() for _ in range(10)]
    for connection in connections:
        connection.send(CHAT, body_for(CHAT, Script(hang_after=-1)))
    await gateway.upstream.until(lambda: len(gateway.upstream.held) == 10)
    gateway.upstream.drop()
    for connection in connections:
        assert (await connection.answer()).status == 502
    waiting = await enqueue(gateway)
    gateway.pass_time(1.1)
    assert (await waiting.answer()).status == 200


async def test_a_request_that_avoids_a_replica_delays_nobody_else(start_gateway: StartGateway) -> None:
    """One replica is dead, the other failed a single request: everyone else goes on with it at once."""
    gateway = await start_gateway(replicas=2, routing="round_robin", timeouts=LONG_KEPT)
    await gateway.upstreams[1].close()
    for _ in range(6):
        assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    assert gateway.replica(1).health.is_ejected
    unlucky = await gateway.connect()
    unlucky.send(CHAT, body_for(CHAT, Script(die_after=-1)))
    await gateway.until(lambda: gateway.route.queued == 1 or not gateway.service.exchanges)
    for _ in range(3):
        assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    gateway.pass_time(40.0)
    assert (await unlucky.answer()).status in (502, 503)


class FullSpool(Spool):
    """A spool that has no room for more while `full`."""

    full = False

    def append(self, record: SpoolRecord) -> None:
        if self.full:
            raise AtCapacity("no room", retry_after_seconds=5.0)
        super().append(record)


def fill_spool(gateway: Gateway) -> FullSpool:
    spool = gateway.service.spool
    spool.__class__ = FullSpool
    assert isinstance(spool, FullSpool)
    spool.full = True
    return spool


async def test_a_full_spool_refuses_and_nothing_is_sent(gateway: Gateway) -> None:
    spool = fill_spool(gateway)
    for _ in range(2):
        answer = await gateway.ask(CHAT, body_for(CHAT))
        assert (answer.status, answer.error, answer.headers["retry-after"]) == (503, "spool_full", "5")
    assert gateway.upstream.stats.requests == 0
    spool.full = False
    assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    assert gateway.outcomes == [("settled", 11, 1, 200)]


async def test_a_full_spool_loses_no_kept_connection(gateway: Gateway) -> None:
    await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))
    spool = fill_spool(gateway)
    assert (await gateway.ask(CHAT, body_for(CHAT))).status == 503
    spool.full = False
    assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200
    assert gateway.upstream.stats.connections == 1


async def test_outcomes_wait_for_room_in_the_spool(gateway: Gateway) -> None:
    connection = await hold(gateway)
    spool = fill_spool(gateway)
    gateway.upstream.release()
    assert (await connection.answer()).status == 200
    gateway.service.check()
    spool.full = False
    gateway.service.check()
    assert gateway.outcomes == [("settled", 11, 1, 200)]


async def test_a_long_queue_is_refused_when_the_spool_is_full(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1)
    first = await hold(gateway)
    waiting = [await enqueue(gateway) for _ in range(300)]
    spool = fill_spool(gateway)
    gateway.upstream.release()
    assert (await first.answer()).status == 200
    for connection in waiting:
        assert (await connection.answer()).status == 503
    spool.full = False
    gateway.service.check()
    assert gateway.upstream.stats.requests == 1


async def test_a_probe_that_the_spool_refuses_is_followed_by_another(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(bounds=Bounds(retries=0))
    for _ in range(3):
        assert (await gateway.ask(CHAT, body_for(CHAT, Script(die_after=-1)))).status == 502
    gateway.clock.advance(1.1)
    spool = fill_spool(gateway)
    assert (await gateway.ask(CHAT, body_for(CHAT))).status == 503
    spool.full = False
    assert (await gateway.ask(CHAT, body_for(CHAT, Script(chunks=1)))).status == 200


async def test_batch_leaves_a_quarter_of_a_replica_to_others_while_others_come(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=4, replicas=1, timeouts=LONG_KEPT, queue_seconds={"batch": 5000.0})
    first = await hold(gateway)  # of another class
    running = [first]
    for count in (2, 3):
        running.append(await gateway.connect())
        running[-1].send(CHAT, body_for(CHAT, Script(chunks=1, hang_after=-1)), x_swell_priority="batch")
        await gateway.upstream.until(lambda count=count: len(gateway.upstream.held) == count)
    waits = await enqueue(gateway, x_swell_priority="batch")
    running.append(await gateway.connect())
    running[-1].send(CHAT, body_for(CHAT, Script(chunks=1, hang_after=-1)), x_swell_priority="standard")
    await gateway.upstream.until(lambda: len(gateway.upstream.held) == 4)
    assert gateway.route.queue.waiting("batch") == 1, "who came later and is promised a time passes it"
    gateway.upstream.release()
    for connection in (*running, waits):
        assert (await connection.answer()).status == 200


async def test_batch_alone_has_all_of_a_replica(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=4, timeouts=LONG_KEPT)
    assert (await gateway.ask(CHAT, body_for(CHAT))).status == 200
    gateway.clock.advance(OTHERS_SECONDS + 1)
    running = []
    for count in (1, 2, 3, 4):
        running.append(await gateway.connect())
        running[-1].send(CHAT, body_for(CHAT, Script(chunks=1, hang_after=-1)), x_swell_priority="batch")
        await gateway.upstream.until(lambda count=count: len(gateway.upstream.held) == count)
    assert gateway.route.queued == 0
    gateway.upstream.release()
    for connection in running:
        assert (await connection.answer()).status == 200


async def test_all_requests_of_a_batch_model_are_batch(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1, priority="interactive")
    gateway.model = msgspec.structs.replace(gateway.model, priority="batch")
    gateway.publish()
    first = await hold(gateway)
    waiting = [await enqueue(gateway, x_swell_priority=asked) for asked in ("interactive", "standard", "")]
    assert gateway.route.queue.waiting("batch") == 3
    gateway.upstream.release()
    for connection in (first, *waiting):
        assert (await connection.answer()).status == 200
