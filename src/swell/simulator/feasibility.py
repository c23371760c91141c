"""Whether hardware can serve a trace inside the objective at all: where an idle fleet cannot, no policy is judged."""

from dataclasses import replace

import numpy as np

from swell.ports.scaler import Scaler
from swell.simulator.result import Scenario
from swell.simulator.run import replay
from swell.state.scaling import Decision, Observation, Pool
from swell.state.traffic import Traffic

LEAST_ATTAINMENT = 0.995
_SAMPLED = 4000  # requests; the share of misses is known to about 0.1 % by so many
_REPLICAS = 8
_APART_SECONDS = 30.0  # a replica gets one every four minutes: it is idle again by then


class Constant(Scaler):
    """Always the same number of replicas of one pool."""

    interval_seconds = 60.0

    def __init__(self, pool: Pool, replicas: int) -> None:
        self._counts = ((pool.name, replicas),)

    def decide(self, seen: Observation) -> Decision:
        """The number, whatever is seen."""
        return Decision(seen.now, self._counts, "the number of replicas is fixed", "floor")


def unloaded_attainment(scenario: Scenario) -> float:
    """The share of requests that the best of the pools attains when every request meets an idle replica.

    Measured by a replay of every k-th request, each far from the next; from there on only queues can make it worse.
    """
    sample = _far_apart(scenario.traffic)
    pools = {pool.profile: pool for pool in reversed(scenario.pools)}  # a market or a zone changes nothing
    return max((_attained(scenario, sample, pool) for pool in pools.values()), default=0.0)


def why_excluded(scenario: Scenario) -> str:
    """A sentence that names a pair of trace and hardware that cannot be judged; empty where it can."""
    attained = unloaded_attainment(scenario)
    if attained >= LEAST_ATTAINMENT:
        return ""
    hardware = " or ".join(dict.fromkeys(pool.profile.name for pool in scenario.pools))
    trace = scenario.traffic.name or "the trace"
    return (
        f"{trace} on {hardware} is excluded: even an idle fleet meets the objective for only {attained:.2%} of "
        f"requests, and {LEAST_ATTAINMENT:.1%} are needed to compare policies; allow more waiting or slower tokens, or "
        "choose faster accelerators"
    )


def _attained(scenario: Scenario, sample: Traffic, pool: Pool) -> float:
    idle = replace(
        scenario,
        traffic=sample, pools=(pool,), min_replicas=_REPLICAS, max_replicas=_REPLICAS, history=None, spot=None,
    )  # fmt: skip
    return replay(idle, Constant(pool, _REPLICAS)).attainment


def _far_apart(traffic: Traffic) -> Traffic:
    every = max(1, -(-len(traffic) // _SAMPLED))
    chosen = np.arange(0, len(traffic), every)
    return Traffic(
        np.arange(len(chosen), dtype=np.float64) * _APART_SECONDS,
        traffic.prompt_tokens[chosen],
        traffic.output_tokens[chosen],
        block_tokens=traffic.block_tokens,
        name=traffic.name,
    )
