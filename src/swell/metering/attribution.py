"""Who used what the replicas of one model cost: starting, serving by group, idle. Whole nano-dollars, exact.

Pure. A stretch of time (an hour, as a rule) is attributed on its own:

- what replicas cost before they were ready is the line `starting`;
- of what ready ones cost, the part is *used* that work takes of their time at capacity, at most all of it. It is split
  among groups in proportion to their work, by largest remainders, ties by the group's name;
- the rest is the line `idle`, and so is what was billed after a replica's end.

The lines add up to the cost, to the nano-dollar, and none is negative. Attributions of the same model add up over
time. `spread` then may hand the idle line out as well: over the whole period, in proportion to the work in it, since
hour by hour whoever sends one request at night would bear the whole night.

Without a latency profile nobody knows how much a replica can carry: an hour with requests counts as used.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from swell.metering.infrastructure import Stretch, stretches
from swell.metering.work import NO_LOAD, Load, weighted_tokens, work_microseconds
from swell.state.replica_runs import ReplicaRun
from swell.state.scaling import LatencyProfile, Objective

_MICROSECONDS_PER_MS = 1000

Group = tuple[str, str]
"""Tenant and key id."""
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Capability:
    """What is known of one replica of a model: how fast it is, and what is asked of it."""

    profile: LatencyProfile | None = None
    objective: Objective = field(default_factory=Objective)


@dataclass(frozen=True, slots=True)
class Line:
    """What a group used, and what it was charged for it at the posted rates."""

    cost_usd_nanos: int = 0
    work: int = 0  # microseconds of a replica, or weighted tokens
    load: Load = NO_LOAD

    def __add__(self, other: "Line") -> "Line":
        return Line(self.cost_usd_nanos + other.cost_usd_nanos, self.work + other.work, self.load + other.load)

    @property
    def recovery_usd_nanos(self) -> int:
        """By how much charges are more than the cost; negative where they are less."""
        return self.load.charge_usd_nanos - self.cost_usd_nanos


@dataclass(frozen=True, slots=True)
class Attribution:
    """The cost of a model's replicas in some time, line by line."""

    starting_usd_nanos: int = 0
    idle_usd_nanos: int = 0
    used: Mapping[Group, Line] = field(default_factory=dict)

    @property
    def used_usd_nanos(self) -> int:
        """All groups' lines."""
        return sum(line.cost_usd_nanos for line in self.used.values())

    @property
    def total_usd_nanos(self) -> int:
        """All lines: what the replicas cost."""
        return self.starting_usd_nanos + self.used_usd_nanos + self.idle_usd_nanos

    @property
    def charge_usd_nanos(self) -> int:
        """What all groups were charged."""
        return sum(line.load.charge_usd_nanos for line in self.used.values())

    @property
    def recovery_usd_nanos(self) -> int:
        """By how much charges are more than the cost (over-recovery); negative where they are less."""
        return self.charge_usd_nanos - self.total_usd_nanos


def attribute(
    runs: Iterable[ReplicaRun],
    loads: Mapping[Group, Load],
    since_unix_ms: int,
    until_unix_ms: int,
    capability: Capability,
    minimum_ms: int = 0,
) -> Attribution:
    """What of the runs lies in [since, until), and who used it: `loads` are requests that were admitted in it."""
    spent = stretches(runs, since_unix_ms, until_unix_ms, minimum_ms)
    profile = capability.profile
    work = weighted_tokens(loads) if profile is None else work_microseconds(loads, profile, capability.objective)
    used = _used_usd_nanos(spent, sum(work.values()), is_timed=profile is not None)
    parts = split(used, work)
    lines = {group: Line(parts[group], work[group], loads[group]) for group in sorted(loads)}
    idle = spent.serving_usd_nanos - used + spent.over_usd_nanos
    return Attribution(spent.starting_usd_nanos, idle, lines)


def summed(attributions: Iterable[Attribution]) -> Attribution:
    """The same model's over several stretches of time."""
    starting = idle = 0
    used: dict[Group, Line] = {}
    for each in attributions:
        starting += each.starting_usd_nanos
        idle += each.idle_usd_nanos
        for group, line in each.used.items():
            used[group] = used.get(group, Line()) + line
    return Attribution(starting, idle, {group: used[group] for group in sorted(used)})


def spread(attribution: Attribution) -> Attribution:
    """With the idle line handed out in proportion to work. Where nobody had any, it stays."""
    work = {group: line.work for group, line in attribution.used.items()}
    if not any(work.values()):
        return attribution
    parts = split(attribution.idle_usd_nanos, work)
    lines = {group: line + Line(parts[group]) for group, line in attribution.used.items()}
    return Attribution(attribution.starting_usd_nanos, 0, lines)


def split(amount: int, weights: Mapping[_Key, int]) -> dict[_Key, int]:
    """`amount` in proportion to whole weights of at least 0: largest remainders, ties to the larger weight, then name.

    The parts add up to the amount, unless all weights are 0: then so are they. More weight never means less.
    """
    whole = sum(weights.values())
    if not whole:
        return dict.fromkeys(weights, 0)
    parts = {key: amount * weight // whole for key, weight in weights.items()}
    left = amount - sum(parts.values())
    by_remainder = sorted(weights, key=lambda key: (-(amount * weights[key] % whole), -weights[key], str(key)))
    for key in by_remainder[:left]:
        parts[key] += 1
    return parts


def _used_usd_nanos(spent: Stretch, work: int, *, is_timed: bool) -> int:
    if not work:
        return 0
    at_capacity = spent.serving_ms * _MICROSECONDS_PER_MS
    if not is_timed or work >= at_capacity:
        return spent.serving_usd_nanos
    return spent.serving_usd_nanos * work // at_capacity
