"""The simulated fleet: replicas that are ordered, start, serve, drain and end, and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass

from swell.policy.scaling.capacity import Mix, capacity, longest_prompt
from swell.simulator.engine import Engine
from swell.state.scaling import Market, Objective, Pool, ReplicaState, ReplicaView

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What every replica of a pool can do."""

    in_flight: int  # requests at a time
    speed: float  # its capacity, as a multiple of the first pool's
    prompt_tokens: int  # the longest prompt that an idle one answers inside the objective


def limits_of(pool: Pool, reference: Pool, objective: Objective, mix: Mix, expected_output: int) -> Limits:
    """By its latency profile, for the lengths of `mix`; the wait that the objective allows is the reference's."""
    profile = pool.profile
    rate, batch = capacity(profile, objective, mix)
    longest = longest_prompt(profile, objective, expected_output, reference.profile)
    return Limits(batch, rate / capacity(reference.profile, objective, mix)[0], longest)


class SimReplica:
    """One replica. It is also what the routing policies see as a candidate."""

    __slots__ = (
        "ends_at",
        "engine",
        "in_flight",
        "limit",
        "most_tokens",
        "ordered_at",
        "outstanding_tokens",
        "pool",
        "replica_id",
        "since",
        "speed",
        "state",
        "version",
    )  # fmt: skip

    def __init__(self, replica_id: str, pool: Pool, limits: Limits, now: float, block_tokens: int) -> None:
        self.replica_id = replica_id
        self.pool = pool
        self.limit = limits.in_flight
        self.speed = limits.speed
        self.most_tokens = limits.prompt_tokens
        self.state = ReplicaState.STARTING
        self.ordered_at = self.since = now
        self.engine = Engine(pool.profile, now, block_tokens)
        self.in_flight = 0
        self.outstanding_tokens = 0
        self.version = 0  # of its next event; older ones are void

    @property
    def has_room(self) -> bool:
        """Whether one more request may be sent to it."""
        return self.in_flight < self.limit

    def view(self) -> ReplicaView:
        """As a scaling policy sees it."""
        return ReplicaView(
            self.replica_id, self.pool.name, self.state, self.since, self.in_flight, len(self.engine.waiting),
            self.outstanding_tokens, self.engine.kv_used, self.ordered_at,
        )  # fmt: skip


class Bill:
    """Replica-seconds by pool, from order to end: start-up is paid, and a minimum."""

    def __init__(self, pools: Mapping[str, Pool], minimum_seconds: float = 0.0) -> None:
        self._pools = pools
        self._minimum_seconds = minimum_seconds
        self.seconds = dict.fromkeys(pools, 0.0)
        self.starts = 0

    def charge(self, pool: str, seconds: float) -> None:
        """A replica of `pool` existed for so long; it is billed for the minimum at least."""
        self.seconds[pool] += max(seconds, self._minimum_seconds)

    @property
    def usd(self) -> float:
        """All of it."""
        return sum(self.usd_by_market.values())

    @property
    def usd_by_market(self) -> dict[str, float]:
        """By the way it was bought."""
        found = {market.value: 0.0 for market in Market}
        for name, seconds in self.seconds.items():
            pool = self._pools[name]
            found[pool.market.value] += seconds / SECONDS_PER_HOUR * pool.usd_per_hour
        return {market: usd for market, usd in found.items() if usd}

    @property
    def usd_by_pool(self) -> dict[str, float]:
        """By pool, where anything was spent."""
        spent = {
            name: seconds / SECONDS_PER_HOUR * self._pools[name].usd_per_hour for name, seconds in self.seconds.items()
        }
        return {name: usd for name, usd in spent.items() if usd}

    @property
    def replica_hours(self) -> float:
        return sum(self.seconds.values()) / SECONDS_PER_HOUR

    @property
    def accelerator_hours(self) -> float:
        return (
            sum(seconds * self._pools[name].profile.accelerator_count for name, seconds in self.seconds.items())
            / SECONDS_PER_HOUR
        )
