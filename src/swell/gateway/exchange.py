"""One request from admission to settlement.

    admitting ──► waiting for shares ──► queued ──► connecting ──► sent ──► relaying ──► ended
        └───────────────┴──────────────────┴───────────┴────────────┴──────────┘

Everything is a callback; no task exists per request unless a connection must be opened. `end` is the only
way out and runs once: it gives back shares and the replica, settles the spool record, and lets go of the
client.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from swell.errors import AtCapacity
from swell.gateway.admit import Claim, never_fits, overloaded, too_late, unavailable
from swell.gateway.asker import Client
from swell.gateway.budget_shares import BudgetShare
from swell.gateway.held import FIRST_COMMENT_SECONDS, HeldStream
from swell.gateway.phase import Phase
from swell.gateway.rates import Rates, possible
from swell.gateway.relay import Relay
from swell.gateway.request import MESSAGES, Admitted
from swell.gateway.responses import Refusal
from swell.gateway.route import ModelRoute, Replica
from swell.gateway.shares import Share
from swell.gateway.tally import CLIENT_LEFT
from swell.gateway.upstream import EVENT_STREAM, UpstreamConnection, UpstreamPool
from swell.gateway.whole import Held, deliver
from swell.state.usage import Reserved, Sent, Settled, UsageStatus
from swell.units import charge_usd_nanos

if TYPE_CHECKING:
    from swell.gateway.directory import Key
    from swell.gateway.service import Service

_RETRIED_STATUSES = frozenset({502, 503})


class Exchange:
    """A request, its replica and its client."""

    # Defaults live in the class: most requests never change them, and setting each costs time.
    phase = Phase.ADMITTING
    replica: Replica | None = None
    paused_since = 0.0
    touched = False
    is_held = False  # it came, or was left, without any replica to wait for
    _claim: Claim | None = None
    _recorded = 0  # open record in the spool: 0 none, 1 reserved, 2 sent
    _went_out = False
    _release: Callable[[], None] | None = None
    _cancel_connect: Callable[[], None] | None = None
    _connection: UpstreamConnection | None = None
    _relay: Relay | Held | None = None
    _retries = 0
    _was_stale = False  # a kept connection failed it; from then on it gets fresh ones
    _failed_on: frozenset[str] = frozenset()
    _lease_seconds = 0.0  # on top of the usual, for a share to arrive
    _short: Share | BudgetShare | None = None  # which that is

    def __init__(
        self, service: "Service", client: Client, key: "Key", path: str, route: ModelRoute,
        admitted: Admitted, priority: str, started: float,
    ) -> None:  # fmt: skip
        self.service = service
        self.client = client
        self.key = key
        self.path = path
        self.route = route
        self.admitted = admitted
        self.priority = priority
        self.started = started
        self.sent_at = started
        self.request_id = service.next_request_id()
        self.tokens_bound = admitted.prompt_tokens_bound + admitted.completion_tokens_bound
        # 0 until budgets or a change of rates count it: its period and its rates follow from that.
        self._admitted_unix_ms, self.rates = Rates.of(route.entry, service.unix_ms)
        self.charge_bound = self.rates.bound(admitted)
        self._phase_since = started

    # Admission

    def start(self) -> None:
        """Take shares, then go out or wait for a replica."""
        self.service.exchanges.add(self)
        if self.key.is_limited:
            self._admitted_unix_ms = unix_ms = self._admitted_unix_ms or self.service.unix_ms()
            self._claim = Claim.of(self.key, self.admitted, self.route.name, self.charge_bound, unix_ms)
            self.share_arrived()
        else:
            self._find_replica()

    def share_arrived(self) -> None:
        """Take all shares, or wait for the one that is short."""
        if self._claim is None or self.phase is Phase.ENDED:
            return
        short = self._claim.take()
        if short is None:
            self._find_replica()
            return
        if (too_large := self._claim.too_large()) is not None:
            self.end_with(never_fits(*too_large))
            return
        share, amount = short
        if self.phase is not Phase.SHARES:
            self._enter(Phase.SHARES)
        self._short, self._lease_seconds = share, share.busy_seconds
        share.wait(self, amount)

    def share_denied(self, refusal: Refusal) -> None:
        """A limit is used up."""
        self.end_with(refusal)

    def _find_replica(self) -> None:
        route, admitted = self.route, self.admitted
        route.arrived(self.priority, admitted.prompt_tokens_estimate)
        replica = None
        if not route.queued:
            replica = route.choose(admitted.prefix, admitted.session, self.priority)
        if replica is not None:
            self._dispatch(replica)
        elif route.queue.waiting(self.priority) >= self.service.bounds.queued_requests:
            self.end_with(overloaded("The queue for this model is full.", "queue_full"))
        elif self._record(sent=False):
            self._wait()
            if not route.replicas:
                self.service.hold(route)
            route.serve_queue()  # those who wait may wait for a certain replica

    def _wait(self) -> None:
        self._enter(Phase.QUEUED)
        gives_up_at = self.service.now() + self.service.queue_seconds(self.priority)
        self.route.enqueue(self, self.priority, self.admitted.prompt_tokens_estimate, gives_up_at)

    def replica_free(self) -> bool:
        """It is its turn in the queue."""
        replica = self._choose()
        if replica is None:
            return False
        self._dispatch(replica)
        return True

    def refuse_late(self) -> None:
        """It waits, and its first token would be too late for the objective."""
        self.end_with(too_late(self.service.now() - self.started))

    def _choose(self) -> Replica | None:
        """A replica with room. One that failed this request only if it has answered since, or if there is no other."""
        admitted, route = self.admitted, self.route
        if self._failed_on:
            failed = route.failing(self._failed_on)
            if len(failed) < len(route.replicas):  # None: wait for one that is busy or ejected
                return route.choose(admitted.prefix, admitted.session, self.priority, avoid=failed)
        return route.choose(admitted.prefix, admitted.session, self.priority)

    # Going out

    def _dispatch(self, replica: Replica) -> None:
        self.replica = replica
        self._release = replica.acquire(self.tokens_bound)
        pool = _pool_of(replica)
        connection = None if self._was_stale else pool.take()
        if connection is not None:
            if self._record(sent=True):
                self._send(connection)
            else:
                pool.put(connection)
        elif self._record(sent=False):
            self._enter(Phase.CONNECTING)
            self._cancel_connect = pool.connect(self._connected)

    def _connected(self, connection: UpstreamConnection | None, reason: str) -> None:
        self._cancel_connect = None
        if self.phase is Phase.ENDED:
            if connection is not None:
                connection.transport.close()
            return
        if connection is None:
            self._replica_failed(reason)
        elif self._record(sent=True):
            self._send(connection)
        else:
            connection.transport.close()

    def _send(self, connection: UpstreamConnection) -> None:
        replica = self.replica
        assert replica is not None  # noqa: S101 - set by _dispatch
        self._connection = connection
        self._enter(Phase.SENT)
        if not self._retries:
            self.sent_at = self.service.now()
        body = self.admitted.body
        head = replica.heads.get(self.path) or self.service.upstream_head(replica, self.path)
        connection.send(
            self, b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (head, self.request_id.encode(), len(body), body)
        )

    def _record(self, *, sent: bool) -> bool:
        """Write to the spool what is about to happen. False: there is no room, and the request has ended."""
        try:
            if self._recorded == 0:
                self.service.spool.append(
                    Reserved(
                        self.request_id, self._admitted_unix_ms or self.service.unix_ms(), self.key.entry.key_id,
                        self.key.entry.tenant, self.route.name, self.path, self.admitted.prompt_tokens_bound,
                        self.admitted.completion_tokens_bound, sent, *self.rates, self.charge_bound,
                    )
                )  # fmt: skip
                self._recorded = 2 if sent else 1
                self._went_out = sent
            elif sent and self._recorded == 1:
                self.service.spool.append(Sent(self.request_id))
                self._recorded = 2
                self._went_out = True
        except AtCapacity as error:
            self.end_with(
                Refusal(503, "Usage records cannot be stored now; try again later.", code="spool_full",
                        retry_after_seconds=error.retry_after_seconds)
            )  # fmt: skip
            return False
        return True

    # The replica's answer (upstream.Listener)

    def answer_begins(self, connection: UpstreamConnection) -> None:
        """Relay it, or try elsewhere."""
        replica = self.replica
        assert replica is not None  # noqa: S101 - set by _dispatch
        if connection.status in _RETRIED_STATUSES and self._can_retry():
            connection.abort()
            self._replica_failed(f"the replica answered {connection.status}")
            return
        if connection.status in _RETRIED_STATUSES:
            replica.failed()
        else:
            replica.answered()
        self._enter(Phase.RELAYING)
        streams = connection.status == 200 and connection.content_type.startswith(EVENT_STREAM)
        if streams:
            self._relay = relay = Relay(self, connection)
            connection.sink = relay.first
        else:
            self._relay = Held(self, connection)
            connection.sink = self._relay.data

    def answer_whole(self, content_type: bytes, body: bytes) -> None:
        """All at once: the usual case of an answer that is not a stream."""
        self._connection = None
        if self.replica is not None:
            self.replica.answered()
        deliver(self, 200, content_type, body)

    def answer_ends(self, *, reusable: bool) -> None:
        """Complete."""
        if self.paused_since and self._connection is not None:
            self._connection.go_on()  # it serves others now
        self._connection = None
        if self._relay is not None:
            self._relay.end()

    def answer_fails(self, reason: str, *, stale: bool) -> None:
        """No complete answer."""
        self._connection = None
        if self._relay is not None and self._relay.has_begun:
            if self.replica is not None:
                self.replica.failed()
            self._relay.cut(Refusal(502, f"The answer was cut: {reason}.", code="replica_lost"))
        elif stale and self.replica is not None and not self._was_stale:
            # A kept connection had timed out: no fault of the replica, and not a retry. Its place there is kept.
            # Once: a request that makes a replica hang up must not go round all of its kept connections.
            self._was_stale = True
            release = self._release
            self._dispatch(self.replica)
            if release is not None:
                release()
        else:
            self._relay = None
            self._replica_failed(reason)

    def stop_answer(self, reason: str) -> None:
        """The answer itself is at fault: no more of it is read."""
        if self._connection is not None:
            self._connection.abort()
        if self._relay is not None and self._relay.has_begun:
            self.answer_fails(reason, stale=False)
        else:
            self._connection = None
            self.end_with(Refusal(502, f"The replica's answer was refused: {reason}.", code="bad_answer"))

    def _replica_failed(self, reason: str) -> None:
        replica, self.replica = self.replica, None
        self._connection = None
        self._let_go()
        if replica is not None:
            replica.failed()
            self._failed_on |= {replica.replica_id}
        if not self._can_retry():
            self.end_with(Refusal(502, f"No replica could answer: {reason}.", code="replica_unavailable"))
            return
        self._retries += 1
        self.service.counters.retries += 1
        other = self._choose()
        if other is not None:
            self._dispatch(other)
        else:
            self._wait()

    def _can_retry(self) -> bool:
        return self._retries < self.service.bounds.retries

    # Time, the client, and the end

    def check(self, now: float) -> None:
        """Called a few times a second: end what has waited too long."""
        timeouts = self.service.timeouts
        if self.touched:
            self.touched = False
            self._phase_since = now
        waited = now - self._phase_since
        if self.paused_since:
            if now - self.paused_since > timeouts.slow_client_seconds:
                self.service.counters.outcome("slow_client")
                self.client_left()
        elif self.phase is Phase.SHARES and waited > timeouts.lease_seconds + self._lease_seconds:
            self.end_with(unavailable(self._short, self.started))
        elif self.phase is Phase.QUEUED and waited > self._queue_seconds(now, waited):
            self.end_with(overloaded("No replica became free in time.", "queue_timeout"))
        elif self.phase is Phase.SENT and waited > timeouts.first_byte_seconds:
            self._time_out(f"no answer within {timeouts.first_byte_seconds:g} s")
        elif self.phase is Phase.RELAYING and waited > timeouts.idle_seconds:
            self._time_out(f"silent for {timeouts.idle_seconds:g} s")
        elif now - self.started > timeouts.total_seconds:
            self._time_out(f"not finished within {timeouts.total_seconds:g} s")

    def _queue_seconds(self, now: float, waited: float) -> float:
        """The longest wait in the queue. One that is held for a replica's start gets that time first."""
        seconds, route = self.service.queue_seconds(self.priority), self.route
        if route.entry.hold_seconds and not route.replicas:
            self.is_held = True
        if not self.is_held:
            return seconds
        if isinstance(self.client, HeldStream):
            self.client.comment(now)
        elif self.admitted.stream and waited >= FIRST_COMMENT_SECONDS:
            self.client = HeldStream(self.client, self.headers(), now, is_anthropic=self.is_anthropic)
        return seconds + route.entry.hold_seconds

    def _time_out(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.abort()
        if self.phase is Phase.QUEUED or self.phase is Phase.CONNECTING:
            self.end_with(overloaded(f"The request was {reason}.", "timeout"))
        elif self._relay is not None and self._relay.has_begun:
            self.answer_fails(reason, stale=False)
        else:
            if self.replica is not None:
                self.replica.failed()
            self.end_with(Refusal(504, f"The replica was too slow: {reason}.", code="replica_timeout"))

    def pause(self) -> None:
        """The client does not keep up: stop reading from the replica."""
        if self._connection is not None and not self.paused_since:
            self.paused_since = self.service.now()
            self._connection.hold()

    def resume(self) -> None:
        """The client has caught up."""
        if self.paused_since:
            self.paused_since = 0.0
            self.touched = True
            if self._connection is not None:
                self._connection.go_on()

    def client_left(self) -> None:
        """Cancel at the replica; what was delivered counts."""
        if self.phase is Phase.ENDED:
            return
        if self.replica is not None:
            self.replica.undecided()
        if isinstance(self._relay, Relay):
            self._relay.settle_cut(CLIENT_LEFT)
        elif self._recorded == 2:
            self.settle(UsageStatus.ESTIMATED, self.admitted.prompt_tokens_estimate, 0, CLIENT_LEFT)
        else:
            self.settle(UsageStatus.VOID, 0, 0, CLIENT_LEFT)
        self.end()
        self.client.abort()

    def settle(
        self, status: UsageStatus, prompt_tokens: int, completion_tokens: int, http_status: int, cached_tokens: int = 0
    ) -> None:
        """Write the outcome; the record settles once. Cached tokens are part of the prompt's; 0 where nobody said."""
        if self._recorded == 0:
            return
        self._recorded = 0
        # An engine that reports nonsense must not give anybody money, nor break the record of it.
        prompt_tokens, completion_tokens = possible(prompt_tokens), possible(completion_tokens)
        now = self.service.now()
        relay = self._relay
        first = relay.first_token_at - self.started if relay is not None and relay.first_token_at else -1.0
        replica_id = self.replica.replica_id if self.replica is not None else ""
        charge = 0
        if self.charge_bound and status is not UsageStatus.VOID:  # never more than what was reserved for it
            charge = min(self.charge_bound, charge_usd_nanos(prompt_tokens, completion_tokens, *self.rates))
        record = Settled(
            self.request_id, self.service.unix_ms(), status.value, prompt_tokens, completion_tokens, replica_id,
            http_status, int((now - self.started) * 1000), int(first * 1000) if first >= 0 else -1, charge,
            min(max(cached_tokens, 0), prompt_tokens),
        )  # fmt: skip
        self.service.settle(record)
        if self._claim is not None and self._went_out:
            self._claim.settle(prompt_tokens + completion_tokens, charge)
        counters, seconds, waited = self.service.counters, now - self.started, self.sent_at - self.started
        counters.outcome(status.value)
        if status is not UsageStatus.VOID:
            counters.finished(
                self.route.name, self.path, http_status, seconds=seconds, overhead_seconds=waited,
                first_token_seconds=first, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens,
            )  # fmt: skip
        route = self.route
        tally = route.tally_of(self.priority)
        tally.ends(route.entry, http_status, prompt_tokens, completion_tokens, seconds, first, waited)

    def end_with(self, refusal: Refusal) -> None:
        """End without (more of) a replica's answer. Nothing of the answer has been sent yet."""
        if self.phase is Phase.ENDED:
            return
        if self._recorded:
            sent = self._recorded == 2
            self.settle(UsageStatus.ESTIMATED if sent else UsageStatus.VOID, 0, 0, refusal.status)
        elif refusal.status >= 500:
            self.route.tally_of(self.priority).missed += 1  # refused before it was recorded
        self.service.counters.outcome(refusal.code)
        if self.replica is not None:
            self.replica.undecided()
        self.end()
        self.client.refuse(refusal, self.headers())

    def end(self) -> None:
        """Give everything back. Callers settle first and talk to the client after."""
        was, self.phase = self.phase, Phase.ENDED
        if was is Phase.QUEUED:
            self.route.leave(self)
        if self._cancel_connect is not None:
            self._cancel_connect()
            self._cancel_connect = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        if self._claim is not None:
            if was is Phase.SHARES:
                self._claim.forget(self)
            self._claim.give_back(went_out=self._went_out)
        self._relay = None
        self.service.exchanges.discard(self)
        self._let_go()

    def _let_go(self) -> None:
        """Release the replica and let the next request have its place."""
        if self._release is not None:
            self._release()
            self._release = None
            if self.route.queued:
                self.route.serve_queue()

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.touched = True  # `check` notes the time: nothing here is measured finer than its spacing

    def headers(self) -> bytes:
        """Header lines of Swell's own for the answer."""
        overhead_us = (self.sent_at - self.started) * 1e6
        lines = b"x-request-id: %b\r\nx-swell-overhead-us: %d\r\n" % (self.request_id.encode(), overhead_us)
        if self._claim is not None:
            lines += self._claim.rate_headers()
        return lines

    @property
    def delivered_tokens(self) -> int:
        """What a stream has passed on so far."""
        return self._relay.delivered_tokens if isinstance(self._relay, Relay) else 0

    @property
    def is_anthropic(self) -> bool:
        """Whether errors have Anthropic's shape."""
        return self.path == MESSAGES


def _pool_of(replica: Replica) -> UpstreamPool:
    assert isinstance(replica.connector, UpstreamPool)  # noqa: S101 - made so by the service
    return replica.connector
