"""Workers' shares and the server's lease book, joined by queues that the test delivers, delays and cuts."""

from collections import deque
from dataclasses import dataclass, field

from swell.clock import ManualClock
from swell.gateway.admit import Claim
from swell.gateway.directory import Key
from swell.gateway.responses import Refusal
from swell.gateway.shares import Share, Shares
from swell.metering.leases import EXPECT_SECONDS, Grant, LeaseBook
from swell.state.messages import FromServer, FromWorker, LeaseDeny, LeaseGrant, LeaseRecall, LeaseReport, LeaseRequest
from swell.state.snapshot import KeyEntry, Limits

MEASURES = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
TURN_SECONDS = 0.25
WINDOW_SECONDS = 60.0


@dataclass
class Request:
    """As an exchange claims its shares: all or none, again whenever one arrives."""

    world: "World"
    worker: "Worker"
    tokens: int
    asked_at: float
    state: str = "waiting"  # admitted, refused, left, ended
    claim: Claim = field(init=False)
    key_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.key_id = self.worker.key.entry.key_id
        self.claim = Claim(self.worker.key, self.tokens)
        self.share_arrived()

    def share_arrived(self) -> None:
        if self.state != "waiting":
            return
        short = self.claim.take()
        if short is None:
            self.state = "admitted"
            self.world.admitted(self)
            return
        share, amount = short
        if amount > share.limit_value:
            self._give_up("refused")
            return
        share.wait(self, amount)

    def share_denied(self, refusal: Refusal) -> None:
        assert refusal.status == 429
        self._give_up("refused")

    def leave(self) -> None:
        """While it waits."""
        self._give_up("left")

    def _give_up(self, state: str) -> None:
        self.state = state
        self.claim.forget(self)
        self.claim.give_back(went_out=False)

    def end(self, used: int) -> None:
        """After it ran."""
        self.claim.settle(used)
        self.claim.give_back(went_out=True)
        self.state = "ended"


class Worker:
    """A worker's shares and both directions of its connection."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.shares = Shares(world.clock.monotonic)
        self.key = Key(KeyEntry("k", "", (), limits=world.limits), None, self.shares)
        self.to_server: deque[FromWorker] = deque()
        self.to_worker: deque[FromServer] = deque()
        self.connected = False
        self.alive = True

    @property
    def all_shares(self) -> list[Share]:
        return [*self.key.unit_shares, *self.key.token_shares]

    def connect(self) -> None:
        """Its Hello is the first message on a new connection."""
        self.connected = True
        balances = self.shares.connected(self.to_server.append)
        self.world.book.join(self.name, balances, self.world.clock.monotonic())

    def disconnect(self) -> None:
        """What is on the way in either direction is lost."""
        self.connected = False
        self.to_server.clear()
        self.to_worker.clear()
        self.shares.disconnected()

    def receive(self, message: FromServer) -> None:
        now = self.world.clock.monotonic()
        match message:
            case LeaseGrant(limit=limit):
                self.find(limit).granted(message)
            case LeaseDeny(limit=limit):
                self.find(limit).denied(message, now)
            case LeaseRecall(limit=limit):
                self.shares.recall(limit)

    def find(self, limit: str) -> Share:
        share = self.shares.find(limit)
        assert share is not None
        return share


class World:
    """One limited key on several workers."""

    def __init__(self, limits: Limits, workers: int) -> None:
        self.clock = ManualClock()
        self.clock.advance(1000.0)
        self.limits = limits
        self.book = self._new_book()
        self.workers: list[Worker] = []
        self.requests: list[Request] = []
        self.uses: list[tuple[float, Request, int]] = []
        for _ in range(workers):
            self.start_worker()

    def _new_book(self, expected: tuple[str, ...] = ()) -> LeaseBook:
        book = LeaseBook(expected, self.clock.monotonic() + EXPECT_SECONDS)
        for measure in MEASURES:
            book.set_limit(f"key:k:{measure}", getattr(self.limits, measure))
        return book

    # What happens

    def start_worker(self) -> None:
        worker = Worker(self, f"w{len(self.workers)}")
        self.workers.append(worker)
        worker.connect()

    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.alive]

    def ask(self, worker: Worker, tokens: int) -> Request:
        request = Request(self, worker, tokens, self.clock.monotonic())
        self.requests.append(request)
        return request

    def admitted(self, request: Request) -> None:
        self.uses.append((self.clock.monotonic(), request, request.tokens))

    def end(self, request: Request, used: int) -> None:
        """It turns out to have used less."""
        request.end(used)
        self.uses = [(at, by, used if by is request else amount) for at, by, amount in self.uses]

    def kill(self, worker: Worker) -> None:
        """SIGKILL: the server hears of it from the supervisor."""
        worker.alive = False
        self.book.leave(worker.name, self.clock.monotonic())
        if not worker.connected:
            self.account_for(worker)
        for request in self.requests:
            if request.worker is worker and request.state in ("waiting", "admitted"):
                request.state = "left"

    def restart_server(self) -> None:
        """A new book: told by the ledger of the dead, and by the living when they come back."""
        living = self.living()
        for worker in living:
            worker.disconnect()
        self.book = self._new_book(tuple(worker.name for worker in living))
        for worker in self.workers:
            if not worker.alive:
                self.account_for(worker)

    def account_for(self, worker: Worker) -> None:
        """What the ledger says that a dead worker used in the last minute."""
        now = self.clock.monotonic()
        used = [amount for at, by, amount in self.uses if by.worker is worker and at > now - WINDOW_SECONDS]
        totals = {"key:k:requests_per_minute": len(used), "key:k:tokens_per_minute": sum(used)}
        self.book.account_for(worker.name, totals, now)

    def deliver(self) -> None:
        """Everything that is on the way, until nothing is."""
        while any(worker.to_server or worker.to_worker for worker in self.living()):
            for worker in self.living():
                self.deliver_to_server(worker)
                self.deliver_to_worker(worker)

    def deliver_to_worker(self, worker: Worker) -> None:
        if worker.to_worker:
            worker.receive(worker.to_worker.popleft())

    def deliver_to_server(self, worker: Worker) -> None:
        if not worker.to_server:
            return
        now = self.clock.monotonic()
        match worker.to_server.popleft():
            case LeaseReport(limit=limit, used=used, returned=returned):
                self.book.report(worker.name, limit, used, returned, now)
            case LeaseRequest(limit=limit, amount=amount):
                answer = self.book.request(worker.name, limit, max(1, amount), now)
                if isinstance(answer, Grant):
                    worker.to_worker.append(LeaseGrant(limit, answer.amount, answer.limit_value, answer.remaining))
                    return
                wait = min(WINDOW_SECONDS, answer.retry_after_seconds)
                worker.to_worker.append(LeaseDeny(limit, answer.limit_value, wait))
                for other in self.living():
                    if other.name in answer.recall and other.connected:
                        other.to_worker.append(LeaseRecall(limit))

    def turn(self) -> None:
        """A turn of every worker's upkeep."""
        self.clock.advance(TURN_SECONDS)
        for worker in self.living():
            worker.shares.turn()

    def settle_down(self, seconds: float) -> None:
        """Time passes, everybody is connected, every message arrives."""
        for worker in self.living():
            if not worker.connected:
                worker.connect()
        for _ in range(int(seconds / TURN_SECONDS)):
            self.deliver()
            self.turn()
        self.deliver()

    # What must hold

    def check(self) -> None:
        limit = self.limits.concurrent_requests
        running = [request for request in self.requests if request.state == "admitted"]
        if limit is not None:
            assert len(running) <= limit
        for worker in self.living():
            mine = sum(request.worker is worker for request in running)
            for share in worker.key.concurrency_shares:
                assert share.in_use == mine
                assert share.balance >= 0

    def check_windows(self) -> None:
        """No 60 seconds, wherever they begin, hold more than a limit."""
        for start, _, _ in self.uses:
            inside = [amount for at, _, amount in self.uses if start <= at < start + WINDOW_SECONDS]
            if self.limits.requests_per_minute is not None:
                assert len(inside) <= self.limits.requests_per_minute
            if self.limits.tokens_per_minute is not None:
                assert sum(inside) <= self.limits.tokens_per_minute

    def check_books_agree(self) -> None:
        """With nothing on the way, a worker holds what the server thinks it holds."""
        now = self.clock.monotonic()
        for measure in MEASURES:
            limit = f"key:k:{measure}"
            remaining = self.book.remaining(limit, now)
            if remaining is None:
                continue
            held = sum(max(0, worker.find(limit).statement(now).held) for worker in self.living())
            value = getattr(self.limits, measure)
            if measure == "concurrent_requests":
                assert value - remaining == held
            else:
                assert value - remaining >= held
