"""Keys of one tenant on workers that die, beside a server that is replaced: limits of each key, and the tenant's."""

import random

import pytest
from lease_world import MEASURES, WINDOW_SECONDS, Request, Worker, World

from swell.gateway.directory import Key
from swell.metering.leases import LeaseBook
from swell.state.snapshot import KeyEntry, Limits, TenantEntry

KEYS = ("k", "l")
GIVES_UP_SECONDS = 2.0  # an exchange's `lease_seconds`


class Tenant(World):
    """Two keys of a tenant, each with limits of its own."""

    def __init__(self, dice: random.Random, workers: int) -> None:
        self.tenant = TenantEntry("t", _limits(dice), "standard")
        self.entries = {name: KeyEntry(name, "t", (), limits=_limits(dice)) for name in KEYS}
        self._keys: dict[tuple[str, str], Key] = {}
        super().__init__(self.entries["k"].limits, workers)

    def _new_book(self, expected: tuple[str, ...] = ()) -> LeaseBook:
        book = super()._new_book(expected)
        for scope, limits in self.scopes().items():
            for measure in MEASURES:
                book.set_limit(f"{scope}:{measure}", getattr(limits, measure))
        return book

    def scopes(self) -> dict[str, Limits]:
        return {"tenant:t": self.tenant.limits, **{f"key:{name}": entry.limits for name, entry in self.entries.items()}}

    def ask_with(self, dice: random.Random) -> None:
        """One of the keys on one of the workers; who has waited as long as an exchange does gives up."""
        worker, name = dice.choice(self.living()), dice.choice(KEYS)
        key = self._keys.get((worker.name, name))
        if key is None:
            key = self._keys[worker.name, name] = Key(self.entries[name], self.tenant, worker.shares)
        worker.key = key
        self.ask(worker, dice.randint(1, 20))
        for request in self.requests:
            if request.state == "waiting" and self.clock.monotonic() - request.asked_at > GIVES_UP_SECONDS:
                request.leave()

    def account_for(self, worker: Worker) -> None:
        now = self.clock.monotonic()
        totals: dict[str, int] = {}
        for at, by, amount in self.uses:
            if by.worker is worker and at > now - WINDOW_SECONDS:
                for scope in _scopes_of(by):
                    for measure, used in (("requests_per_minute", 1), ("tokens_per_minute", amount)):
                        totals[f"{scope}:{measure}"] = totals.get(f"{scope}:{measure}", 0) + used
        self.book.account_for(worker.name, totals, now)

    def check(self) -> None:
        running = [request for request in self.requests if request.state == "admitted"]
        for scope, limits in self.scopes().items():
            most = limits.concurrent_requests
            assert most is None or sum(scope in _scopes_of(request) for request in running) <= most

    def check_windows(self) -> None:
        for scope, limits in self.scopes().items():
            mine = [use for use in self.uses if scope in _scopes_of(use[1])]
            for start, _, _ in mine:
                inside = [amount for at, _, amount in mine if start <= at < start + WINDOW_SECONDS]
                assert limits.requests_per_minute is None or len(inside) <= limits.requests_per_minute
                assert limits.tokens_per_minute is None or sum(inside) <= limits.tokens_per_minute


def _scopes_of(request: Request) -> tuple[str, str]:
    return f"key:{request.key_id}", "tenant:t"


def _limits(dice: random.Random) -> Limits:
    rate, tokens, places = (dice.choice((None, dice.randint(1, most))) for most in (20, 200, 6))
    return Limits(requests_per_minute=rate, tokens_per_minute=tokens, concurrent_requests=places)


def _step(world: Tenant, dice: random.Random) -> None:
    for _ in range(dice.randint(0, 3)):
        world.ask_with(dice)
    for request in world.requests:
        if request.state == "admitted" and dice.random() < 0.3:
            world.end(request, int(request.tokens * dice.random()))
    for worker in world.living():
        for _ in range(dice.randint(0, 3)):
            dice.choice((world.deliver_to_server, world.deliver_to_worker))(worker)
    if dice.random() < 0.5:
        world.turn()
    fault = dice.random()
    if fault < 0.03:
        world.kill(dice.choice(world.living()))
        world.start_worker()
    elif fault < 0.05:
        world.restart_server()
    elif fault < 0.08:
        dice.choice(world.living()).disconnect()
    for worker in world.living():
        if not worker.connected and dice.random() < 0.3:
            worker.connect()


@pytest.mark.parametrize("part", range(8))
def test_two_hundred_seeded_runs_with_faults_keep_all_limits_and_leave_nobody_waiting(part: int) -> None:
    for seed in range(part * 25, part * 25 + 25):
        print(f"seed {seed}")
        dice = random.Random(seed)
        world = Tenant(dice, dice.randint(1, 4))
        for _ in range(80):
            _step(world, dice)
            world.check()
        world.settle_down(4.0)
        assert not [request for request in world.requests if request.state == "waiting"]
        for request in world.requests:
            if request.state == "admitted":
                world.end(request, request.tokens)
        world.check_windows()
        world.settle_down(75.0)
        now = world.clock.monotonic()
        for scope, limits in world.scopes().items():
            for measure in MEASURES:
                left = world.book.remaining(f"{scope}:{measure}", now)
                assert left == getattr(limits, measure), f"{scope}:{measure}"
