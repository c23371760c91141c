"""What is observed while a replay runs: windows for the scaling policy, latencies and the timeline for the report."""

from array import array
from collections import Counter
from collections.abc import Iterable, Sized
from dataclasses import replace
from typing import Protocol

import numpy as np

from swell.policy.queueing import BATCH
from swell.simulator.engine import Job
from swell.simulator.fleet import SimReplica
from swell.simulator.result import BatchOutcome, Timeline
from swell.state.scaling import Decision, LengthSums, ReplicaState, Window


class _Queue(Sized, Protocol):
    def waiting(self, priority: str) -> int:
        """How many of a class wait."""


class Watch:
    """Counts. One per replay. Requests of priority batch are promised no time: whether they attain is not counted."""

    def __init__(self, requests: int, batch_requests: int = 0) -> None:
        self.requests = requests
        self.batch = Watch(batch_requests) if batch_requests else None  # of those alone; they count here as well
        self.in_system = 0
        self.ended = 0
        self.attained = 0
        self.ttft = array("f")  # milliseconds, in order of completion
        self.itl = array("f")
        self.reasons: Counter[str] = Counter()
        self._at = 0.0  # the last window's end
        self._area = 0.0  # request-seconds in the system since then
        self._area_at = 0.0
        self._arrivals = 0
        self._prompt_tokens = 0
        self._decoded = 0  # output tokens up to then
        self._reset()
        self._marks: list[tuple[float, int, int, int, int, float]] = []

    def _reset(self) -> None:
        self._arrivals = self._prompt_tokens = self._judged = self._good = self._cached = 0
        self._count, self._n, self._n2, self._o, self._o2, self._no = 0, 0, 0, 0, 0, 0
        self._ttft_sum = self._itl_sum = 0.0
        self._area = 0.0

    def arrived(self, now: float, prompt: int, *, is_batch: bool = False) -> None:
        """A request came in."""
        if is_batch and self.batch is not None:
            self.batch.arrived(now, prompt)
        self._area += self.in_system * (now - self._area_at)
        self._area_at = now
        self.in_system += 1
        self._arrivals += 1
        self._prompt_tokens += prompt

    def finished(self, now: float, job: Job, prompt: int, output: int, itl_limit: float) -> None:
        """A request was answered in full; lengths are its own, whatever was computed twice."""
        if job.is_batch and self.batch is not None:
            self.batch.finished(now, job, prompt, output, itl_limit)
        self._area += self.in_system * (now - self._area_at)
        self._area_at = now
        self.in_system -= 1
        self.ended += 1
        ttft = job.first_at - job.arrival
        itl = (now - job.first_at) / (output - 1) if output > 1 else 0.0
        good = ttft <= job.ttft_limit and itl <= itl_limit
        if not job.is_batch:
            self.attained += good
            self._good += good
            self._judged += 1
        self._count += 1
        self._n += prompt
        self._n2 += prompt * prompt
        self._o += output
        self._o2 += output * output
        self._no += prompt * output
        self._cached += job.cached
        self._ttft_sum += ttft
        self._itl_sum += itl
        if not job.is_batch or self.batch is None:
            self.ttft.append(ttft * 1000)
            self.itl.append(itl * 1000)

    def failed(self, now: float) -> None:
        """A request was cut: it missed. None of batch is."""
        self._area += self.in_system * (now - self._area_at)
        self._area_at = now
        self.in_system -= 1
        self.ended += 1
        self._judged += 1

    def window(self, now: float, queue: _Queue, decoded: float) -> Window:
        """Everything since the last window; `decoded` output tokens since the beginning, over all replicas."""
        produced = max(0, int(decoded) - self._decoded)
        self._decoded = int(decoded)
        window = self._window(now, len(queue), produced)
        if self.batch is None:
            return window
        waiting = queue.waiting(BATCH)
        running = self.batch.in_system - waiting
        # Sequences of one engine are decoded at one pace.
        part = int(produced * running / window.in_flight) if window.in_flight else 0
        return replace(window, batch=self.batch._window(now, waiting, part))

    def _window(self, now: float, queued: int, produced: int) -> Window:
        self._area += self.in_system * (now - self._area_at)
        self._area_at = now
        seconds = now - self._at
        window = Window(
            at=now,
            seconds=seconds,
            arrivals=self._arrivals,
            arrived_prompt_tokens=self._prompt_tokens,
            completed=LengthSums(self._count, self._n, self._n2, self._o, self._o2, self._no),
            decoded_tokens=produced,
            judged=self._judged,
            attained=self._good,
            ttft_ms_sum=self._ttft_sum * 1000,
            itl_ms_sum=self._itl_sum * 1000,
            in_flight=self.in_system - queued,
            queued=queued,
            mean_in_flight=self._area / seconds if seconds > 0 else 0.0,
            cached_prompt_tokens=self._cached,
        )
        self._at = now
        self._reset()
        return window

    def outcome(self) -> BatchOutcome:
        """Of requests that are promised no time."""
        seconds = np.frombuffer(self.ttft, dtype=np.float32) / 1000 if self.ttft else np.zeros(1)
        middle, most = np.percentile(seconds, (50, 95))
        return BatchOutcome(self.requests, self.ended, float(middle), float(most))

    def reason(self, decision: Decision) -> None:
        """Count which rule set the number."""
        self.reasons[decision.binding] += 1

    def mark(self, now: float, replicas: Iterable[SimReplica], queue: Sized) -> None:
        """One entry of the timeline."""
        ready = present = 0
        usd = 0.0
        for replica in replicas:
            usd += replica.pool.usd_per_hour
            if replica.state is ReplicaState.READY:
                ready += 1
                present += 1
            elif replica.state is ReplicaState.STARTING:
                present += 1
        self._marks.append((now, ready, present, self.in_system, len(queue), usd))

    def timeline(self) -> Timeline:
        """All marks, as columns."""
        table = np.array(self._marks, dtype=np.float64).reshape(-1, 6)
        whole = table[:, 1:5].astype(np.int32)
        return Timeline(table[:, 0], whole[:, 0], whole[:, 1], whole[:, 2], whole[:, 3], table[:, 5])
