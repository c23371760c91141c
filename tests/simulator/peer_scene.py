"""What a peer is shown in tests: scenarios whose capacity is a round number, and observations in a line."""

from collections.abc import Callable

import numpy as np

from swell.ports.scaler import Scaler
from swell.simulator.result import Scenario
from swell.state.scaling import (
    LatencyProfile,
    LengthSums,
    Market,
    Objective,
    Observation,
    Pool,
    ReplicaState,
    ReplicaView,
    Window,
)
from swell.state.traffic import Traffic

# Prompts are free and a step takes 10 ms for up to 10 sequences: 1000 tokens, or 10 requests of 100 tokens, a second.
PROFILE = LatencyProfile("m", "A", 1, 0.0, 0.0, 0.0, 10.0, 0.0, 0.0, kv_tokens=1_000_000, max_sequences=10)
POOL = Pool("A", PROFILE, usd_per_hour=2.0, start_seconds=120.0)


def traffic(requests: int = 600, seconds: float = 600.0, prompt: int = 50, output: int = 100) -> Traffic:
    """Equal requests at equal distances."""
    return Traffic(
        np.arange(requests) * (seconds / requests),
        np.full(requests, prompt, dtype=np.int32),
        np.full(requests, output, dtype=np.int32),
    )


def scenario(
    low: int = 0, high: int = 100, *, pools: tuple[Pool, ...] = (POOL,), history: Traffic | None = None
) -> Scenario:
    """Up to 10 requests in flight at a replica."""
    return Scenario(traffic(), pools, Objective(), low, high, max_in_flight=10, history=history)


def replica(
    name: str,
    state: ReplicaState = ReplicaState.READY,
    *,
    pool: str = "A",
    since: float = 0.0,
    in_flight: int = 0,
    waiting: int = 0,
    kv: float = 0.0,
) -> ReplicaView:
    """One replica; it was ordered when its state began."""
    return ReplicaView(name, pool, state, since, in_flight, waiting, 0, kv, since)


def fleet(
    ready: int, starting: int = 0, *, in_flight: int = 0, waiting: int = 0, kv: float = 0.0
) -> tuple[ReplicaView, ...]:
    """Equally loaded replicas, and some that start."""
    return (
        *(replica(f"r{i}", in_flight=in_flight, waiting=waiting, kv=kv) for i in range(ready)),
        *(replica(f"s{i}", ReplicaState.STARTING) for i in range(starting)),
    )


def seen(
    now: float,
    replicas: tuple[ReplicaView, ...],
    *,
    seconds: float = 15.0,
    mean: float = 0.0,
    queued: int = 0,
    arrivals: int = 0,
    prompt: int = 0,
    completed: LengthSums | None = None,
) -> Observation:
    """An observed interval that ends at `now`; `prompt` is the mean of those that arrived."""
    window = Window(
        now,
        seconds,
        arrivals=arrivals,
        arrived_prompt_tokens=arrivals * prompt,
        completed=completed or LengthSums(),
        in_flight=sum(r.in_flight for r in replicas),
        queued=queued,
        mean_in_flight=mean,
    )
    return Observation(now, window, replicas)


def blind(now: float, replicas: tuple[ReplicaView, ...]) -> Observation:
    """Nothing was observed."""
    return Observation(now, None, replicas)


def served(requests: int, prompt: int = 50, output: int = 100) -> LengthSums:
    """Equal requests that ended."""
    return LengthSums(
        requests, requests * prompt, requests * prompt**2, requests * output, requests * output**2,
        requests * prompt * output,
    )  # fmt: skip


def followed(
    peer: Scaler, show: Callable[[float, int], Observation], ticks: int, ready: int, begin: float = 0.0
) -> list[int]:
    """What the peer decides in a row, where every decision is carried out before the next."""
    counts = []
    for tick in range(1, ticks + 1):
        ready = peer.decide(show(begin + tick * peer.interval_seconds, ready)).replicas
        counts.append(ready)
    return counts


def spot_pool(zone: str, usd_per_hour: float = 1.0, most: int = 100) -> Pool:
    """Spot replicas of one zone."""
    return Pool(f"A/spot/{zone}", PROFILE, usd_per_hour, 120.0, Market.SPOT, zone, 0.1, most)
