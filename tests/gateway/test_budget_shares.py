"""Budgets over many workers: never a nano-dollar over the cap, whatever dies; nearly all of it when nothing does."""

import os
import random
from collections.abc import Sequence

import pytest
from budget_world import World, limit
from hypothesis import given
from hypothesis import strategies as st

from swell.gateway.budget_shares import BUSY_SECONDS, exceeded
from swell.gateway.directory import Key
from swell.state.budgets import BudgetLimit
from swell.state.messages import LeaseDeny, LeaseRecall
from swell.state.snapshot import KeyEntry

SEED = int(os.environ.get("SWELL_BUDGET_SEED", "20261129"))
USD = 10**9


@pytest.mark.parametrize("part", range(10))
def test_two_hundred_seeded_runs_with_faults_never_spend_more_than_the_cap(part: int) -> None:
    for run in range(20):
        seed = SEED + part * 20 + run
        print(f"seed {seed}")
        dice = random.Random(seed)
        largest = dice.choice((USD // 100, USD // 10, USD // 2, USD * 2))
        limits = [limit(USD), limit(dice.choice((USD // 2, USD, 3 * USD)), "other", grace=dice.choice((0, USD // 20)))]
        world = World(limits[: dice.randint(1, 2)], dice.randint(1, 4))
        for _ in range(120):
            world.hammer(dice, (largest // 10, largest), faults=0.1)
            world.check()
        world.settle_down(BUSY_SECONDS + 1)
        assert not [request for request in world.requests if request.state == "waiting"]
        for request in world.running():
            request.end(request.bound)
        world.settle_down(3.0)
        world.check()
        world.check_books()


@pytest.mark.parametrize("part", range(10))
def test_without_faults_all_but_three_percent_is_used_before_it_blocks(part: int) -> None:
    for run in range(5):
        seed = SEED + 1000 + part * 5 + run
        print(f"seed {seed}")
        dice = random.Random(seed)
        world = World([limit(USD)], dice.randint(1, 4))
        while not _is_blocked(world):
            world.hammer(dice, (USD // 2000, USD // 100), faults=0.0)
            world.check()
        used = sum(request.charge for request in world.requests)
        assert used >= 0.97 * USD, f"{used / USD:.4f}"


def _is_blocked(world: World) -> bool:
    """The last hundred that were decided were refused, and nothing runs that could leave something."""
    decided = [request.state for request in world.requests if request.state in ("ended", "refused")]
    return decided[-100:] == ["refused"] * 100 and not world.running()


def test_a_lone_request_may_have_the_last_nano_dollar() -> None:
    world = World([limit(1000)], 2)
    first, second = world.workers
    for worker, bound in ((first, 400), (second, 599), (first, 1)):
        request = world.ask(worker, bound)
        world.settle_down(1.0)
        assert request.state == "admitted"
        request.end(bound)
    last = world.ask(second, 1)
    world.settle_down(0.5)
    assert (last.state, last.code) == ("refused", "budget_exceeded")


def test_requests_are_admitted_until_the_grace_is_spent_to_the_last_nano_dollar() -> None:
    world = World([limit(1000, grace=50)], 2)
    first, second = world.workers
    for worker, bound in ((first, 1000), (second, 49), (first, 1)):
        request = world.ask(worker, bound)
        world.settle_down(1.0)
        assert request.state == "admitted"
        request.end(bound)
    world.settle_down(1.0)
    (standing,) = world.book.standings()
    assert (standing.left_usd_nanos, standing.grace_used_usd_nanos) == (0, 50)
    last = world.ask(second, 1)
    world.settle_down(0.5)
    assert (last.state, last.code) == ("refused", "budget_exceeded")
    assert world.ask(first, 1051).code == "never"


def test_who_only_reservations_stand_in_the_way_of_waits_two_seconds() -> None:
    world = World([limit(1000)], 2)
    running = world.ask(world.workers[0], 800)
    world.settle_down(0.5)
    waits, gives_up = world.ask(world.workers[1], 300), world.ask(world.workers[1], 900)
    world.settle_down(1.0)
    assert (waits.state, gives_up.state) == ("waiting", "waiting")
    running.end(500)
    world.settle_down(0.5)
    assert waits.state == "admitted"
    assert (gives_up.state, gives_up.code) == ("refused", "budget_exceeded")
    late = world.ask(world.workers[0], 400)
    world.settle_down(BUSY_SECONDS + 0.5)
    assert (late.state, late.code) == ("refused", "budget_reserved")


def test_rests_that_are_scattered_over_workers_are_brought_together() -> None:
    world = World([limit(1000)], 4)
    for worker in world.workers:
        request = world.ask(worker, 100)
        world.deliver()
        assert request.state == "admitted"
        request.end(50)
    asked = [world.ask(worker, 700) for worker in world.workers]
    world.settle_down(BUSY_SECONDS)
    states = [request.state for request in asked]
    assert states.count("admitted") == 1


def test_workers_whose_needs_just_fit_into_three_budgets_do_not_refuse_each_other() -> None:
    """In any order of the messages: none waits for what another keeps that waits for what it has itself."""
    for seed in range(150):
        dice = random.Random(seed)
        bounds = [dice.randint(1, 200) for _ in range(dice.randint(2, 4))]
        budgets = [limit(sum(bounds) + dice.choice((0, 0, 5, 100)), name) for name in ("one", "two", "three")]
        world = World(budgets, len(bounds))
        for worker, bound in zip(world.workers, bounds, strict=True):
            world.ask(worker, bound)
            for _ in range(dice.randint(0, 6)):
                dice.choice((world.to_server, world.to_worker))(dice.choice(world.workers))
                world.store_leases()
        world.settle_down(BUSY_SECONDS + 1)
        assert [request.state for request in world.requests] == ["admitted"] * len(bounds), f"seed {seed}"
        world.check()


def test_a_request_of_more_than_the_whole_budget_is_refused_at_once() -> None:
    world = World([limit(1000)], 1)
    assert world.ask(world.workers[0], 1001).code == "never"


def test_it_is_refused_at_once_also_where_another_budget_would_let_it_wait() -> None:
    """It would be told to try again for a budget that it never fits, and have others' reservations called back."""
    world = World([limit(1000), limit(100, "other")], 2)
    world.ask(world.workers[0], 90)
    world.settle_down(0.5)
    asked = world.ask(world.workers[1], 101)
    assert (asked.state, asked.code) == ("refused", "never")
    assert not world.workers[1].to_server


def test_a_new_period_begins_with_a_new_budget_and_the_old_one_is_settled_apart() -> None:
    old, new = limit(1000, end_ms=1_100_000), limit(1000, start_ms=1_100_000)
    world = World([old, new], 2)
    over = world.ask(world.workers[0], 900)
    world.settle_down(0.5)
    refused = world.ask(world.workers[1], 200)
    world.settle_down(BUSY_SECONDS + 0.5)
    assert (over.state, refused.state) == ("admitted", "refused")
    world.clock.advance(100.0)
    fresh = world.ask(world.workers[1], 1000)
    world.settle_down(0.5)
    assert fresh.state == "admitted"
    over.end(850)
    fresh.end(100)
    world.settle_down(3.0)
    assert [standing.spent_usd_nanos for standing in world.book.standings()] == [850, 100]
    world.check_books()


def test_a_refusal_says_what_is_left_and_what_the_request_may_cost_without_a_period_where_there_is_none() -> None:
    deny = LeaseDeny("", 0, 7200.0, is_final=True, remaining=20_000_000)
    day = limit(USD, start_ms=0, end_ms=86_400_000)
    assert exceeded(day, deny, 30_000_000).message == (
        "Of the budget of $1.00 for tenant 'search' in the month $0.02 is left, and this request may cost $0.03. "
        "It begins anew in 2 h."
    )
    assert exceeded(limit(USD), deny, 30_000_000).message == (
        "Of the budget of $1.00 for tenant 'search' $0.02 is left, and this request may cost $0.03."
    )


@given(bounds=st.lists(st.integers(1, 400), min_size=1, max_size=30), cap=st.integers(1, 2000))
def test_whatever_fits_is_admitted_to_a_lone_worker(bounds: list[int], cap: int) -> None:
    world = World([limit(cap)], 1)
    left = cap
    for bound in bounds:
        request = world.ask(world.workers[0], bound)
        world.settle_down(0.5)
        assert request.state == ("admitted" if bound <= left else "refused")
        if request.state == "admitted":
            request.end(bound)
            world.settle_down(0.5)
            left -= bound


def test_a_killed_workers_idle_lease_comes_back_and_its_open_requests_stand_at_their_bounds() -> None:
    world = World([limit(10_000)], 2)
    first, second = world.workers
    done, running = world.ask(first, 1000), world.ask(first, 500)
    world.settle_down(0.5)
    done.end(100)
    world.kill(first)
    world.ingest()
    (standing,) = world.book.standings()
    assert (standing.spent_usd_nanos, standing.reserved_usd_nanos) == (600, 0)
    assert running.state == "lost"
    rest = world.ask(second, 9_400)
    world.settle_down(0.5)
    assert rest.state == "admitted"


def test_a_lost_grant_counts_as_spent_until_the_worker_tells_that_it_has_it_not() -> None:
    world = World([limit(1000)], 1)
    (worker,) = world.workers
    request = world.ask(worker, 600)
    world.to_server(worker)
    world.store_leases()
    world.restart_server()  # the grant is stored, and never arrives
    assert sum(lease.granted_usd_nanos for lease in world.store.list_leases()) == 600
    (standing,) = world.book.standings()
    assert standing.left_usd_nanos == 400
    world.settle_down(1.0)
    assert request.state == "admitted"
    share = worker.budget_shares[0]
    assert world.book.standings()[0].reserved_usd_nanos == share.balance + share.in_use
    assert share.in_use == 600


def restarted_with(world: World, limits: Sequence[BudgetLimit]) -> None:
    """The server begins anew with other budgets in its file; the workers live on and are told."""
    for worker in world.living():
        worker.disconnect()
    world.limits = tuple(limits)
    world.restart_server()
    for worker in world.living():
        worker.connect()
        worker.shares.keep_budgets(world.limits)
        worker.key = Key(KeyEntry("k", "search", ()), None, worker.shares, world.limits)
        world.deliver()
    world.settle_down(3.0)


@pytest.mark.parametrize("between", [0, 30])
def test_a_budget_that_is_taken_out_and_put_back_knows_what_was_spent(between: int) -> None:
    budget = limit(100)
    world = World([budget], 1)
    (worker,) = world.workers
    for charge in (40, 40, between):
        if charge == between:
            restarted_with(world, [])
        request = world.ask(worker, charge)
        world.settle_down(1.0)
        assert request.state == "admitted"
        request.end(charge)
    world.settle_down(3.0)
    restarted_with(world, [budget])
    assert world.book.standings()[0].spent_usd_nanos >= min(100, 80 + between)
    late = world.ask(worker, 30)
    world.settle_down(BUSY_SECONDS + 1)
    assert late.state == "refused"


def test_it_does_also_where_another_budgets_next_period_is_far_away() -> None:
    day_ms = 86_400_000
    budget, month = limit(100, end_ms=day_ms), limit(1000, "month", end_ms=30 * day_ms)
    after = limit(1000, "month", start_ms=30 * day_ms)
    world = World([budget, month, after], 1)
    request = world.ask(world.workers[0], 80)
    world.settle_down(1.0)
    request.end(80)
    world.settle_down(3.0)
    restarted_with(world, [month, after])
    restarted_with(world, [budget, month, after])
    spent = {standing.limit.name: standing.spent_usd_nanos for standing in world.book.standings()}
    assert spent[budget.name] == 80


def test_a_clock_that_jumps_over_the_end_of_a_period_and_back_gives_nothing_twice() -> None:
    old, new = limit(100, end_ms=1_100_000), limit(100, start_ms=1_100_000)
    world = World([old], 1)
    (worker,) = world.workers
    request = world.ask(worker, 80)
    world.settle_down(0.5)
    request.end(80)
    world.settle_down(3.0)
    restarted_with(world, [new])
    restarted_with(world, [old])
    assert world.book.standings()[0].spent_usd_nanos == 80


def test_a_lowered_cap_calls_back_what_lies_idle() -> None:
    world = World([limit(1000)], 4)
    for worker in world.workers:
        world.ask(worker, 1)
        world.deliver()
    for request in world.running():
        request.end(1)
    for worker in world.living():
        worker.disconnect()
    world.limits = (limit(10),)
    world.restart_server()
    for worker in world.living():
        worker.connect()
        for name in world.book.overdrawn():
            worker.to_worker.append(LeaseRecall(name))
    world.deliver()
    assert world.book.overdrawn() == []
    assert sum(share.balance for worker in world.workers for share in worker.budget_shares) == 0
