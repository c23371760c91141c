"""One model's traffic, replayed as its spec says and as it would say.

Every replay runs Swell's policy as it runs live: it learns its own caution. Where the objective is narrowly missed,
because a day or two is too short to learn in, the headroom to begin with is searched inside what can be learnt; so
everything is compared at the attainment that was asked for. What misses it by far is missed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from swell.errors import UserError
from swell.server.review_edits import Change, changed
from swell.server.review_saving import hourly_usd, nanos
from swell.simulator.compare import Contender, bisect_to
from swell.simulator.demand import replicas_filled
from swell.simulator.machines import market_of
from swell.simulator.own import swell_scaler
from swell.simulator.parallel import run_all
from swell.simulator.result import Result, Scenario
from swell.simulator.run import replay
from swell.simulator.setting import Wishes, scenario_of
from swell.simulator.spot import SpotMarket
from swell.spec import ModelSpec
from swell.state.catalogue import plain_model
from swell.state.scaling import Pool
from swell.state.traffic import Traffic

Changes = tuple[Change, ...]
Progress = Callable[[float], None]

_NARROWLY = 3.0  # times as many misses as may be
_HEADROOM = (1.0, 6.0)  # the caution that the policy begins with, up to the most that it learns
_SEARCH_REPLAYS = 4
_SLOT_SECONDS = 600.0
QUANTISED = "-fp8"
QUANTISED_ARGS = ("--quantization", "fp8")


@dataclass(frozen=True)
class Case:
    """What is reviewed: a model as its spec has it, and its requests."""

    model: ModelSpec
    traffic: Traffic
    profiles: Path | None = None
    prices: Path | None = None
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """What a replay came to. Where it was not possible, `why_not` says why, and the rest is empty."""

    requests: int = 0
    attainment: float = 0.0
    reached: bool = False
    cost_usd_nanos: int = 0
    ttft_p99_ms: float | None = None
    itl_p99_ms: float | None = None
    most_replicas: int = 0
    busiest_share: float = 0.0  # of the capacity of what was there, over the busiest ten minutes
    preemptions: int = 0
    hourly_usd: tuple[float, ...] = ()
    why_not: str = ""


def served_as(model: ModelSpec) -> str:
    """The name that decides its speed: a model that the engine quantises while loading has a profile of its own."""
    plain = plain_model((model.source or model.name).removesuffix(".gguf"))
    is_quantised = any(model.engine_args[i : i + 2] == QUANTISED_ARGS for i in range(len(model.engine_args)))
    return plain + QUANTISED if is_quantised and not plain.endswith(QUANTISED) else plain


def scenario(case: Case, model: ModelSpec) -> Scenario:
    """What is replayed for a variant of the case's model, spot without its weather.

    UserError where it has no profile or price.
    """
    wishes = Wishes(model=served_as(model), profiles=case.profiles, prices=case.prices, seed=case.seed)
    return scenario_of(wishes, model, case.traffic, with_market=False)


class Replays:
    """Outcomes of changes, each replayed once however often it is asked for."""

    def __init__(self, case: Case, jobs: int, expected: int, progress: Progress) -> None:
        """`expected` replays, about, are all there will be: the measure of progress."""
        self.case = case
        self._jobs = jobs
        self._expected = expected
        self._progress = progress
        self._known: dict[str, Outcome] = {}
        self._markets: dict[tuple[Pool, ...], SpotMarket | None] = {}

    def outcomes(self, asked: Sequence[Changes]) -> list[Outcome]:
        """One for each, in order."""
        models = [changed(self.case.model, changes) for changes in asked]
        names = [model.model_dump_json() for model in models]
        new = {name: model for name, model in zip(names, models, strict=True) if name not in self._known}
        done, count = len(self._known), len(new)
        values = run_all(
            [self._task(model) for model in new.values()],
            self._jobs,
            lambda share: self._progress(min(0.99, (done + share * count) / self._expected)),
        )
        self._known.update(zip(new, values, strict=True))
        return [self._known[name] for name in names]

    def outcome(self, changes: Changes = ()) -> Outcome:
        """Of one set of changes; without any, of the model as it is."""
        return self.outcomes([changes])[0]

    def _task(self, model: ModelSpec) -> Callable[[Progress], Outcome]:
        try:
            staged = scenario(self.case, model)
        except UserError as error:
            return partial(_impossible, error.message)
        if staged.pools not in self._markets:  # the same weather for all that buy the same
            market = market_of(staged.pools, None, staged.traffic.seconds, self.case.seed)
            self._markets[staged.pools] = market
        return partial(_outcome, replace(staged, spot=self._markets[staged.pools]))


def _impossible(why: str, progress: Progress) -> Outcome:
    return Outcome(why_not=why)


def _outcome(staged: Scenario, progress: Progress) -> Outcome:
    result = _replayed(staged, progress)
    timeline, seconds = result.timeline, staged.traffic.seconds
    return Outcome(
        result.requests, result.attainment, result.attainment >= staged.objective.attainment, nanos(result.cost_usd),
        result.ttft_ms.get("p99"), result.itl_ms.get("p99"), int(timeline.present.max(initial=0)),
        _busiest_share(staged, result), result.preemptions, hourly_usd(timeline, seconds),
    )  # fmt: skip


def _replayed(staged: Scenario, progress: Progress) -> Result:
    target = staged.objective.attainment
    result = replay(staged, swell_scaler(staged), name="swell", progress=progress)
    is_fixed = len(staged.pools) == 1 and staged.min_replicas >= staged.max_replicas
    missed, may_miss = 1 - result.attainment, 1 - target
    if missed <= may_miss or missed > _NARROWLY * may_miss or is_fixed:
        return result
    found = bisect_to(
        staged, Contender("swell", swell_scaler, *_HEADROOM), target, replays=_SEARCH_REPLAYS, progress=progress
    )
    return found.result if found.reached else result


def _busiest_share(staged: Scenario, result: Result) -> float:
    """By the slowest of its machines, so that a fleet that counts as idle is."""
    timeline = result.timeline
    slots = max(1, int(staged.traffic.seconds // _SLOT_SECONDS))
    edges = np.linspace(0.0, max(slots * _SLOT_SECONDS, staged.traffic.seconds), slots + 1)
    filled = max(
        (replicas_filled(staged.traffic, profile, staged.objective, edges)
         for profile in {pool.profile for pool in staged.pools}),
        key=lambda each: float(each.max()),
    )  # fmt: skip
    slot = np.clip(np.searchsorted(edges, timeline.seconds, side="left") - 1, 0, slots - 1)
    turns = np.maximum(np.bincount(slot, minlength=slots), 1)
    ready = np.bincount(slot, weights=timeline.ready, minlength=slots) / turns
    return float(np.max(np.divide(filled, ready, out=np.zeros(slots), where=ready > 0), initial=0.0))
