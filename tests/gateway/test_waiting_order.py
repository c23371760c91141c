"""The order of those who wait, by when their first token is due; who is late is demoted or refused."""

import numpy as np
import pytest
from gateway_under_test import Gateway, StartGateway
from http_client import CHAT, Connection, body_for

from swell.policy.routing import POLICIES, Candidate, Request, View
from swell.simulator.result import Scenario
from swell.simulator.run import replay
from swell.state.scaling import Decision, LatencyProfile, Objective, Observation, Pool
from swell.state.traffic import Traffic
from swell.state.worker import Timeouts
from swell.testing.upstream_script import Script

LONG_KEPT = Timeouts(keep_alive_seconds=5000.0, body_seconds=5000.0, header_seconds=5000.0)
PER_1K_MS = 4000.0


async def hold(gateway: Gateway) -> Connection:
    """A request that occupies its replica until the upstream's release."""
    connection = await gateway.connect()
    connection.send(CHAT, body_for(CHAT, Script(chunks=1, hang_after=-1)))
    await gateway.upstream.until(lambda: bool(gateway.upstream.held))
    return connection


async def enqueue(gateway: Gateway, name: int, text: int = 40, *, stream: bool = False, **headers: str) -> Connection:
    """A request that finds no room: it is known by how many tokens it asks for, and its prompt has `text` bytes."""
    connection = await gateway.connect()
    before = gateway.route.queued
    messages = [{"role": "user", "content": "x" * text}]
    connection.send(CHAT, body_for(CHAT, Script(chunks=name), messages=messages, stream=stream), **headers)
    await gateway.until(lambda: gateway.route.queued == before + 1)
    return connection


def served(gateway: Gateway) -> list[int]:
    """The names in order of service, but for the request that held the replica."""
    return [seen.answer.completion_tokens for seen in list(gateway.upstream.seen)[1:]]


async def release(gateway: Gateway, *connections: Connection) -> None:
    gateway.upstream.release()
    for connection in connections:
        assert (await connection.answer()).status == 200


async def test_whose_first_token_is_due_first_goes_first(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1, ttft_ms_per_1k_prompt_tokens=PER_1K_MS, timeouts=LONG_KEPT)
    first = await hold(gateway)
    waiting = [await enqueue(gateway, 1, 9000), await enqueue(gateway, 2, 3000)]
    gateway.clock.advance(2.0)
    waiting += [await enqueue(gateway, 3), await enqueue(gateway, 4, 5000)]
    await release(gateway, first, *waiting)
    assert served(gateway) == [3, 2, 4, 1]  # due after 7, 8, 12 and 14 s


async def test_who_cannot_be_in_time_any_more_lets_the_others_pass(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1, timeouts=LONG_KEPT)
    first = await hold(gateway)
    waiting = [await enqueue(gateway, name) for name in (1, 2)]
    gateway.pass_time(5.1)
    waiting += [await enqueue(gateway, name) for name in (3, 4)]
    await release(gateway, first, *waiting)
    assert served(gateway) == [3, 4, 1, 2]


async def test_who_was_demoted_long_ago_gets_turns_again(start_gateway: StartGateway) -> None:
    """With 5 s to the first token and 30 s in the queue, that is after 17.5 s."""
    gateway = await start_gateway(max_in_flight=1, timeouts=LONG_KEPT, queue_seconds={"interactive": 30.0})
    first = await hold(gateway)
    waiting = [await enqueue(gateway, name) for name in (1, 2)]
    gateway.pass_time(14.0)
    waiting += [await enqueue(gateway, name) for name in (3, 4, 5)]
    gateway.pass_time(4.0)
    await release(gateway, first, *waiting)
    assert served(gateway) == [3, 1, 4, 2, 5]


async def test_a_model_may_refuse_who_is_late(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1, refuses_late=True, timeouts=LONG_KEPT)
    first = await hold(gateway)
    late = [await enqueue(gateway, 1), await enqueue(gateway, 2, stream=True)]
    gateway.pass_time(4.9)
    assert gateway.route.queued == 2
    in_time = await enqueue(gateway, 3)
    gateway.pass_time(0.2)
    for connection in late:
        answer = await connection.answer()
        assert (answer.status, answer.error, answer.headers["retry-after"]) == (429, "too_late", "6")
    await release(gateway, first, in_time)
    assert served(gateway) == [3]
    assert gateway.outcomes_of("void") == [("void", 0, 0, 429)] * 2
    [load] = gateway.service.load().models
    assert load.judged - load.completed == 2, "a refusal is a miss"


async def test_batch_waits_for_its_time_whatever_the_objective(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1, refuses_late=True, timeouts=LONG_KEPT)
    first = await hold(gateway)
    batch = [await enqueue(gateway, 1, 9000, x_swell_priority="batch")]
    batch.append(await enqueue(gateway, 2, x_swell_priority="batch"))
    gateway.pass_time(200.0)
    quick = await enqueue(gateway, 3)
    await release(gateway, first, *batch, quick)
    assert served(gateway) == [3, 1, 2]


async def test_who_is_held_for_a_start_is_not_refused_for_its_length(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(max_in_flight=1, refuses_late=True, hold_seconds=100.0, timeouts=LONG_KEPT)
    upstreams, gateway.upstreams = gateway.upstreams, []
    gateway.publish()
    waiting = [await enqueue(gateway, name) for name in (1, 2)]
    gateway.pass_time(90.0)
    gateway.upstreams = upstreams
    gateway.publish()
    gateway.pass_time(1.0)
    for connection in waiting:
        assert (await connection.answer()).status == 200


async def test_one_whose_replica_died_waits_by_its_own_deadline(start_gateway: StartGateway) -> None:
    gateway = await start_gateway(replicas=2, max_in_flight=1, refuses_late=True, timeouts=LONG_KEPT)
    unlucky = await gateway.connect()
    unlucky.send(CHAT, body_for(CHAT, Script(hang_after=-1)))
    await gateway.upstreams[1].until(lambda: bool(gateway.upstreams[1].held))
    first = await hold(gateway)
    gateway.upstreams[1].drop()
    await gateway.until(lambda: gateway.route.queued == 1)
    gateway.pass_time(5.1)
    assert (await unlucky.answer()).error == "too_late"
    assert gateway.outcomes_of("estimated") == [("estimated", 0, 0, 429)]
    await release(gateway, first)


# Live and simulated


class One:
    """One replica, always."""

    interval_seconds = 10.0

    def decide(self, seen: Observation) -> Decision:
        return Decision(seen.now, (("X", 1),), "one", "plan")


def simulated_order(arrivals: list[tuple[float, int]], frees_at: float, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The order in which the simulator sends out `arrivals`, when a replica that takes one at a time becomes free."""
    order: list[int] = []

    choose = POLICIES["least_outstanding_tokens"]

    def noting(view: View, request: Request) -> Candidate | None:
        chosen = choose(view, request)
        if chosen is not None:
            order.append(request.turn)
        return chosen

    monkeypatch.setitem(POLICIES, "noting", noting)
    profile = LatencyProfile("m", "X", 1, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, kv_tokens=10_000_000)
    occupies = round(frees_at * 1000)
    columns = [0.0, *(at for at, _ in arrivals)], [1, *(n for _, n in arrivals)], [occupies, *(1 for _ in arrivals)]
    traffic = Traffic(np.array(columns[0]), *(np.array(column, np.int32) for column in columns[1:]))
    objective = Objective(5000.0, 1e9, 0.5, PER_1K_MS)
    pool = Pool("X", profile, 1.0, 1.0)
    replay(Scenario(traffic, (pool,), objective, 1, 1, max_in_flight=1, routing="noting"), One())
    return [index - 1 for index in order[1:]]


@pytest.mark.parametrize("seed", range(4))
async def test_the_same_arrivals_go_out_in_the_same_order_as_in_the_simulator(
    seed: int, start_gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some in time, some late, with prompts of any length; both fall due by the same objective."""
    rng = np.random.default_rng(seed)
    gateway = await start_gateway(max_in_flight=1, ttft_ms_per_1k_prompt_tokens=PER_1K_MS, timeouts=LONG_KEPT)
    first = await hold(gateway)
    begun, waiting, arrivals = gateway.clock.monotonic(), [], []
    for name in range(1, 25):
        gateway.clock.advance(float(rng.uniform(0.05, 0.8)))
        waiting.append(await enqueue(gateway, name, int(rng.integers(1, 12_000))))
        newest = max(gateway.service.exchanges, key=lambda exchange: exchange.started)
        arrivals.append((newest.started - begun, newest.admitted.prompt_tokens_estimate))
    gateway.clock.advance(0.3)
    expected = simulated_order(arrivals, gateway.clock.monotonic() - begun, monkeypatch)
    await release(gateway, first, *waiting)
    assert [name - 1 for name in served(gateway)] == expected
    assert sorted(expected) == list(range(24))
    assert expected != list(range(24)), "some pass others"
