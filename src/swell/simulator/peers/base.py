"""What peers have in common: bounds, memory of what they asked for, and decisions that say why.

A peer's number of replicas is what it asked for last (`spec.replicas`, where the peer runs on Kubernetes), not what it
sees: a replica that is lost is replaced without anybody deciding. A window that was not observed keeps that number.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np

from swell.policy.scaling.capacity import Mix, capacity
from swell.simulator.result import Scenario
from swell.state.scaling import Decision, LengthSums, Observation, ReplicaState, ReplicaView, Window
from swell.state.traffic import Traffic

Inputs = tuple[tuple[str, float], ...]


class KnobRange(NamedTuple):
    """The range in which a peer's one knob makes sense, and which end of it provides more."""

    low: float
    high: float
    larger_means_more: bool


@dataclass(frozen=True, slots=True)
class Want:
    """What a peer computed, before the bounds."""

    replicas: int
    binding: str
    reason: str
    inputs: Inputs = ()


class Peer(ABC):
    """A peer that scales one pool: the scenario's first.

    `period_seconds` is the peer's own. `lowest` is how far down it goes by itself: 1 where it does not know how to come
    back from zero.
    """

    period_seconds: float = 15.0
    lowest: int = 1

    def __init__(self, scenario: Scenario, knob: float | None = None) -> None:
        """`knob` is the peer's target value; None takes what the peer publishes."""
        self.pool = scenario.pools[0]
        self.knob = self.default_knob(scenario) if knob is None else knob
        if self.knob <= 0:
            raise ValueError(f"the knob of {type(self).__name__} must be positive, not {self.knob}")
        self.high = max(0, min(scenario.max_replicas, self.pool.max_replicas))
        self.low = min(max(scenario.min_replicas, self.lowest), self.high)
        self._wanted: int | None = None

    @property
    def interval_seconds(self) -> float:
        """How often it wants to be asked."""
        return self.period_seconds

    @abstractmethod
    def default_knob(self, scenario: Scenario) -> float:
        """What the peer publishes."""

    @abstractmethod
    def want(self, seen: Observation, window: Window, current: int) -> Want:
        """How many replicas the peer's own rules ask for, `current` being what they asked for last."""

    def decide(self, seen: Observation) -> Decision:
        """What the peer's rules ask for, inside the bounds."""
        current = self._wanted
        if current is None:
            current = self.clipped(sum(r.state is not ReplicaState.DRAINING for r in self.mine(seen)))
        if seen.window is None:
            found = Want(current, "hold", "nothing was observed: the number stays")
        else:
            found = self.want(seen, seen.window, current)
        replicas = self.clipped(found.replicas)
        binding = found.binding
        if replicas != found.replicas:
            binding = "floor" if replicas > found.replicas else "ceiling"
        is_hold = seen.window is None or replicas == self._wanted
        self._wanted = replicas
        return Decision(
            seen.now, ((self.pool.name, replicas),), found.reason, binding, is_hold=is_hold, inputs=found.inputs
        )

    def clipped(self, replicas: int) -> int:
        """Inside the scenario's bounds."""
        return min(max(replicas, self.low), self.high)

    def mine(self, seen: Observation) -> list[ReplicaView]:
        """The pool's replicas."""
        return [replica for replica in seen.replicas if replica.pool == self.pool.name]

    def ready(self, seen: Observation) -> list[ReplicaView]:
        """The pool's replicas that take requests."""
        return [r for r in seen.replicas if r.state is ReplicaState.READY and r.pool == self.pool.name]


def whole(replicas: float) -> int:
    """Rounded up, unless what is over a whole number is the arithmetic's own error."""
    return ceil(replicas - 1e-9)


def waiting_requests(window: Window, ready: list[ReplicaView]) -> int:
    """Requests that wait, in the gateway or in an engine.

    Peers know engines that queue. Here the gateway keeps one queue and an engine gets what it has room for, so both
    belong to what a peer calls its engines' queues.
    """
    return window.queued + sum(replica.waiting for replica in ready)


def known_lengths(scenario: Scenario) -> LengthSums:
    """Lengths of requests that somebody who sets a peer up could have measured: the history, else the warm-up."""
    if scenario.history is not None and len(scenario.history):
        return _sums(scenario.history, len(scenario.history))
    traffic = scenario.traffic
    return _sums(traffic, max(1, int(np.searchsorted(traffic.arrival_seconds, scenario.warm_seconds))))


def concurrency(scenario: Scenario) -> int:
    """Requests that one replica of the first pool may have at a time."""
    if scenario.max_in_flight is not None:
        return scenario.max_in_flight
    mix = Mix.of_sums(known_lengths(scenario)) or Mix.of_means(1, 1)
    return capacity(scenario.pools[0].profile, scenario.objective, mix)[1]


def _sums(traffic: Traffic, count: int) -> LengthSums:
    n = traffic.prompt_tokens[:count].astype(np.float64)
    o = traffic.output_tokens[:count].astype(np.float64)
    return LengthSums(len(n), *(float(x) for x in (n.sum(), n @ n, o.sum(), o @ o, n @ o)))
