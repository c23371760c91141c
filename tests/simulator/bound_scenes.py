"""Small scenarios whose optimum is known: a request's work is one millisecond per prompt token, and nothing else."""

import numpy as np

from swell.simulator.result import Scenario
from swell.state.scaling import LatencyProfile, Market, Objective, Pool
from swell.state.traffic import Traffic

MS_PER_TOKEN = LatencyProfile("m", "a", 1, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1_000_000)
USD_PER_SECOND = 3600.0  # per hour: so that a replica-second costs one dollar


def pool(
    start_seconds: float, *, usd: float = USD_PER_SECOND, name: str = "a", profile: LatencyProfile = MS_PER_TOKEN,
    market: Market = Market.ON_DEMAND,
) -> Pool:  # fmt: skip
    """A pool at a dollar a second."""
    return Pool(name, profile, usd, start_seconds, market=market)


def scene(
    requests: list[tuple[float, float, float]], pools: tuple[Pool, ...], attainment: float = 1.0, **fleet: int
) -> Scenario:
    """Requests of (arrival second, work in replica-seconds on the first pool); all may wait as long as the first."""
    waits = {wait for _, _, wait in requests}
    assert len(waits) == 1, "an objective knows one wait"
    requests = sorted(requests)
    traffic = Traffic(
        np.array([at for at, _, _ in requests], dtype=np.float64),
        np.array([round(work * 1000) for _, work, _ in requests], dtype=np.int32),
        np.ones(len(requests), dtype=np.int32),
    )
    # Outputs of one token take no decode step; an ITL of 0.001 ms adds nothing to the deadline.
    objective = Objective(ttft_ms=waits.pop() * 1000, itl_ms=0.001, attainment=attainment)
    return Scenario(traffic, pools, objective, **fleet)
