"""Shares against the real lease book: never more than a limit, never for ever, and all of it for a lone worker."""

import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lease_world import World

from swell.state.snapshot import Limits

limits = st.builds(
    Limits,
    requests_per_minute=st.one_of(st.none(), st.integers(1, 20)),
    tokens_per_minute=st.one_of(st.none(), st.integers(1, 300)),
    concurrent_requests=st.one_of(st.none(), st.integers(1, 6)),
)
number = st.integers(0, 10**6)
actions = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), number, st.integers(1, 120)),
        st.tuples(st.just("ask"), number, st.integers(1, 10)),
        st.tuples(st.just("end"), number, st.floats(0.0, 1.0)),
        st.tuples(st.just("leave"), number, st.none()),
        st.tuples(st.just("to_server"), number, st.none()),
        st.tuples(st.just("to_worker"), number, st.none()),
        st.tuples(st.just("deliver"), st.none(), st.none()),
        st.tuples(st.just("turn"), st.none(), st.none()),
        st.tuples(st.just("pass"), st.integers(1, 40), st.none()),
        st.tuples(st.just("disconnect"), number, st.none()),
        st.tuples(st.just("connect"), number, st.none()),
        st.tuples(st.just("kill"), number, st.none()),
        st.tuples(st.just("start"), st.none(), st.none()),
        st.tuples(st.just("restart_server"), st.none(), st.none()),
    ),
    max_size=60,
)


def act(world: World, action: tuple[str, Any, Any]) -> None:
    """Do one thing, where it is possible."""
    name, which, how = action
    living = world.living()
    worker = living[which % len(living)] if living and which is not None and name != "pass" else None
    running = [request for request in world.requests if request.state == "admitted"]
    waiting = [request for request in world.requests if request.state == "waiting"]
    if name == "ask" and worker:
        world.ask(worker, how)
    elif name == "end" and running:
        request = running[which % len(running)]
        world.end(request, int(request.tokens * how))
    elif name == "leave" and waiting:
        waiting[which % len(waiting)].leave()
    elif name == "to_server" and worker:
        world.deliver_to_server(worker)
    elif name == "to_worker" and worker:
        world.deliver_to_worker(worker)
    elif name == "deliver":
        world.deliver()
    elif name == "turn":
        world.turn()
    elif name == "pass":
        for _ in range(which):
            world.turn()
            world.deliver()
    elif name == "disconnect" and worker and worker.connected:
        worker.disconnect()
    elif name == "connect" and worker and not worker.connected:
        worker.connect()
    elif name == "kill" and worker:
        world.kill(worker)
    elif name == "start" and len(living) < 4:
        world.start_worker()
    elif name == "restart_server":
        world.restart_server()


EACH_HOLDS_WHAT_THE_OTHER_WANTS = Limits(requests_per_minute=2, tokens_per_minute=1, concurrent_requests=1)


@settings(max_examples=400)
@example(limits=EACH_HOLDS_WHAT_THE_OTHER_WANTS, workers=2, actions=[("ask", 0, 1), ("ask", 1, 1)])
@given(limits=limits, workers=st.integers(1, 3), actions=actions)
def test_whatever_happens_limits_hold_and_nobody_waits_for_ever(
    limits: Limits, workers: int, actions: list[tuple[str, Any, Any]]
) -> None:
    world = World(limits, workers)
    for action in actions:
        act(world, action)
        world.check()
    world.settle_down(4.0)  # an exchange gives up after `lease_seconds` anyway
    assert not [request for request in world.requests if request.state == "waiting"]
    for request in world.requests:
        if request.state == "admitted":
            world.end(request, request.tokens)
    world.settle_down(2.0)
    world.check()
    world.check_windows()
    world.check_books_agree()


@settings(max_examples=60)
@given(limits=limits, workers=st.integers(1, 3), actions=actions)
def test_after_a_quiet_minute_the_whole_limit_is_there_again(
    limits: Limits, workers: int, actions: list[tuple[str, Any, Any]]
) -> None:
    world = World(limits, workers)
    for action in actions:
        act(world, action)
    world.settle_down(4.0)
    for request in world.requests:
        if request.state == "admitted":
            world.end(request, request.tokens)
    world.settle_down(75.0)
    now = world.clock.monotonic()
    for measure in ("requests_per_minute", "tokens_per_minute", "concurrent_requests"):
        value = getattr(limits, measure)
        assert world.book.remaining(f"key:k:{measure}", now) == value


@pytest.mark.parametrize("workers", [1, 2, 3])
@given(limit=st.integers(1, 60))
def test_exactly_so_many_requests_pass_as_the_limit_says(workers: int, limit: int) -> None:
    """Spread over all workers, one after the other, each waiting as long as it must."""
    world = World(Limits(requests_per_minute=limit), workers)
    states = []
    for index in range(limit + 3):
        request = world.ask(world.workers[index % workers], 1)
        for _ in range(8):
            world.deliver()
            if request.state != "waiting":
                break
            world.turn()
        states.append(request.state)
    assert states == ["admitted"] * limit + ["refused"] * 3


@given(limit=st.integers(1, 2000), sizes=st.lists(st.integers(1, 2000), min_size=1, max_size=30))
def test_a_lone_worker_can_use_the_whole_limit(limit: int, sizes: list[int]) -> None:
    """Whatever still fits into the limit is admitted."""
    world = World(Limits(tokens_per_minute=limit), 1)
    left = limit
    for size in sizes:
        request = world.ask(world.workers[0], size)
        for _ in range(8):
            world.deliver()
            if request.state != "waiting":
                break
            world.turn()
        assert request.state == ("admitted" if size <= left else "refused")
        left -= size if request.state == "admitted" else 0


@given(limit=st.integers(1, 8), workers=st.integers(1, 3))
def test_concurrency_moves_to_where_it_is_needed(limit: int, workers: int) -> None:
    world = World(Limits(concurrent_requests=limit), workers)
    for worker in world.workers:
        running = [world.ask(worker, 1) for _ in range(limit)]
        world.settle_down(1.5)
        assert [request.state for request in running] == ["admitted"] * limit
        refused = world.ask(worker, 1)
        world.settle_down(2.0)
        assert refused.state == "refused"
        for request in running:
            world.end(request, 1)


@pytest.mark.parametrize("askers", [2, 3, 4])
def test_shares_do_not_go_to_and_fro_between_workers_that_each_hold_what_the_others_want(askers: int) -> None:
    """The first of them gets all that it needs; the others hear which limit is reached, before they give up."""
    world = World(EACH_HOLDS_WHAT_THE_OTHER_WANTS, askers)
    requests = [world.ask(worker, 1) for worker in world.workers]
    world.settle_down(1.5)
    assert sorted(request.state for request in requests) == ["admitted"] + ["refused"] * (askers - 1)
    world.check()


@pytest.mark.parametrize("part", range(4))
def test_workers_whose_needs_just_fit_into_all_limits_never_wait_for_each_other(part: int) -> None:
    """In any order of the messages. Nobody is still waiting after 1.9 s: an exchange gives up after two."""
    for seed in range(part * 100, part * 100 + 100):
        dice = random.Random(seed)
        askers = dice.randint(2, 4)
        tokens = [dice.randint(1, 20) for _ in range(askers)]
        rate, most, places = (dice.choice((None, least, least + 2)) for least in (askers, sum(tokens), askers))
        world = World(Limits(requests_per_minute=rate, tokens_per_minute=most, concurrent_requests=places), askers)
        for worker, amount in zip(world.workers, tokens, strict=True):
            world.ask(worker, amount)
            for _ in range(dice.randint(0, 6)):
                dice.choice((world.deliver_to_server, world.deliver_to_worker))(dice.choice(world.workers))
        world.settle_down(1.9)
        assert [request.state for request in world.requests] == ["admitted"] * askers, f"seed {seed}"
        world.check()


def test_slots_in_use_are_neither_returned_nor_forgotten() -> None:
    world = World(Limits(concurrent_requests=4), 2)
    first, second = world.workers
    running = [world.ask(first, 1) for _ in range(3)]
    world.settle_down(3.0)
    share = first.key.concurrency_shares[0]
    assert (share.in_use, share.statement(world.clock.monotonic()).held) == (3, 3 + share.balance)
    first.shares.recall(share.limit)
    world.deliver()
    assert (share.in_use, share.balance) == (3, 0)
    assert world.book.remaining(share.limit, world.clock.monotonic()) == 1
    world.restart_server()
    for worker in world.workers:
        worker.connect()
    assert world.book.remaining(share.limit, world.clock.monotonic()) == 1
    taken = world.ask(second, 1)
    denied = world.ask(second, 1)
    world.settle_down(2.0)
    assert (taken.state, denied.state) == ("admitted", "refused")
    world.end(running[0], 1)
    after = world.ask(second, 1)
    world.settle_down(2.0)
    assert after.state == "admitted"
    world.check()


def test_what_was_used_before_two_restarts_of_the_server_still_counts() -> None:
    world = World(Limits(requests_per_minute=5), 1)
    for _ in range(5):
        world.ask(world.workers[0], 1)
        world.deliver()
    for _ in range(2):
        world.restart_server()
        world.settle_down(1.0)
    late = world.ask(world.workers[0], 1)
    world.settle_down(12.0)
    assert late.state == "refused"
    world.check_windows()


def test_debt_does_not_shrink_the_limit_after_a_reconnect() -> None:
    """A request that used more than its estimate: paid back once, not for ever."""
    world = World(Limits(tokens_per_minute=100), 1)
    (worker,) = world.workers
    request = world.ask(worker, 90)
    world.deliver()
    request.end(140)
    world.settle_down(1.0)
    worker.disconnect()
    world.settle_down(70.0)
    again = world.ask(worker, 100)
    world.settle_down(2.0)
    assert again.state == "admitted"
    request = world.ask(worker, 10)
    again.end(100)
    world.settle_down(70.0)
    assert world.book.remaining("key:k:tokens_per_minute", world.clock.monotonic()) == 100
