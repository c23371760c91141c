"""What the autoscaler knows, sees and decides. Frozen values, shared by policy, live loop and simulator.

Times are seconds on one clock (monotonic live, virtual in the simulator) unless a name says otherwise.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from swell.state.funding import Fund, Funding


@dataclass(frozen=True, slots=True)
class LatencyProfile:
    """How long one replica takes: a model on an accelerator.

    `prefill_ms(n) = a + b·n + c·n²` for a prompt of n tokens; `step_ms(B, S) = s + q·B + t·S` for one decode step of B
    sequences whose contexts sum to S tokens. `kv_tokens` fit into its KV cache.
    """

    model: str
    accelerator: str
    accelerator_count: int  # of one replica
    prefill_fixed_ms: float  # a
    prefill_ms_per_token: float  # b
    prefill_ms_per_token2: float  # c
    step_fixed_ms: float  # s
    step_ms_per_sequence: float  # q
    step_ms_per_context_token: float  # t
    kv_tokens: int
    max_sequences: int = 256
    chunk_tokens: int = 2048  # of prompts in one engine step
    source: str = ""

    @property
    def name(self) -> str:
        """As users write it, such as `llama-3.1-8b@A100-80GB` or `llama-3.1-70b@4xH100`."""
        count = f"{self.accelerator_count}x" if self.accelerator_count > 1 else ""
        return f"{self.model}@{count}{self.accelerator}"

    def prefill_ms(self, prompt_tokens: float) -> float:
        """An unloaded replica's time to the first token."""
        n = prompt_tokens
        return self.prefill_fixed_ms + self.prefill_ms_per_token * n + self.prefill_ms_per_token2 * n * n

    def step_ms(self, sequences: float, context_tokens: float) -> float:
        """One decode step; `context_tokens` is the sum over all sequences."""
        return (
            self.step_fixed_ms + self.step_ms_per_sequence * sequences + self.step_ms_per_context_token * context_tokens
        )


class Market(StrEnum):
    """How a machine is bought."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"


@dataclass(frozen=True, slots=True)
class Pool:
    """One way to get a replica: an accelerator, a market and a zone, at a price."""

    name: str  # unique in a plan, such as `A100-80GB`, or `L4/spot/us-east1-b`
    profile: LatencyProfile
    usd_per_hour: float  # of one replica
    start_seconds: float  # from order to ready, as expected
    market: Market = Market.ON_DEMAND
    zone: str = ""
    hazard_per_hour: float = 0.0  # expected preemptions of one replica
    max_replicas: int = 10_000


@dataclass(frozen=True, slots=True)
class Objective:
    """When a request attains: TTFT at most `ttft_ms` plus the prompt's allowance, mean ITL at most `itl_ms`.

    With `beyond_prefill`, `ttft_ms` counts beyond an unloaded replica's own prefill of the prompt.
    """

    ttft_ms: float = 5000.0
    itl_ms: float = 100.0
    attainment: float = 0.99
    ttft_ms_per_1k_prompt_tokens: float = 0.0
    beyond_prefill: bool = False

    def ttft_limit_ms(self, prompt_tokens: float, profile: LatencyProfile) -> float:
        """The longest time to the first token that attains."""
        limit = self.ttft_ms + self.ttft_ms_per_1k_prompt_tokens * prompt_tokens / 1000
        return limit + profile.prefill_ms(prompt_tokens) if self.beyond_prefill else limit


@dataclass(frozen=True, slots=True)
class LengthSums:
    """Sums over some requests, from which any mean of prompt (n) and output (o) lengths follows."""

    count: float = 0  # whole, but for sums of which a part was forgotten
    n: float = 0.0
    n2: float = 0.0
    o: float = 0.0
    o2: float = 0.0
    no: float = 0.0

    def __add__(self, other: "LengthSums") -> "LengthSums":
        return LengthSums(
            self.count + other.count, self.n + other.n, self.n2 + other.n2, self.o + other.o, self.o2 + other.o2,
            self.no + other.no,
        )  # fmt: skip

    def less(self, part: "LengthSums") -> "LengthSums":
        """Without a part of these requests; nothing where more is taken away than there is."""
        left = self + part.scaled(-1.0)
        return left if left.count > 0 and left.n >= 0 and left.o >= 0 else LengthSums()

    def scaled(self, factor: float) -> "LengthSums":
        """Every sum times `factor`, so that means stay as they are."""
        return LengthSums(
            self.count * factor, self.n * factor, self.n2 * factor, self.o * factor, self.o2 * factor,
            self.no * factor,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Window:
    """One interval of one model, as observed at its end. An interval that was not observed has no window."""

    at: float  # its end
    seconds: float
    arrivals: int = 0
    arrived_prompt_tokens: int = 0
    completed: LengthSums = LengthSums()  # requests that ended in it
    decoded_tokens: int = 0  # output tokens that were produced in it
    judged: int = 0  # requests whose objective was decided in it: ended, refused or failed
    attained: int = 0
    ttft_ms_sum: float = 0.0  # over the completed
    itl_ms_sum: float = 0.0
    in_flight: int = 0  # at its end: sent to replicas
    queued: int = 0  # at its end: waiting in the gateway
    oldest_queued_seconds: float = 0.0
    mean_in_flight: float = 0.0  # over the interval, queued ones included
    cached_prompt_tokens: int = 0  # of the completed requests' prompts, found in a prefix cache
    batch: "Window | None" = None  # what of all this requests of priority batch are; None: none
    running_share: float = 1.0  # of all that runs, where the window is a part of it
    is_partial: bool = False  # somebody who may be serving told nothing: it is less than what happened

    @property
    def of_others(self) -> "Window":
        """The same without what requests of priority batch are."""
        part = self.batch
        if part is None:
            return self
        return replace(
            self,
            arrivals=max(0, self.arrivals - part.arrivals),
            arrived_prompt_tokens=max(0, self.arrived_prompt_tokens - part.arrived_prompt_tokens),
            completed=self.completed.less(part.completed),
            decoded_tokens=max(0, self.decoded_tokens - part.decoded_tokens),
            judged=max(0, self.judged - part.judged),
            attained=max(0, self.attained - part.attained),
            ttft_ms_sum=max(0.0, self.ttft_ms_sum - part.ttft_ms_sum),
            itl_ms_sum=max(0.0, self.itl_ms_sum - part.itl_ms_sum),
            in_flight=max(0, self.in_flight - part.in_flight),
            queued=max(0, self.queued - part.queued),
            mean_in_flight=max(0.0, self.mean_in_flight - part.mean_in_flight),
            cached_prompt_tokens=max(0, self.cached_prompt_tokens - part.cached_prompt_tokens),
            batch=None,
            running_share=max(0, self.in_flight - part.in_flight) / self.in_flight if self.in_flight else 1.0,
        )


class ReplicaState(StrEnum):
    """What the autoscaler tells apart."""

    STARTING = "starting"  # ordered, not ready
    READY = "ready"
    DRAINING = "draining"  # finishes what it has; counts for nothing


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica at the end of a window."""

    replica_id: str
    pool: str
    state: ReplicaState
    since: float  # of the state
    in_flight: int = 0
    waiting: int = 0  # of those, not yet in the engine's batch
    outstanding_tokens: int = 0
    kv_used: float = 0.0  # share of its KV cache
    ordered_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything a scaling policy may look at, at one moment. `window` is None where nothing could be observed."""

    now: float
    window: Window | None
    replicas: tuple[ReplicaView, ...]
    now_unix: float | None = None  # for times of day, where known
    funding: Funding | None = None  # what infrastructure budgets leave; None: there is none

    def count(self, state: ReplicaState, pool: str | None = None) -> int:
        """How many replicas are in `state` (of `pool`)."""
        return sum(r.state is state and (pool is None or r.pool == pool) for r in self.replicas)

    @property
    def ready(self) -> int:
        """Replicas that take requests."""
        return self.count(ReplicaState.READY)

    @property
    def present(self) -> int:
        """Replicas that take requests, or will."""
        return self.ready + self.count(ReplicaState.STARTING)


@dataclass(frozen=True, slots=True)
class Option:
    """A number of replicas that was weighed and not taken."""

    replicas: int
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas of each pool there shall be, and why."""

    at: float
    counts: tuple[tuple[str, int], ...]  # by pool
    reason: str  # a sentence
    binding: str  # which rule set the number: forecast, breach, floor, ceiling, release, hold, budget, …
    is_hold: bool = False  # nothing changes
    inputs: tuple[tuple[str, float], ...] = ()  # what it was computed from, by name
    rejected: tuple[Option, ...] = ()
    wanted: tuple[tuple[str, int], ...] = ()  # by fund, nano-dollars: the rest of its period, were there no budget
    fund: Fund | None = None  # that bound it, where `binding` is the budget

    @property
    def replicas(self) -> int:
        """Over all pools."""
        return sum(count for _, count in self.counts)
