"""Workers' shares of a budget, the server's book and the ledger, joined by queues that dice deliver, delay and cut.

Everything is the real thing but the wire, the processes and the time. A worker's spool is a list that outlives it; the
ledger is the store in memory. A server that is killed loses its book, and what it had not stored.
"""

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from swell.clock import ManualClock
from swell.errors import StateError
from swell.gateway.admit import Claim
from swell.gateway.budget_shares import BudgetShare
from swell.gateway.directory import Key
from swell.gateway.responses import Refusal
from swell.gateway.shares import Shares
from swell.metering.budgets import BudgetBook, BudgetGrant
from swell.state.budgets import BudgetLimit, Scope
from swell.state.messages import FromServer, FromWorker, LeaseDeny, LeaseGrant, LeaseRecall, LeaseReport, LeaseRequest
from swell.state.records import SpoolPosition, UsageChange
from swell.state.snapshot import KeyEntry
from swell.testing.memory_store import MemoryStore
from swell.testing.store_suite import usage_change

TURN_SECONDS = 0.25
START_MS = 1_000_000


def limit(
    cap: int, name: str = "tenant", *, start_ms: int = 0, end_ms: int | None = None, grace: int = 0
) -> BudgetLimit:
    """A budget of the only tenant."""
    budget_id = f"budget:{name}"
    return BudgetLimit(
        f"{budget_id}:{start_ms}", budget_id, Scope.TENANT, "search", cap, "the month", start_ms, end_ms,
        grace_usd_nanos=grace,
    )  # fmt: skip


@dataclass(eq=False)
class Request:
    """One request's claim, as an exchange holds it."""

    world: "World"
    worker: "Worker"
    bound: int
    started: float
    unix_ms: int
    number: int
    state: str = "waiting"  # admitted, refused, left, ended, lost
    charge: int = 0
    code: str = ""
    claim: Claim = field(init=False)

    def __post_init__(self) -> None:
        key = self.worker.key
        self.claim = Claim(key, 0, self.bound, key.budgets("m", self.unix_ms))
        self.share_arrived()

    @property
    def spent(self) -> int:
        """What it counts as: its bound while nobody knows better."""
        return {"admitted": self.bound, "lost": self.bound, "ended": self.charge}.get(self.state, 0)

    def share_arrived(self) -> None:
        if self.state != "waiting":
            return
        short = self.claim.take()
        if short is None:
            self.state = "admitted"
            self.worker.spool.append(self._change("reserved", self.bound))
            return
        share, amount = short
        if self.claim.too_large() is not None:
            self._give_up("refused", "never")
        else:
            share.wait(self, amount)

    def share_denied(self, refusal: Refusal) -> None:
        assert refusal.status == 429
        self._give_up("refused", refusal.code)

    def leave(self) -> None:
        """The client goes away while it waits."""
        self._give_up("left")

    def _give_up(self, state: str, code: str = "") -> None:
        self.state, self.code = state, code
        self.claim.forget(self)
        self.claim.give_back(went_out=False)

    def end(self, charge: int) -> None:
        """It ran, and is charged."""
        self.state, self.charge = "ended", charge
        self.worker.spool.append(self._change("settled", charge))
        self.claim.settle(0, charge)
        self.claim.give_back(went_out=True)

    def _change(self, kind: str, charge: int) -> UsageChange:
        return usage_change(
            f"{self.worker.name}-{self.number}", kind, spool=self.worker.name, charge_usd_nanos=charge,
            **({"reserved_at_unix_ms": self.unix_ms} if kind == "reserved" else {}),
        )  # fmt: skip


class Worker:
    """A worker's shares, its spool, and both directions of its connection."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.shares = Shares(world.clock.monotonic)
        self.key = Key(KeyEntry("k", "search", ()), None, self.shares, world.limits)
        self.spool: deque[UsageChange] = deque()
        self.to_server: deque[FromWorker] = deque()
        self.to_worker: deque[FromServer] = deque()
        self.connected = False
        self.alive = True
        self.is_finished = False

    @property
    def budget_shares(self) -> list[BudgetShare]:
        return [self.shares.budget(each) for each in self.world.limits]

    def connect(self) -> None:
        """Its Hello is the first message on a new connection."""
        self.connected = True
        self.world.book.join(self.name, self.shares.connected(self.to_server.append))

    def disconnect(self) -> None:
        """What is on the way in either direction is lost."""
        self.connected = False
        self.to_server.clear()
        self.to_worker.clear()
        self.world.unsent = [entry for entry in self.world.unsent if entry[0] is not self]
        self.shares.disconnected()

    def receive(self, message: FromServer) -> None:
        match message:
            case LeaseRecall(limit=name):
                self.shares.recall(name)
            case LeaseGrant(limit=name):
                self._share(name).granted(message)
            case LeaseDeny(limit=name):
                self._share(name).denied(message, self.world.clock.monotonic())

    def _share(self, name: str) -> BudgetShare:
        share = self.shares.find(name)
        assert isinstance(share, BudgetShare)
        return share


class World:
    """One tenant with budgets, on several workers."""

    def __init__(self, limits: Sequence[BudgetLimit], workers: int) -> None:
        self.clock = ManualClock()
        self.clock.advance(1000.0)
        self.limits = tuple(limits)
        self.store = MemoryStore()
        self.unsent: list[tuple[Worker, LeaseGrant]] = []
        self.workers: list[Worker] = []
        self.requests: list[Request] = []
        self._start_book()
        for _ in range(workers):
            self.start_worker()

    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    def running(self) -> list[Request]:
        return [request for request in self.requests if request.state == "admitted"]

    @property
    def unix_ms(self) -> int:
        return int(self.clock.monotonic() * 1000)

    # What happens

    def start_worker(self) -> None:
        worker = Worker(self, f"w{len(self.workers)}")
        self.workers.append(worker)
        worker.connect()

    def ask(self, worker: Worker, bound: int) -> Request:
        request = Request(self, worker, bound, self.clock.monotonic(), self.unix_ms, len(self.requests))
        self.requests.append(request)
        return request

    def kill(self, worker: Worker) -> None:
        """SIGKILL: the server hears of it from the supervisor."""
        worker.disconnect()
        worker.alive = False
        self.book.leave(worker.name)
        for request in self.requests:
            if request.worker is worker and request.state in ("waiting", "admitted"):
                request.state = "lost" if request.state == "admitted" else "left"

    def restart_server(self) -> None:
        """A new book, from what is stored."""
        for worker in self.living():
            worker.disconnect()
        self.unsent = []
        self._start_book()

    def _start_book(self) -> None:
        self.book = BudgetBook(self.store.list_leases())
        self.ingest()  # as a server does before it opens limits: what is stored of returns was settled before
        for worker in self.workers:
            if worker.is_finished:  # its leases were ended with its spool, or are now
                self.book.settled(worker.name, self.store.settle_leases(worker.name))
        spends = self.store.open_budgets(self.book.unknown(self.limits))
        self.book.set_limits(self.limits, {spend.limit: spend.spent_usd_nanos for spend in spends})

    def ingest(self, most: int = 1_000_000) -> None:
        """Spools enter the ledger; those of the dead end their leases when they are read to the end."""
        for worker in self.workers:
            for _ in range(min(most, len(worker.spool))):
                change = worker.spool.popleft()
                self.store.apply_usage([change], SpoolPosition(worker.name, 1, 1))
            if not worker.alive and not worker.spool and not worker.is_finished:
                self.store.finalise_spool(worker.name, damaged=False)
                worker.is_finished = True
                self.book.settled(worker.name, self.store.settle_leases(worker.name))

    def store_leases(self, *, fails: bool = False) -> None:
        """The grants that wait are stored, then sent; or the store fails, and they are taken back."""
        grants, self.unsent = self.unsent, []
        leases = self.book.unsaved()
        gone = {worker.name for worker in self.workers if worker.is_finished}
        if fails:
            self.store.fail_next(StateError("full"))
        try:
            self.store.put_leases([lease for lease in leases if lease.incarnation not in gone])
        except StateError:
            self.book.mark_unsaved(leases)
            for worker, grant in grants:
                self.book.withdraw(worker.name, grant.limit, grant.amount)
                worker.to_worker.append(LeaseDeny(grant.limit, grant.limit_value, 1.0))
            return
        for worker, grant in grants:
            worker.to_worker.append(grant)

    def to_server(self, worker: Worker) -> None:
        if not worker.to_server:
            return
        match worker.to_server.popleft():
            case LeaseReport(limit=name, used=used, returned=returned):
                self.book.report(worker.name, name, used, returned)
            case LeaseRequest(limit=name, amount=amount, need=need):
                answer = self.book.request(worker.name, name, amount, need, self.clock.monotonic())
                if isinstance(answer, BudgetGrant):
                    self.unsent.append((worker, LeaseGrant(name, answer.amount, answer.cap, answer.remaining)))
                    return
                worker.to_worker.append(
                    LeaseDeny(name, answer.cap, answer.retry_after_seconds, answer.is_final, answer.remaining)
                )
                for other in self.living():
                    if other.connected:
                        other.to_worker += [LeaseRecall(held) for holder, held in answer.recall if holder == other.name]

    def to_worker(self, worker: Worker) -> None:
        if worker.to_worker:
            worker.receive(worker.to_worker.popleft())

    def deliver(self) -> None:
        """Everything that is on the way, until nothing is."""
        while self.unsent or any(worker.to_server or worker.to_worker for worker in self.living()):
            self.store_leases()
            for worker in self.living():
                self.to_server(worker)
                self.to_worker(worker)

    def turn(self) -> None:
        """A turn of every worker's upkeep."""
        self.clock.advance(TURN_SECONDS)
        for worker in self.living():
            worker.shares.turn()

    def settle_down(self, seconds: float) -> None:
        """Time passes, everybody is connected, every message arrives, everything enters the ledger."""
        for worker in self.living():
            if not worker.connected:
                worker.connect()
        for _ in range(int(seconds / TURN_SECONDS)):
            self.deliver()
            self.ingest()
            self.turn()
        self.deliver()
        self.ingest()

    def hammer(self, dice: random.Random, bound: tuple[int, int], *, faults: float) -> None:
        """One step of clients that ask, requests that end and messages that arrive; sometimes a fault."""
        living = self.living()
        for _ in range(dice.randint(1, 8)):
            self.ask(dice.choice(living), dice.randint(*bound))
        for request in self.running():
            if dice.random() < 0.4:
                request.end(dice.randint(request.bound // 10, request.bound))
        for worker in living:
            for _ in range(dice.randint(0, 3)):
                self.to_server(worker)
            if dice.random() < 0.8:
                self.store_leases(fails=dice.random() < faults)
            for _ in range(dice.randint(0, 3)):
                self.to_worker(worker)
        if dice.random() < 0.5:
            self.turn()
        if dice.random() < 0.3:
            self.ingest(dice.randint(1, 50))
        if dice.random() < faults:
            self._fault(dice)

    def _fault(self, dice: random.Random) -> None:
        worker = dice.choice(self.living())
        kind = dice.choice(("kill", "kill", "restart", "disconnect", "leave"))
        if kind == "kill":
            self.kill(worker)
            self.start_worker()
        elif kind == "restart":
            self.restart_server()
            for each in self.living():
                if dice.random() < 0.8:
                    each.connect()
        elif kind == "disconnect":
            worker.disconnect()
        else:
            waiting = [request for request in self.requests if request.state == "waiting"]
            if waiting:
                dice.choice(waiting).leave()
        for each in self.living():
            if not each.connected and dice.random() < 0.3:
                each.connect()

    # What must hold

    def spent(self, of: BudgetLimit) -> int:
        """What all requests of a period may cost, as anybody could know by now."""
        end = float("inf") if of.end_unix_ms is None else of.end_unix_ms
        return sum(r.spent for r in self.requests if of.start_unix_ms <= r.unix_ms < end)

    def check(self) -> None:
        for each in self.limits:
            assert self.spent(each) <= each.most_usd_nanos
        for worker in self.living():
            mine = sum(r.bound for r in self.running() if r.worker is worker)
            for share in worker.budget_shares:
                assert share.balance >= 0
            assert sum(share.in_use for share in worker.budget_shares) == mine * len(
                {each.budget_id for each in self.limits}
            )

    def check_books(self) -> None:
        """With nothing on the way and nothing running, everything is spent for good or in a worker's hands."""
        self.book.unsaved()
        held = {each.name: 0 for each in self.limits}
        for worker in self.living():
            for share in worker.budget_shares:
                held[share.limit] += share.balance
        for standing in self.book.standings():
            assert standing.spent_usd_nanos == self.spent(standing.limit)
            assert standing.reserved_usd_nanos == held[standing.limit.name]
