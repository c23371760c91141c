"""What a replay yields."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swell.policy.scaling.placement_problem import PlacementRules
from swell.state.scaling import Objective, Pool
from swell.state.traffic import Traffic

if TYPE_CHECKING:
    from swell.simulator.spot import SpotMarket
    from swell.simulator.treasury import SimBudget


@dataclass(frozen=True)
class Scenario:
    """What is replayed, on what. The same for every policy that is compared.

    The fleet starts warm, with the replicas that the first `warm_seconds` of traffic need. Start-up is billed.
    """

    traffic: Traffic
    pools: tuple[Pool, ...]
    objective: Objective
    min_replicas: int = 0
    max_replicas: int = 10_000
    max_in_flight: int | None = None  # at one replica; None: what its batch may hold inside the objective
    routing: str = "least_outstanding_tokens"
    refuses_late: bool = False  # who waits and cannot have its first token in time any more; else it is demoted
    warm_seconds: float = 600.0
    idle_seconds: float = 300.0  # without any request, before Swell's policy lets the last replica go
    history: Traffic | None = None  # what happened before the trace begins, for forecasts
    seed: int = 1
    rules: PlacementRules = field(default_factory=PlacementRules)  # for who mixes pools; the bounds are those above
    spot: "SpotMarket | None" = None  # without one, spot is never taken away
    crashes_per_hour: float = 0.0  # of one replica, without notice
    failed_starts: float = 0.0  # share of starts that end without a replica, and are paid
    minimum_seconds: float = 0.0  # that a replica is billed for at least
    budget: "SimBudget | None" = None  # what replicas may cost; with one, draining is bounded


@dataclass(frozen=True)
class Timeline:
    """The fleet over time, one entry per tick."""

    seconds: NDArray[np.float64]
    ready: NDArray[np.int32]
    present: NDArray[np.int32]  # ready or starting
    in_system: NDArray[np.int32]  # requests running or waiting
    queued: NDArray[np.int32]
    usd_per_hour: NDArray[np.float64]


@dataclass(frozen=True)
class BatchOutcome:
    """What became of the requests of priority batch. Seconds are from arrival to the first token."""

    requests: int
    answered: int  # by an hour after the last arrival
    first_token_p50_seconds: float
    first_token_p95_seconds: float


@dataclass(frozen=True)
class Result:
    """One replay of one policy. Requests of priority batch are promised no time: they count as no attainment."""

    policy: str
    requests: int
    attained: int
    cost_usd: float
    usd_by_market: dict[str, float]
    replica_hours: float
    accelerator_hours: float
    starts: int
    preemptions: int
    ttft_ms: dict[str, float]  # p50, p95, p99
    itl_ms: dict[str, float]
    wall_seconds: float
    timeline: Timeline
    knob: float | None = None
    usd_by_pool: dict[str, float] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)  # how often each rule set the number
    spent_usd_nanos: tuple[int, ...] = ()  # by period of the budget, where there is one
    batch: BatchOutcome | None = None  # of those of `requests` that are of priority batch

    @property
    def promised(self) -> int:
        """Requests that are promised a time: all but batch."""
        return self.requests - (self.batch.requests if self.batch else 0)

    @property
    def attainment(self) -> float:
        """The share of requests that met the objective; refusals and errors are misses."""
        return self.attained / self.promised if self.promised else 1.0
