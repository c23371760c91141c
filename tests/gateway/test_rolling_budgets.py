"""Rolling budgets over many workers: no window of their length ever holds more than the cap, wherever it begins."""

import os
import random
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import pytest
from budget_world import Request, World, limit
from hypothesis import given
from hypothesis import strategies as st

from swell.gateway.budget_shares import BUSY_SECONDS
from swell.gateway.directory import Key
from swell.metering.budgets import BudgetBook, BudgetDeny, BudgetGrant
from swell.state.budgets import SLOTS, BudgetLimit, Scope
from swell.state.snapshot import KeyEntry

SEED = int(os.environ.get("SWELL_BUDGET_SEED", "20261129"))
WINDOW_MS = 60_000  # a slot is a second, so that requests wait over the ends of slots
SLOT_MS = WINDOW_MS // SLOTS
CAP = 10_000


def slots(now_ms: int, cap: int = CAP) -> list[BudgetLimit]:
    """The present slot and the next."""
    first = BudgetLimit("", "budget:rolls", Scope.TENANT, "search", cap, "rolling 1min", window_ms=WINDOW_MS)
    return [first.slot_at(now_ms), first.slot_at(now_ms + SLOT_MS)]


class RollingWorld(World):
    """A world whose server tells of new slots when `tell` is called, which may be late."""

    def __init__(self, workers: int, others: Sequence[BudgetLimit] = ()) -> None:
        self.others = others  # of budgets that do not roll, beside it
        super().__init__([*slots(1_000_000), *others], workers)

    def tell(self) -> None:
        limits = (*slots(self.unix_ms), *self.others)
        if limits == self.limits:
            return
        self.limits = limits
        spends = self.store.open_budgets(self.book.unknown(limits))
        self.book.set_limits(limits, {spend.limit: spend.spent_usd_nanos for spend in spends})
        self.store.forget_budgets(0, {limits[0].budget_id: limits[0].start_unix_ms - 2 * WINDOW_MS})
        for worker in self.living():
            worker.shares.keep_budgets(limits)
            worker.key = Key(KeyEntry("k", "search", ()), None, worker.shares, limits)

    def settle_down(self, seconds: float) -> None:
        for _ in range(max(1, int(seconds))):
            self.tell()
            super().settle_down(1.0)
        self.tell()

    def check(self) -> None:
        assert fullest_window(self.requests) <= CAP

    def check_books(self) -> None:
        (standing,) = self.book.standings(self.unix_ms / 1000)
        begin, end = standing.limit.window_start_unix_ms, standing.limit.end_unix_ms or 0
        assert standing.spent_usd_nanos == sum(r.spent for r in self.requests if begin <= r.unix_ms < end)


def fullest_window(requests: list[Request]) -> int:
    """The most that requests admitted within any window may have spent."""
    timed = sorted((request.unix_ms, request.spent) for request in requests)
    sums = [0, *accumulate(spent for _, spent in timed)]
    return max((sums[bisect_left(timed, (at + WINDOW_MS, -1))] - sums[i] for i, (at, _) in enumerate(timed)), default=0)


@pytest.mark.parametrize("part", range(10))
def test_no_window_ever_holds_more_than_the_cap_whatever_dies(part: int) -> None:
    for run in range(6):
        seed = SEED + part * 20 + run
        print(f"seed {seed}")
        dice = random.Random(seed)
        largest = dice.choice((CAP // 100, CAP // 10, CAP // 2, CAP))
        world = RollingWorld(dice.randint(1, 4))
        for _ in range(150):
            world.hammer(dice, (max(1, largest // 10), largest), faults=0.1)
            if dice.random() < 0.3:
                world.clock.advance(dice.choice((0.1, 0.9, 5.0, 20.0, 61.0)) * dice.random())
            if dice.random() < 0.7:
                world.tell()
        world.check()
        world.settle_down(BUSY_SECONDS + 2)
        assert not [request for request in world.requests if request.state == "waiting"]
        for request in world.running():
            request.end(request.bound)
        world.settle_down(3.0)
        world.check()
        world.check_books()


def test_who_asks_late_is_told_of_what_was_spent_in_later_slots_as_well() -> None:
    """Whoever tries again does so in a later slot than the one in which the request came."""
    world = RollingWorld(1)
    [worker] = world.workers
    came_in = world.limits[0].name
    world.settle_down(SLOT_MS / 1000)
    spent = world.ask(worker, 10_000)
    World.settle_down(world, 0.4)  # less than a slot
    assert spent.state == "admitted"
    spent.end(10_000)
    World.settle_down(world, 0.4)  # less than a slot
    deny = world.book.request(worker.name, came_in, 1, 1, world.unix_ms / 1000)
    assert isinstance(deny, BudgetDeny)
    assert deny.is_final
    back_ms = spent.unix_ms // SLOT_MS * SLOT_MS + SLOT_MS + WINDOW_MS
    assert deny.retry_after_seconds == pytest.approx((back_ms - world.unix_ms) / 1000)


def test_what_was_spent_comes_back_when_its_slot_has_left_the_window_and_a_refusal_says_when() -> None:
    world = RollingWorld(2)
    first, second = world.workers
    for worker, bound in ((first, 4_000), (second, 6_000)):
        request = world.ask(worker, bound)
        world.settle_down(1.0)
        assert request.state == "admitted"
        request.end(bound)
        world.settle_down(9.0)
    refused = world.ask(first, 1)
    world.settle_down(1.0)
    assert (refused.state, refused.code) == ("refused", "budget_exceeded")
    standing = world.book.standings(world.unix_ms / 1000)[0]
    assert (standing.spent_usd_nanos, standing.left_usd_nanos) == (10_000, 0)
    assert standing.frees_unix_ms == world.requests[0].unix_ms // SLOT_MS * SLOT_MS + SLOT_MS + WINDOW_MS
    for need, since in ((4_000, 0), (4_001, 1)):  # enough leaves with the first, or only with the second
        deny = world.book.request(first.name, world.limits[0].name, need, need, world.unix_ms / 1000)
        assert isinstance(deny, BudgetDeny)
        back_ms = world.requests[since].unix_ms // SLOT_MS * SLOT_MS + SLOT_MS + WINDOW_MS
        assert deny.retry_after_seconds == pytest.approx((back_ms - world.unix_ms) / 1000)
    world.clock.advance((standing.frees_unix_ms - world.unix_ms) / 1000)
    world.tell()
    again = world.ask(second, 4_000)
    world.settle_down(1.0)
    assert again.state == "admitted"


def test_idle_leases_of_earlier_slots_are_called_back_for_a_later_one() -> None:
    world = RollingWorld(2)
    first, second = world.workers
    done = world.ask(first, 100)
    world.deliver()
    done.end(100)  # what it was granted beside lies idle in the first slot
    held = world.book.standings()[0].reserved_usd_nanos
    assert held > 1000
    world.clock.advance(1.0)
    world.tell()
    whole = world.ask(second, CAP - 100)
    world.settle_down(1.0)
    assert whole.state == "admitted"


def test_a_worker_that_is_told_of_no_new_slot_counts_nothing_for_an_old_one() -> None:
    world = RollingWorld(1)
    (worker,) = world.workers
    world.ask(worker, 100)
    world.settle_down(1.0)
    known = {share.limit for share in worker.budget_shares}
    worker.disconnect()
    world.clock.advance(10.0)
    late = world.ask(worker, 1)
    assert late.state == "waiting"
    (share,) = worker.key.budgets("m", late.unix_ms)
    assert share.limit not in known
    assert share.spec.contains(late.unix_ms)
    world.settle_down(1.0)
    assert late.state == "admitted"


def test_a_restarted_server_is_told_of_earlier_slots_whatever_other_budgets_there_are() -> None:
    """Workers know a budget's next period ahead; a slot is not over because a month's next period is far away."""
    month_ms = 30 * 86_400_000
    months = [limit(10 * CAP, "month", end_ms=month_ms), limit(10 * CAP, "month", start_ms=month_ms)]
    world = RollingWorld(1, months)
    (worker,) = world.workers
    request = world.ask(worker, 6_000)
    world.settle_down(1.0)
    request.end(6_000)
    world.settle_down(5.0)
    world.restart_server()
    worker.connect()
    standings = world.book.standings(world.unix_ms / 1000)
    spent = {standing.limit.budget_id: standing.spent_usd_nanos for standing in standings}
    assert spent["budget:rolls"] == 6_000
    late = world.ask(worker, 4_001)
    world.settle_down(BUSY_SECONDS + 1)
    assert (late.state, late.code) == ("refused", "budget_exceeded")


def test_a_worker_remembers_what_counts_and_forgets_what_does_not() -> None:
    world = RollingWorld(1)
    (worker,) = world.workers
    for _ in range(4 * SLOTS):
        request = world.ask(worker, 10)
        world.settle_down(1.0)
        assert request.state == "admitted"
        request.end(10)
        world.clock.advance(0.3)
    balances = worker.shares.connected(worker.to_server.append)
    assert SLOTS < len([each for each in balances if each.used_last_minute]) <= 2 * SLOTS + 4
    world.store_leases()
    assert SLOTS < len(world.store.list_leases()) <= 2 * SLOTS + 4
    world.restart_server()
    worker.connect()
    counted = [r for r in world.requests if r.unix_ms >= world.limits[0].window_start_unix_ms]
    assert world.book.standings(world.unix_ms / 1000)[0].spent_usd_nanos == 10 * len(counted)


Step = tuple[int, int, int, int]  # milliseconds that pass, the slot before the present one that asks, amount, part used


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 40_000), st.integers(0, 2), st.integers(1, 900), st.integers(0, 100)), max_size=80
    )
)
def test_a_book_alone_keeps_every_window_at_or_below_the_cap(steps: list[Step]) -> None:
    book, now = BudgetBook(), 1_000_000
    spends: list[tuple[int, int]] = []
    for passes, back, amount, percent in steps:
        now += passes
        limits = slots(now, cap=1000)
        book.set_limits(limits, {})
        if not spends:
            book.join("w", ())
        at = now - back * SLOT_MS
        answer = book.request("w", limits[0].slot_at(at).name, amount, amount, now / 1000)
        if isinstance(answer, BudgetGrant):
            used = amount * percent // 100
            book.report("w", limits[0].slot_at(at).name, used, answer.amount - used)
            spends.append((at, used))
    for begin, _ in spends:
        assert sum(used for at, used in spends if begin <= at < begin + WINDOW_MS) <= 1000


@given(gaps=st.lists(st.integers(0, 30_000), min_size=1, max_size=40))
def test_what_is_asked_when_it_fits_is_admitted(gaps: list[int]) -> None:
    """No more is withheld than a window and a slot have in them."""
    book, now = BudgetBook(), 1_000_000
    spends: list[tuple[int, int]] = []
    for gap in gaps:
        now += gap
        limits = slots(now, cap=1000)
        book.set_limits(limits, {})
        if not spends:
            book.join("w", ())
        recent = sum(used for at, used in spends if at >= now - WINDOW_MS - SLOT_MS)
        answer = book.request("w", limits[0].name, 200, 200, now / 1000)
        if recent <= 800:
            assert isinstance(answer, BudgetGrant)
        if isinstance(answer, BudgetGrant):
            book.report("w", limits[0].name, 200, answer.amount - 200)
            spends.append((now, 200))
