"""The review of one model: what it cost and attained as it is, what else it could be, and the best of that together.

Levers are first moved one at a time. The best combination is then found by moving one after another, each time keeping
what is cheapest of what meets the objective, twice over where spot changed which machines are cheap. On more than two
days this search runs on the day with the highest peak over its mean; what it finds, and the best of each lever, are
replayed on the whole. An alternative that misses the objective is never recommended, nor is one of which the saving
may be none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from swell.server.review_edits import Change, changed
from swell.server.review_levers import (
    Alternative,
    Machines,
    accelerators,
    is_sold_as_spot,
    machines_for,
    of_idle,
    of_objectives,
    of_precision,
    of_replicas,
    of_routing,
    of_spot,
    with_room,
)
from swell.server.review_replays import Case, Changes, Outcome, Progress, Replays, scenario
from swell.server.review_saving import Saving, saving
from swell.simulator.compare import representative_day
from swell.simulator.feasibility import why_excluded
from swell.spec import ModelSpec
from swell.state.traffic import Traffic

EXPECTED_REPLAYS = 26  # of a review, about
COMBINATION = "combination"
_WORTH = 0.005  # of the cost: what a further change must save to be part of a combination
_ROUNDS = 2
_MIX_SIZES = (2, 3)


@dataclass(frozen=True)
class Reviewed:
    """A change, and the replays of the same traffic without and with it."""

    lever: str
    changes: Changes
    before: Outcome
    after: Outcome
    saving: Saving
    whole: bool  # replayed on all the traffic, not on its busiest day alone

    @property
    def pays(self) -> bool:
        """Whether to recommend it: it meets the objective, and saves for sure or is what it takes to meet it."""
        return self.after.reached and (self.saving.is_sure or not self.before.reached)


@dataclass(frozen=True)
class Review:
    """One model's. `changes` are ranked by what they save; `what_ifs` come on top of what is recommended."""

    model: ModelSpec
    seconds: float  # replayed
    now: Outcome
    changes: tuple[Reviewed, ...]
    recommended: Reviewed | None
    what_ifs: tuple[Reviewed, ...]
    machines: Machines
    shared_prompt_share: float | None  # of prompt tokens, in blocks that another request begins with as well
    excluded: str  # why its present hardware cannot serve this traffic; empty where it can


def review(
    case: Case, jobs: int = 1, progress: Progress = lambda share: None, *, searched_on: Traffic | None = None
) -> Review:
    """Replay and rank. UserError where the model has no profile or price.

    `searched_on` is the part of the traffic to search on, if not the busiest day or, up to two days, all of it.
    """
    machines = machines_for(case, jobs)
    day = representative_day(case.traffic) if searched_on is None else searched_on
    first_half = progress if day is None else lambda share: progress(share / 2)
    part = Replays(case if day is None else replace(case, traffic=day), jobs, EXPECTED_REPLAYS, first_half)
    alternatives = list(_alternatives(part, machines))
    best = _combination(part, machines)
    whole, chosen = part, alternatives
    if day is not None:
        whole = Replays(case, jobs, EXPECTED_REPLAYS, lambda share: progress(0.5 + share / 2))
        chosen = _best_of_each(part, alternatives)
    reviewed = _reviewed(whole, (), [*chosen, *_as_one(case.model, best, chosen)], is_whole=True)
    others = [each for each in alternatives if each not in chosen]
    reviewed += _reviewed(part, (), others, is_whole=False)
    recommended = min(
        (each for each in reviewed if each.whole and each.pays),
        key=lambda each: each.after.cost_usd_nanos,
        default=None,
    )
    ground = () if recommended is None else recommended.changes
    model = changed(case.model, ground)
    ideas = [
        Alternative(each.lever, (*ground, *each.changes))
        for each in (*of_precision(case, model), *of_objectives(model))
    ]
    return Review(
        case.model, case.traffic.seconds, whole.outcome(), tuple(_ranked(reviewed)), recommended,
        tuple(_reviewed(whole, ground, ideas, is_whole=True)), machines, shared_prompt_share(case),
        why_excluded(scenario(case, case.model)),
    )  # fmt: skip


# One lever at a time


def _alternatives(replays: Replays, machines: Machines) -> Iterator[Alternative]:
    """Every lever moved from where it is; mixes are of the cheapest machines that do alone."""
    case, model = replays.case, replays.case.model
    here = scenario(case, model).pools
    singles = [
        accelerators(name)
        for name in machines.usable
        if scenario(case, changed(model, accelerators(name))).pools != here
    ]
    first = replays.outcomes([(), *singles])
    yield from (Alternative("accelerators", changes) for changes in singles)
    ranked = _cheapest_names(singles, first[1:])
    for size in _MIX_SIZES:
        if len(ranked) >= size:
            yield Alternative("accelerators", accelerators(*ranked[:size]))
    yield from chain(
        of_replicas(model, first[0]), of_spot(case, model), of_idle(model), of_routing(case, model)
    )  # fmt: skip


def _cheapest_names(singles: Sequence[Changes], outcomes: Sequence[Outcome]) -> list[str]:
    """Accelerators by what they cost alone, those that miss last by how far they miss."""
    pairs = sorted(zip(singles, outcomes, strict=True), key=lambda pair: _order(pair[1]))
    return [str(value) for changes, _ in pairs for value in _names(changes)]


def _names(changes: Changes) -> tuple[str, ...]:
    return next((c.value for c in changes if c.path == ("accelerators",) and isinstance(c.value, tuple)), ())


def _order(outcome: Outcome) -> tuple[bool, bool, float]:
    return (
        bool(outcome.why_not),
        not outcome.reached,
        outcome.cost_usd_nanos if outcome.reached else -outcome.attainment,
    )


# Together


def _combination(replays: Replays, machines: Machines) -> Changes:
    """The changes that together are cheapest; empty where none is worth it."""
    case, state = replays.case, Changes()
    state = _improved(replays, state, [each.changes for each in of_replicas(case.model, replays.outcome())])
    for _ in range(_ROUNDS):
        before = state
        state = _improved(replays, state, _spots(case, state))
        state = _with_machines(replays, state, machines)
        state = _improved(replays, state, _spots(case, state))
        if state == before or _spot_of(case, state) == _spot_of(case, before):
            break
    model = changed(case.model, state)
    state = _improved(replays, state, [each.changes for each in of_idle(model)])
    return _improved(replays, state, [each.changes for each in of_routing(case, model)])


def _with_machines(replays: Replays, state: Changes, machines: Machines) -> Changes:
    case = replays.case
    model = changed(case.model, state)
    singles = [with_room(case, model, [name]) for name in machines.usable]
    outcomes = replays.outcomes([_merged(state, changes) for changes in singles])
    ranked = _cheapest_names(singles, outcomes)
    mixes = [with_room(case, model, ranked[:size]) for size in _MIX_SIZES if len(ranked) >= size]
    return _improved(replays, state, [*singles, *mixes])


def _as_one(model: ModelSpec, best: Changes, single: Sequence[Alternative]) -> list[Alternative]:
    """The combination, unless it is what one lever alone comes to."""
    known = [model, *(changed(model, each.changes) for each in single)]
    return [] if changed(model, best) in known else [Alternative(COMBINATION, best)]


def _spots(case: Case, state: Changes) -> list[Changes]:
    model = changed(case.model, state)
    return [each.changes for each in of_spot(case, model)] if is_sold_as_spot(case, model) else []


def _spot_of(case: Case, state: Changes) -> object:
    return changed(case.model, state).spot


def _improved(replays: Replays, state: Changes, candidates: Sequence[Changes]) -> Changes:
    """The state with the best of the candidates, or as it was where none is worth it."""
    merged = [_merged(state, changes) for changes in candidates]
    here, *there = replays.outcomes([state, *merged])
    best = min(zip(there, merged, strict=True), key=lambda pair: _order(pair[0]), default=(here, state))
    is_better = _order(best[0]) < _order(here)
    if best[0].reached and here.reached:
        is_better = best[0].cost_usd_nanos < here.cost_usd_nanos * (1 - _WORTH)
    return best[1] if is_better else state


def _merged(state: Changes, changes: Changes) -> Changes:
    """Later changes take the place of earlier ones of the same field."""
    fields: dict[tuple[str, ...], Change] = {change.path: change for change in (*state, *changes)}
    return tuple(fields.values())


# What came of it


def _best_of_each(replays: Replays, alternatives: Sequence[Alternative]) -> list[Alternative]:
    outcomes = replays.outcomes([each.changes for each in alternatives])
    best: dict[str, tuple[Outcome, Alternative]] = {}
    for outcome, each in zip(outcomes, alternatives, strict=True):
        if each.lever not in best or _order(outcome) < _order(best[each.lever][0]):
            best[each.lever] = outcome, each
    return [each for _, each in best.values()]


def _reviewed(
    replays: Replays, ground: Changes, alternatives: Sequence[Alternative], *, is_whole: bool
) -> list[Reviewed]:
    if not alternatives:
        return []
    before, *outcomes = replays.outcomes([ground, *(each.changes for each in alternatives)])
    seconds = replays.case.traffic.seconds
    return [
        Reviewed(
            each.lever, each.changes, before, after,
            saving(before.cost_usd_nanos, after.cost_usd_nanos, before.hourly_usd, after.hourly_usd, seconds),
            is_whole,
        )
        for each, after in zip(alternatives, outcomes, strict=True)
        if not after.why_not
    ]  # fmt: skip


def _ranked(reviewed: Sequence[Reviewed]) -> list[Reviewed]:
    def order(each: Reviewed) -> tuple[bool, float]:
        return (
            not each.after.reached,
            -each.saving.usd_nanos_per_month if each.after.reached else -each.after.attainment,
        )

    return sorted(reviewed, key=order)


def shared_prompt_share(case: Case) -> float | None:
    """Of all prompt tokens, those in leading blocks that another request has as well; None where nobody knows."""
    traffic = case.traffic
    if not len(traffic.prefix_blocks):
        return None
    seen: set[int] = set()
    shared = 0
    for blocks in traffic.prefix_blocks:
        shared += sum(block in seen for block in blocks)
        seen.update(blocks)
    return min(1.0, shared * traffic.block_tokens / max(1, int(traffic.prompt_tokens.sum(dtype="int64"))))
