"""A fleet of several pools that follows decisions, with zones that can be closed and replicas that can be taken."""

from dataclasses import dataclass, field

from swell.policy.scaling.capacity import Mix
from swell.policy.scaling.mix import MixMemory, spread
from swell.policy.scaling.mix_need import MixSettings
from swell.policy.scaling.placement import PlacementRules
from swell.state.scaling import (
    Decision,
    LatencyProfile,
    Market,
    Objective,
    Observation,
    Pool,
    ReplicaState,
    ReplicaView,
    Window,
)

OBJECTIVE = Objective(5000, 100, 0.99, beyond_prefill=True)
PROFILE = LatencyProfile("m", "X", 1, 8.0, 0.05, 0.0, 12.0, 0.03, 8e-5, kv_tokens=400_000)
MIX = Mix.of_means(1000, 200)
TICK = 10.0
START = 120.0
X = Pool("X", PROFILE, 3.0, START)
A, B, C = (
    Pool(f"X/spot/{zone}", PROFILE, usd, START, Market.SPOT, zone, 0.25)
    for zone, usd in (("us-east-1a", 0.8), ("us-west-2a", 1.0), ("europe-west1-b", 1.2))
)
POOLS = (X, A, B, C)


@dataclass
class Fleet:
    """Replicas by id; `closed` zones refuse orders."""

    pools: tuple[Pool, ...] = POOLS
    rules: PlacementRules = field(default_factory=PlacementRules)
    now: float = 0.0
    closed: set[str] = field(default_factory=set)
    replicas: list[ReplicaView] = field(default_factory=list)
    ordered: dict[str, int] = field(default_factory=dict)  # by pool, in the last turn
    decisions: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.settings = MixSettings(self.pools, OBJECTIVE, self.rules)
        self.memory = MixMemory()
        self._made = 0

    def seen(self, window: bool = True) -> Observation:
        """What there is now."""
        return Observation(self.now, Window(self.now, TICK) if window else None, tuple(self.replicas))

    def turn(self, need: int, window: bool = True, batch: float = 0.0) -> Decision:
        """One turn: time passes, starts end, the decision is followed."""
        self.now += TICK
        starts = {pool.name: pool.start_seconds for pool in self.pools}
        self.replicas = [
            ReplicaView(r.replica_id, r.pool, ReplicaState.READY, self.now, ordered_at=r.ordered_at)
            if r.state is ReplicaState.STARTING and self.now - r.ordered_at >= starts[r.pool]
            else r
            for r in self.replicas
        ]
        asked = Decision(self.now, ((self.pools[0].name, need),), "level forecast", "forecast", is_hold=True)
        decision, self.memory = spread(self.settings, self.memory, self.seen(window), asked, MIX, batch)
        self.decisions.append(decision)
        self._follow(decision)
        return decision

    def run(self, turns: int, need: int, batch: float = 0.0) -> Decision:
        """The last of so many turns with one need."""
        for _ in range(turns - 1):
            self.turn(need, batch=batch)
        return self.turn(need, batch=batch)

    def take(self, pool: str, count: int = 10_000) -> None:
        """The market takes replicas of a pool away."""
        gone = [r for r in self.replicas if r.pool == pool][:count]
        self.replicas = [r for r in self.replicas if r not in gone]

    def count(self, pool: str, *states: ReplicaState) -> int:
        """Replicas of a pool, in any of the states."""
        return sum(r.pool == pool and (not states or r.state in states) for r in self.replicas)

    @property
    def ready(self) -> int:
        """Of all pools."""
        return sum(r.state is ReplicaState.READY for r in self.replicas)

    def spend(self, decision: Decision) -> float:
        """usd/h of what was decided."""
        prices = {pool.name: pool.usd_per_hour for pool in self.pools}
        return sum(prices[name] * count for name, count in decision.counts)

    def _follow(self, decision: Decision) -> None:
        self.ordered = {}
        for pool, wanted in decision.counts:
            here = [r for r in self.replicas if r.pool == pool]
            if wanted > len(here):
                self.ordered[pool] = wanted - len(here)
                for _ in range(0 if pool in self.closed else wanted - len(here)):
                    self._made += 1
                    self.replicas.append(
                        ReplicaView(f"{pool}-{self._made}", pool, ReplicaState.STARTING, self.now, ordered_at=self.now)
                    )
            else:  # those that start go first
                here.sort(key=lambda r: (r.state is ReplicaState.READY, -r.ordered_at))
                gone = here[: len(here) - wanted]
                self.replicas = [r for r in self.replicas if r not in gone]
