"""What is simulated, from what somebody asked for: a trace, machines, an objective, bounds.

What is said outright counts; what is not comes from the model in `swell.yaml`, where there is one; else the default
scenario: Llama-3.1-8B on one A100-80GB that takes 120 s to start, and requests that may wait 5 s.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from swell.errors import UserError
from swell.policy.scaling.placement_problem import PlacementRules
from swell.simulator.demand import factor_to_peak
from swell.simulator.machines import Bought, market_of, pools_of, rules_of, spot_is_needed, spot_is_wanted
from swell.simulator.result import Scenario
from swell.simulator.traffic import GeneratedTraffic, generate, load, scale_rate, with_batch
from swell.simulator.treasury import SimBudget
from swell.spec import Engine, Late, ModelSpec, load_spec
from swell.state.catalogue import (
    DEFAULT_ACCELERATOR,
    DEFAULT_MODEL,
    DEFAULT_START_SECONDS,
    plain_model,
)
from swell.state.scaling import Objective, Pool
from swell.state.traffic import Traffic

DEFAULT_WAIT_SECONDS = 5.0
DEFAULT_ITL_MS = 100.0
DEFAULT_ATTAINMENT = 0.99


@dataclass(frozen=True)
class Wishes:
    """What was asked for; None where nothing was said."""

    trace: Path | None = None  # None: a generated week
    trace_format: str | None = None
    history: Path | None = None
    spec: Path | None = None
    model: str | None = None
    accelerator: str | None = None
    accelerator_count: int | None = None
    start_seconds: float | None = None
    wait_seconds: float | None = None  # beyond the prompt's own prefill
    itl_ms: float | None = None
    attainment: float | None = None
    peak_replicas: float | None = None
    min_replicas: int | None = None
    max_replicas: int | None = None
    profiles: Path | None = None
    prices: Path | None = None
    seed: int = 1
    bought: Bought = field(default_factory=Bought)
    budget: str | None = None  # of what replicas cost, such as `300 / week`
    batch_share: float | None = None  # of the requests, that are of priority batch; None: as the trace says


def build(wishes: Wishes) -> Scenario:
    """The scenario. Raises UserError, which says what to change."""
    return scenario_of(wishes, _declared(wishes))


def scenario_of(
    wishes: Wishes, declared: ModelSpec | None, traffic: Traffic | None = None, *, with_market: bool = True
) -> Scenario:
    """As `build`, for a model of a file that is already read and, where given, for traffic that is.

    The spot market takes a second to make; without it, spot is never taken away.
    """
    objective = _objective(wishes, declared)
    rules = rules_of(wishes.bought, declared)
    pools = _pools(wishes, declared)
    low, high = _bounds(wishes, declared)
    _check_rules(rules, pools, low, high)
    traffic, history = _traffic(wishes) if traffic is None else (traffic, None)
    if wishes.peak_replicas is not None:
        factor = factor_to_peak(traffic, pools[0].profile, objective, wishes.peak_replicas, wishes.seed)
        traffic = scale_rate(traffic, factor, seed=wishes.seed)
        history = None if history is None else scale_rate(history, factor, seed=wishes.seed)
    batch_share = 1.0 if declared is not None and declared.is_batch else wishes.batch_share
    if batch_share is not None:
        traffic = with_batch(traffic, batch_share, seed=wishes.seed)
    market = market_of(pools, wishes.bought.spot_events, traffic.seconds, wishes.seed) if with_market else None
    budget = None if wishes.budget is None else SimBudget.parse(wishes.budget)
    scenario = Scenario(
        traffic, pools, objective, low, high, history=history, seed=wishes.seed, rules=rules, spot=market,
        budget=budget,
    )  # fmt: skip
    if declared is None:
        return scenario
    return replace(
        scenario,
        routing=declared.routing.value,
        refuses_late=declared.objectives.late is Late.REFUSE,
        idle_seconds=declared.scaling.idle_seconds,
        minimum_seconds=declared.minimum_billed_seconds,
    )


def _declared(wishes: Wishes) -> ModelSpec | None:
    """The model of the file: the one that --model names, or its only one."""
    if wishes.spec is None:
        return None
    models = [model for model in load_spec(wishes.spec).models if model.engine is not Engine.EXTERNAL]
    named = [model for model in models if model.name == wishes.model]
    if not named and len(models) != 1:
        names = ", ".join(model.name for model in models) or "none that Swell runs itself"
        raise (
            UserError(f"{wishes.spec} declares several models ({names}); choose one with --model NAME")
            if models
            else (UserError(f"{wishes.spec} declares no model that Swell runs itself, so there is nothing to scale"))
        )
    return (named or models)[0]


def _objective(wishes: Wishes, declared: ModelSpec | None) -> Objective:
    waits = DEFAULT_WAIT_SECONDS if wishes.wait_seconds is None else wishes.wait_seconds
    found = Objective(waits * 1000, DEFAULT_ITL_MS, DEFAULT_ATTAINMENT, beyond_prefill=True)
    if declared is not None:
        goals = declared.objectives
        found = replace(found, itl_ms=goals.itl_ms, attainment=goals.attainment)
        if wishes.wait_seconds is None:
            allowance = goals.ttft_ms_per_1k_prompt_tokens
            found = replace(found, ttft_ms=goals.ttft_ms, ttft_ms_per_1k_prompt_tokens=allowance, beyond_prefill=False)
    if wishes.itl_ms is not None:
        found = replace(found, itl_ms=wishes.itl_ms)
    return found if wishes.attainment is None else replace(found, attainment=wishes.attainment)


def _pools(wishes: Wishes, declared: ModelSpec | None) -> tuple[Pool, ...]:
    model = wishes.model or DEFAULT_MODEL
    if declared is not None and wishes.model in (None, declared.name):
        model = plain_model((declared.source or declared.name).removesuffix(".gguf"))
    starts = wishes.start_seconds
    if starts is None:
        starts = DEFAULT_START_SECONDS if declared is None else declared.start_seconds
    return pools_of(
        model,
        _accelerators(wishes, declared),
        spot=spot_is_wanted(wishes.bought, declared),
        spot_is_needed=spot_is_needed(wishes.bought, declared),
        start_seconds=starts,
        profiles=wishes.profiles,
        prices=wishes.prices,
    )


def _accelerators(wishes: Wishes, declared: ModelSpec | None) -> tuple[str, ...]:
    """Of what may be mixed, the first is what peers scale."""
    several, count = wishes.bought.accelerators, wishes.accelerator_count
    if several is not None:
        if wishes.accelerator is not None or count is not None:
            raise UserError("--accelerators names what may be mixed, such as L4,2xA100-80GB; leave --accelerator out")
        if not several:
            raise UserError("--accelerators names none; give names with commas, such as L4,A100-80GB")
        return several
    if wishes.accelerator is None and count is None and declared is not None and declared.accelerators:
        return declared.accelerators
    kind = wishes.accelerator or DEFAULT_ACCELERATOR
    return (kind if count is None else f"{count}x{kind}",)


def _bounds(wishes: Wishes, declared: ModelSpec | None) -> tuple[int, int]:
    low, high = (0, Scenario.max_replicas) if declared is None else (declared.replicas.min, declared.replicas.max)
    low = low if wishes.min_replicas is None else wishes.min_replicas
    high = high if wishes.max_replicas is None else wishes.max_replicas
    if low > high:
        raise UserError(
            f"at least {low} and at most {high} replicas contradict; lower --min-replicas or raise --max-replicas"
        )
    if high < 1:
        raise UserError("with at most 0 replicas nothing is served; raise --max-replicas")
    return low, high


def _check_rules(rules: PlacementRules, pools: tuple[Pool, ...], low: int, high: int) -> None:
    """UserError where bounds, base and ceiling cannot all be kept."""
    base, ceiling = rules.on_demand_base, rules.usd_per_hour
    if base > high:
        raise UserError(
            f"an on-demand base of {base} and at most {high} replicas contradict; "
            "lower --on-demand-base or raise --max-replicas"
        )
    least = min(pool.usd_per_hour for pool in pools)
    if ceiling is not None and ceiling < least * max(1, low):
        raise UserError(
            f"{max(1, low)} replicas cost at least {least * max(1, low):.2f} USD an hour, and --usd-per-hour allows "
            f"{ceiling:g}; raise it, or lower --min-replicas"
        )


def _traffic(wishes: Wishes) -> tuple[Traffic, Traffic | None]:
    if wishes.trace is None and wishes.trace_format is not None:
        raise UserError("--format says how to read --trace, and there is none; give a trace")
    traffic = (
        generate(GeneratedTraffic(), wishes.seed) if wishes.trace is None else load(wishes.trace, wishes.trace_format)
    )
    return traffic, None if wishes.history is None else load(wishes.history)
