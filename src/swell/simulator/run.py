"""A replay: traffic, gateway, fleet and scaling loop on one virtual clock, from event to event.

The gateway here keeps one queue and sends a request out as soon as a replica has room, by the same routing functions
and the same queue as the live one; the scaling loop is the live one. What differs is the clock, the fleet and the
traffic. One scenario and one scaler give one result, bit for bit.
"""

import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from math import ceil, inf

import numpy as np

from swell.control.scaling import ScalingLoop
from swell.errors import UserError
from swell.policy.admission import AdmissionQueue
from swell.policy.queueing import BATCH, batch_room
from swell.policy.routing import POLICIES, Request, View, build_view, fitting
from swell.policy.scaling.capacity import Mix, chunk_limit
from swell.ports.scaler import Scaler
from swell.simulator.checkers import check_end, check_idle, check_moment
from swell.simulator.demand import replicas_needed
from swell.simulator.engine import Job
from swell.simulator.faults import Faults
from swell.simulator.fleet import Bill, SimReplica, limits_of
from swell.simulator.result import Result, Scenario
from swell.simulator.treasury import DRAIN_SECONDS, Treasury
from swell.simulator.watch import Watch
from swell.state.scaling import Decision, LengthSums, Observation, ReplicaState
from swell.state.traffic import Traffic

EXPECTED_OUTPUT_TOKENS = 512  # what the router books for an output, whose length nobody knows before
PATIENCE_SECONDS = 3600.0  # after the last arrival; what is not answered then is missed
MOST_PASSED = 16  # requests that wait for a larger replica and are passed by others, at a time
PROGRESS_EVERY_TICKS = 500
ROWS_AT_ONCE = 65_536  # of a trace, as Python numbers: a long one would not fit into memory
_NO_MORE = (inf, 0, 0)
_STARTED, _GONE = -1, -2  # versions of events that are not an engine's


class Replay:
    """One run. It is the `ScaledFleet` that the scaling loop scales."""

    def __init__(self, scenario: Scenario, scaler: Scaler) -> None:
        """Raises UserError where there is nothing to replay."""
        traffic = scenario.traffic
        if not len(traffic) or not scenario.pools:
            raise UserError("nothing to replay: the trace holds no request, or there is no pool of machines")
        self._scenario = scenario
        self._pools = {
            pool.name: replace(
                pool, profile=replace(pool.profile, chunk_tokens=chunk_limit(pool.profile, scenario.objective))
            )
            for pool in scenario.pools
        }
        self._reference = scenario.pools[0].profile
        self._itl_limit = scenario.objective.itl_ms / 1000
        self._mix = Mix.of_sums(sums_of(scenario, 0.0, inf)) or Mix.of_means(1, 1)
        reference = self._pools[scenario.pools[0].name]
        self._limits = {
            name: limits_of(pool, reference, scenario.objective, self._mix, EXPECTED_OUTPUT_TOKENS)
            for name, pool in self._pools.items()
        }
        if scenario.max_in_flight:
            most = scenario.max_in_flight
            self._limits = {name: replace(each, in_flight=most) for name, each in self._limits.items()}
        self._choose = POLICIES[scenario.routing]
        self._is_batch = traffic.batch
        self._needs_ring = scenario.routing.endswith("affinity")
        self._replicas: dict[str, SimReplica] = {}
        self._view = View(())
        self._queue: AdmissionQueue[Job] = AdmissionQueue()
        self._events: list[tuple[float, int, SimReplica, int]] = []  # an engine's next, or the end of a start (-1)
        self._sequence = 0
        self._ordered = 0
        self._bill = Bill(self._pools, scenario.minimum_seconds)
        self._watch = Watch(len(traffic), traffic.batch_count)
        self._faults = Faults(scenario)
        self._preemptions = 0
        self._decoded_before = 0.0  # output tokens, by replicas that are gone
        self._loop = ScalingLoop(self, scaler, self._pools, self._note)
        self._interval = scaler.interval_seconds
        budget = scenario.budget
        self._treasury = (
            None if budget is None else Treasury(budget, scenario.pools, self._interval, scenario.minimum_seconds)
        )
        self._now = 0.0
        self._others_at = -inf  # when a request came that is not of batch
        self._last_decision: Decision | None = None

    # ports.scaled_fleet

    def observe(self, now: float) -> Observation:
        """One window since the last call, and every replica."""
        views = tuple(replica.view() for replica in self._replicas.values())
        start = self._scenario.traffic.start_unix
        decoded = self._decoded_before + sum(r.engine.produced(now) for r in self._replicas.values())
        window = self._watch.window(now, self._queue, decoded)
        funding = None if self._treasury is None else self._treasury.funding(now, self._replicas.values())
        return Observation(now, window, views, None if start is None else start + now, funding)

    def start(self, pool: str, count: int) -> None:
        for _ in range(count):
            if not self._faults.has_capacity(self._pools[pool], self._now, self._replicas.values()):
                return  # seen in the next observation: fewer than were ordered
            replica = self._order(pool)
            self._push(self._now + self._pools[pool].start_seconds, replica, _STARTED)

    def drain(self, replica_id: str) -> None:
        replica = self._replicas.get(replica_id)
        if replica is None:
            return
        was = replica.state
        replica.state = ReplicaState.DRAINING
        replica.since = self._now
        if was is ReplicaState.READY:
            self._refresh()
        if not replica.in_flight:
            self._end(replica)
        elif self._treasury is not None:  # what runs for ever cannot be paid for
            self._push(self._now + DRAIN_SECONDS, replica, _GONE)

    # Running

    def run(self, progress: Callable[[float], None] | None = None) -> None:
        """To the end of the trace, and until everything is answered."""
        traffic = self._scenario.traffic
        count, at, events = len(traffic), 0, self._events
        last = float(traffic.arrival_seconds[-1])
        end = last + PATIENCE_SECONDS
        tick = self._interval
        rows = rows_of(traffic)
        arrives, prompt, output = next(rows)
        self._warm_up()
        while at < count or self._watch.in_system:
            happens = events[0][0] if events else inf
            if self._faults.next_at <= min(tick, arrives, happens):
                self._weather()
            elif tick <= arrives and tick <= happens:
                if tick > end:
                    break
                self._now = tick
                self._turn(tick)
                if progress is not None and not int(tick / self._interval) % PROGRESS_EVERY_TICKS:
                    progress(min(1.0, tick / last))
                tick += self._interval
            elif arrives <= happens:
                self._now = arrives
                self._arrive(at, arrives, prompt, output)
                at += 1
                arrives, prompt, output = next(rows, _NO_MORE)
            else:
                self._happen(heappop(events))
        for replica in list(self._replicas.values()):
            self._end(replica)
        check_end(self._watch, count, self._bill)

    def _warm_up(self) -> None:
        """Begin with the replicas that the first minutes need, ready."""
        for _ in range(warm_replicas(self._scenario)):
            replica = self._order(self._scenario.pools[0].name)
            replica.state = ReplicaState.READY
        self._refresh()

    def _turn(self, now: float) -> None:
        self._refuse_late(now)
        self._last_decision = self._loop.step(now)
        self._serve_queue(now)
        check_moment(self._replicas.values(), self._watch, self._queue)
        if len({replica.pool.profile for replica in self._view.candidates if isinstance(replica, SimReplica)}) == 1:
            check_idle(self._view.candidates, range(len(self._queue) - self._queue.waiting(BATCH)))
        self._watch.mark(now, self._replicas.values(), self._queue)

    def _arrive(self, index: int, now: float, prompt: int, output: int) -> None:
        limit = self._scenario.objective.ttft_limit_ms(prompt, self._reference) / 1000
        job = Job(index, now, prompt, output, limit)
        if self._scenario.traffic.prefix_blocks:
            job.blocks = self._scenario.traffic.prefix_blocks[index]
        if self._is_batch is not None:
            job.is_batch = bool(self._is_batch[index])
        if not job.is_batch:
            self._others_at = now
        self._watch.arrived(now, prompt, is_batch=job.is_batch)
        # Those that wait for a larger replica hold up nobody who fits a smaller one.
        waiting = len(self._queue) - (0 if job.is_batch else self._queue.waiting(BATCH))
        replica = self._find(job) if not waiting or self._view.larger else None
        if replica is None:
            self._wait(job)
        else:
            self._dispatch(job, replica, now)

    def _wait(self, job: Job) -> None:
        priority = BATCH if job.is_batch else "standard"
        self._queue.push(job, job.deadline, self._reference.prefill_ms(job.prompt) / 1000, priority=priority)

    def _find(self, job: Job) -> SimReplica | None:
        prefix = job.blocks[0] if job.blocks else 0
        view = fitting(self._view, job.prompt) if self._view.larger else self._view
        chosen = self._choose(view, Request(prefix_key=prefix, turn=job.index))
        if not isinstance(chosen, SimReplica):
            return None
        is_full = job.is_batch and chosen.in_flight >= batch_room(chosen.limit, self._now - self._others_at)
        return None if is_full else chosen

    def _dispatch(self, job: Job, replica: SimReplica, now: float) -> None:
        job.reserved = job.prompt + EXPECTED_OUTPUT_TOKENS
        job.replica = replica
        replica.in_flight += 1
        replica.outstanding_tokens += job.reserved
        replica.engine.submit(job, now)
        replica.version += 1
        self._push(replica.engine.next_event(), replica, replica.version)

    def _happen(self, event: tuple[float, int, SimReplica, int]) -> None:
        now, _, replica, version = event
        if version < 0:
            self._now = now
            if version == _STARTED:
                self._started(replica, now)
            elif replica.replica_id in self._replicas:
                self._lose(replica, now)
            return
        if version != replica.version:
            return
        self._now = now
        for job in replica.engine.run_to(now):
            self._finish(job, replica, now)
        happens = replica.engine.next_event()
        if happens != inf:
            replica.version += 1
            self._push(happens, replica, replica.version)
        if replica.state is ReplicaState.DRAINING:
            if not replica.in_flight:
                self._end(replica)
        elif self._queue:
            self._serve_queue(now)

    def _finish(self, job: Job, replica: SimReplica, now: float) -> None:
        replica.in_flight -= 1
        replica.outstanding_tokens -= job.reserved
        output = job.output + job.tokens
        self._watch.finished(now, job, job.prompt - job.tokens, output, self._itl_limit)

    def _refuse_late(self, now: float) -> None:
        if self._scenario.refuses_late:
            for job in self._queue.late(now):  # none of batch: it is promised no time
                self._queue.remove(job)
                self._watch.failed(now)

    def _serve_queue(self, now: float) -> None:
        """Send out what waits, while there is room. Who waits for a larger replica lets a few others pass."""
        self._refuse_late(now)
        passed: list[Job] = []
        while self._queue and len(passed) < MOST_PASSED:
            if not any(candidate.has_room for candidate in self._view.candidates):
                break
            job = self._queue.take(now)
            if job is None:
                break
            replica = self._find(job)
            if replica is None:
                passed.append(job)
                if job.is_batch:  # nobody else waits, and all of batch are alike
                    break
            else:
                self._dispatch(job, replica, now)
        for job in passed:
            self._wait(job)

    # What goes wrong

    def _weather(self) -> None:
        """The spot market changes: who gets notice takes no more work, and is gone when the notice is over."""
        event = self._faults.take()
        self._now = event.at
        for replica in self._faults.victims(event, self._replicas.values()):
            self._preemptions += 1
            self._push(event.at + self._faults.notice_seconds, replica, _GONE)
            self.drain(replica.replica_id)

    def _lose(self, replica: SimReplica, now: float) -> None:
        """A replica is gone. Requests without a first token go back to the queue, and so do those of priority batch,
        which do not stream; the others are cut."""
        was_ready = replica.state is ReplicaState.READY
        for job in replica.engine.lose():
            if job.first_at >= 0 and not job.is_batch:
                self._watch.failed(now)
                continue
            job.left = job.prompt
            job.cached = 0
            self._wait(job)
        replica.in_flight = replica.outstanding_tokens = 0
        self._end(replica)
        if was_ready:
            self._refresh()
        self._serve_queue(now)

    # Replicas

    def _order(self, pool: str) -> SimReplica:
        self._ordered += 1
        block_tokens = self._scenario.traffic.block_tokens
        replica = SimReplica(f"{pool}-{self._ordered}", self._pools[pool], self._limits[pool], self._now, block_tokens)
        self._replicas[replica.replica_id] = replica
        self._bill.starts += 1
        lives = self._faults.crashes_after()
        if lives != inf:
            self._push(self._now + lives, replica, _GONE)
        return replica

    def _started(self, replica: SimReplica, now: float) -> None:
        if replica.state is not ReplicaState.STARTING:
            return
        if self._faults.start_fails():
            self._end(replica)
            return
        replica.state, replica.since = ReplicaState.READY, now
        replica.engine.now = now
        self._refresh()
        self._serve_queue(now)

    def _end(self, replica: SimReplica) -> None:
        if self._replicas.pop(replica.replica_id, None) is not None:
            replica.version += 1
            self._decoded_before += replica.engine.produced(self._now)
            self._bill.charge(replica.pool.name, self._now - replica.ordered_at)
            if self._treasury is not None:
                self._treasury.ended(replica, self._now)

    def _refresh(self) -> None:
        ready = tuple(r for r in self._replicas.values() if r.state is ReplicaState.READY)
        self._view = build_view(ready, with_ring=self._needs_ring)

    def _push(self, at: float, replica: SimReplica, version: int) -> None:
        self._sequence += 1
        heappush(self._events, (at, self._sequence, replica, version))

    def _note(self, decision: Decision) -> None:
        self._watch.reason(decision)

    def result(self, name: str, wall_seconds: float) -> Result:
        """What came of it."""
        watch, bill = self._watch, self._bill
        return Result(
            policy=name,
            requests=len(self._scenario.traffic),
            attained=watch.attained,
            cost_usd=bill.usd,
            usd_by_market=bill.usd_by_market,
            replica_hours=bill.replica_hours,
            accelerator_hours=bill.accelerator_hours,
            starts=bill.starts,
            preemptions=self._preemptions,
            ttft_ms=percentiles(watch.ttft),
            itl_ms=percentiles(watch.itl),
            wall_seconds=wall_seconds,
            timeline=watch.timeline(),
            reasons=dict(watch.reasons),
            usd_by_pool=bill.usd_by_pool,
            spent_usd_nanos=() if self._treasury is None else self._treasury.by_period(),
            batch=None if watch.batch is None else watch.batch.outcome(),
        )


def warm_replicas(scenario: Scenario) -> int:
    """How many a replay begins with."""
    needed = 0
    if scenario.warm_seconds:
        seconds = min(scenario.warm_seconds, max(1.0, scenario.traffic.seconds, scenario.pools[0].start_seconds))
        sums = sums_of(scenario, 0.0, scenario.warm_seconds)
        needed = ceil(replicas_needed(sums, seconds, scenario.pools[0].profile, scenario.objective))
    return min(max(needed, scenario.min_replicas), scenario.max_replicas)


def replay(
    scenario: Scenario, scaler: Scaler, *, name: str = "", progress: Callable[[float], None] | None = None
) -> Result:
    """Replay `scenario` with `scaler`. `progress` gets the share that is done, now and then."""
    begun = time.perf_counter()
    run = Replay(scenario, scaler)
    run.run(progress)
    return run.result(name or type(scaler).__name__, time.perf_counter() - begun)


def rows_of(traffic: Traffic) -> Iterator[tuple[float, int, int]]:
    """(arrival, prompt tokens, output tokens) of each request."""
    columns = traffic.arrival_seconds, traffic.prompt_tokens, traffic.output_tokens
    for low in range(0, len(traffic), ROWS_AT_ONCE):
        yield from zip(*(column[low : low + ROWS_AT_ONCE].tolist() for column in columns), strict=True)


def sums_of(scenario: Scenario, start: float, end: float) -> LengthSums:
    """Length sums of the requests that arrive in [start, end)."""
    traffic = scenario.traffic
    low, high = np.searchsorted(traffic.arrival_seconds, (start, end))
    n = traffic.prompt_tokens[low:high].astype(np.float64)
    o = traffic.output_tokens[low:high].astype(np.float64)
    return LengthSums(int(high - low), *(float(x) for x in (n.sum(), n @ n, o.sum(), o @ o, n @ o)))


def percentiles(milliseconds: "array[float]") -> dict[str, float]:
    """p50, p95 and p99; empty where nothing was measured."""
    if not milliseconds:
        return {}
    found = np.percentile(np.frombuffer(milliseconds, dtype=np.float32), (50, 95, 99))
    return {name: float(value) for name, value in zip(("p50", "p95", "p99"), found, strict=True)}
