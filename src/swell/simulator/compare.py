"""Policies side by side: each at the cheapest setting of its knob that reaches the same attainment.

A cost says little by itself, so it is set against three others that know what no policy can: the bound B1, which nobody
can undercut; the oracle, a plan made in full knowledge and replayed; and a rate-clairvoyant policy, which knows the
true rate for the start-up time ahead and nothing else. Refusals and errors are misses.

On traces longer than two days the knob is searched on the day with the highest peak over mean first, then verified and
corrected on the whole: few of the replays are long ones.

Under a budget each policy keeps the setting that it has without one, and is replayed inside the budget: one that knows
budgets by its own rules, any other with the largest maximum of replicas that its spend allows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from swell.ports.scaler import Scaler
from swell.simulator.ceilings import MOST_REPLAYS, largest_ceiling, most_spent
from swell.simulator.knob_search import Knob, Search
from swell.simulator.parallel import Progress, run_all
from swell.simulator.result import Result, Scenario
from swell.simulator.run import replay as replay_here
from swell.simulator.treasury import SimBudget
from swell.state.traffic import Traffic

DAY_SECONDS = 86_400.0
_SLOT_SECONDS = 600.0
_LONG_SECONDS = 2 * DAY_SECONDS
_DAY_PRECISION, _WHOLE_PRECISION = 1.05, 1.005  # of the knob; the day only says where to begin on the whole
_SEARCH_SHARE = 0.7  # of a comparison's work, where budgets follow
_FIRST_STEP = 1.08  # by what factor the knob is moved first when the day's setting is corrected on the whole


class Replay(Protocol):
    """`swell.simulator.run.replay`, or a stand-in."""

    def __call__(
        self, scenario: Scenario, scaler: Scaler, *, name: str = "", progress: Progress | None = None
    ) -> Result:
        """One replay."""


@dataclass(frozen=True)
class Contender:
    """A policy with one knob, from `low` to `high`. `make` gets None for the knob's own default."""

    name: str
    make: Callable[[Scenario, float | None], Scaler]
    low: float
    high: float
    larger_means_more: bool = True
    keeps_budgets: bool = False  # by its own rules


@dataclass(frozen=True, slots=True)
class Probe:
    """One replay of a search; `whole` unless it was of the representative day alone."""

    knob: float | None
    attainment: float
    cost_usd: float
    whole: bool


@dataclass(frozen=True)
class Found:
    """What the search for a contender's cheapest setting came to.

    `result` is the cheapest replay of the whole trace that reaches the attainment, or, where none does, the one that
    attains most.
    """

    name: str
    result: Result
    reached: bool
    probes: tuple[Probe, ...]
    without_budget: Result | None = None  # where there is one; `result` is inside it
    max_replicas: int | None = None  # that kept it inside; None where it needed no such maximum
    spent_usd_nanos_without: int | None = None  # in the dearest period, where that was counted


@dataclass(frozen=True)
class References:
    """What costs are set against; each may be absent. `bound` gives USD for a scenario and an attainment."""

    bound: Callable[[Scenario, float], float] | None = None
    oracle: Contender | None = None
    rate_clairvoyant: Contender | None = None


@dataclass(frozen=True)
class Score:
    """A policy's cost as a multiple of the references'; None where there is no reference."""

    found: Found
    cost_over_bound: float | None
    cost_over_oracle: float | None
    cost_over_rate_clairvoyant: float | None

    @property
    def name(self) -> str:
        """The policy's."""
        return self.found.name


@dataclass(frozen=True)
class Comparison:
    """Scores of policies on one scenario, in the order in which the policies were given."""

    scenario: Scenario
    attainment: float  # to which knobs were searched
    scores: tuple[Score, ...]
    bound_usd: float | None
    oracle: Found | None
    rate_clairvoyant: Found | None
    searched: bool = True  # False: one policy at a given setting
    without_batch: Result | None = None  # of the one policy, were batch requests promised a time as all others are

    @property
    def cheapest(self) -> Score | None:
        """Of the policies that reach the attainment."""
        reaching = [score for score in self.scores if score.found.reached]
        return min(reaching, key=lambda score: score.found.result.cost_usd, default=None)


def representative_day(traffic: Traffic) -> Traffic | None:
    """The day with the highest ten-minute peak over its mean, the first of equals; None for traces up to two days.

    Days count from the start of the trace; what is left after the last whole one is no day.
    """
    if traffic.seconds <= _LONG_SECONDS:
        return None
    slots = int(DAY_SECONDS / _SLOT_SECONDS)
    counts, _ = np.histogram(
        traffic.arrival_seconds,
        bins=int(traffic.seconds // DAY_SECONDS) * slots,
        range=(0.0, traffic.seconds // DAY_SECONDS * DAY_SECONDS),
    )
    days = counts.reshape(-1, slots)
    peak_over_mean = days.max(axis=1) / np.maximum(days.mean(axis=1), 1e-9)
    return part(traffic, float(np.argmax(peak_over_mean)) * DAY_SECONDS, DAY_SECONDS)


def part(traffic: Traffic, begin: float, seconds: float) -> Traffic:
    """The requests that arrive in `seconds` from `begin` on, with times counted from there."""
    first, last = (int(i) for i in np.searchsorted(traffic.arrival_seconds, [begin, begin + seconds]))
    return replace(
        traffic,
        arrival_seconds=traffic.arrival_seconds[first:last] - begin,
        prompt_tokens=traffic.prompt_tokens[first:last],
        output_tokens=traffic.output_tokens[first:last],
        prefix_blocks=traffic.prefix_blocks[first:last] if traffic.prefix_blocks else (),
        start_unix=None if traffic.start_unix is None else traffic.start_unix + begin,
        batch=None if traffic.batch is None else traffic.batch[first:last],
    )


def bisect_to(
    scenario: Scenario,
    contender: Contender,
    attainment: float,
    *,
    day: Scenario | None = None,
    replay: Replay = replay_here,
    replays: int = 9,
    whole_replays: int = 5,
    progress: Progress | None = None,
) -> Found:
    """The contender at its cheapest setting that reaches `attainment`.

    With `day`, `replays` bound the search there and `whole_replays` the correction on the whole; without, `replays`
    bound the search on the whole. Where only the very end of the knob's range reaches it, half as many again are made.
    """
    steps = _Steps(len(day.traffic) if day else 0, len(scenario.traffic), replays, whole_replays, progress)
    knob = Knob(contender.low, contender.high, contender.larger_means_more)

    def run(on: Scenario, setting: float) -> Result:
        made = contender.make(on, setting)
        result = replay(on, made, name=contender.name, progress=steps.within(len(on.traffic)))
        return replace(result, policy=contender.name, knob=setting)

    whole = Search(knob, attainment, partial(run, scenario))
    if day is None:
        whole.narrow(replays, _WHOLE_PRECISION)
        return _found(contender.name, whole, None)
    on_day = Search(knob, attainment, partial(run, day))
    on_day.narrow(replays, _DAY_PRECISION)
    steps.begin_whole()
    start, _ = on_day.best
    whole.narrow(whole_replays, _WHOLE_PRECISION, start=start, step=knob.share_of(_FIRST_STEP))
    return _found(contender.name, whole, on_day)


def compare(
    scenario: Scenario,
    contenders: Sequence[Contender],
    *,
    attainment: float = 0.99,
    references: References = References(),
    jobs: int = 1,
    replay: Replay = replay_here,
    progress: Progress | None = None,
) -> Comparison:
    """Every contender and every reference at the cheapest setting that reaches `attainment`.

    `jobs` only says how many searches run at a time: the scores do not depend on it. Under a budget the settings are
    those without it, and the references know nothing of it.
    """
    report, free = progress or _silent, replace(scenario, budget=None)
    if scenario.traffic.batch_count:
        references = References()  # what is promised no time has no deadline to be set against
    first_share = 1.0 if scenario.budget is None else _SEARCH_SHARE
    others = [each for each in (references.oracle, references.rate_clairvoyant) if each]
    search = partial(bisect_to, free, attainment=attainment, day=_day_of(free), replay=replay)
    found, bound_usd = _search_all(
        free, [*contenders, *others], search, references.bound, attainment, jobs,
        lambda done: report(first_share * done),
    )  # fmt: skip
    if scenario.budget is not None:
        tasks = [
            partial(_inside, scenario, scenario.budget, contender, each, attainment, replay)
            for contender, each in zip(contenders, found, strict=False)
        ]
        inside = run_all(tasks, jobs, lambda done: report(first_share + (1 - first_share) * done))
        found = [*inside, *found[len(contenders) :]]
    return _comparison(scenario, attainment, found, references, bound_usd)


def _inside(
    scenario: Scenario,
    budget: SimBudget,
    contender: Contender,
    found: Found,
    attainment: float,
    replay: Replay,
    progress: Progress,
) -> Found:
    """The same setting inside the budget."""
    knob, steps = found.result.knob, 0

    def run(on: Scenario) -> Result:
        nonlocal steps
        before, steps = steps, steps + 1
        made = contender.make(on, knob)
        result = replay(
            on, made, name=contender.name, progress=lambda done: progress(min(0.99, (before + done) / MOST_REPLAYS))
        )
        return replace(result, policy=contender.name, knob=knob)

    if contender.keeps_budgets:
        result = run(scenario)
        return replace(found, result=result, reached=result.attainment >= attainment, without_budget=found.result)
    ceiling = largest_ceiling(scenario, budget, lambda most: run(replace(scenario, max_replicas=most)))
    return replace(
        found,
        result=ceiling.result,
        reached=ceiling.result.attainment >= attainment,
        without_budget=found.result,
        max_replicas=ceiling.max_replicas,
        spent_usd_nanos_without=most_spent(ceiling.free),
    )


def assess(
    scenario: Scenario,
    contender: Contender,
    knob: float | None = None,
    *,
    attainment: float = 0.99,
    references: References = References(),
    jobs: int = 1,
    replay: Replay = replay_here,
    progress: Progress | None = None,
) -> Comparison:
    """One policy at `knob` (None: its own default), set against the references at the attainment that it reaches.

    At most at `attainment`: what is attained beyond it earns nothing. The references are searched on the day where
    there is one, and verified on the whole by few replays. Where there is a budget, the policy is replayed without it
    as well, and the references know nothing of it. Where some requests are of priority batch, it is replayed as if none
    were, and there are no references: what is promised no time has no deadline to be set against.
    """
    report, free = progress or _silent, replace(scenario, budget=None)
    if scenario.traffic.batch_count:
        references = References()
    first_share = 0.3 if references.oracle or references.rate_clairvoyant else 1.0
    has_budget, has_batch = scenario.budget is not None, bool(scenario.traffic.batch_count)
    each_share = first_share / (1 + has_budget + has_batch)
    result = replay(
        free, contender.make(free, knob), name=contender.name, progress=lambda done: report(each_share * done)
    )
    result = replace(result, policy=contender.name, knob=knob)
    found = Found(
        contender.name, result, result.attainment >= attainment,
        (Probe(knob, result.attainment, result.cost_usd, True),),
    )  # fmt: skip
    alone = found
    if scenario.budget is not None:
        found = _inside(
            scenario, scenario.budget, contender, alone, attainment, replay,
            lambda done: report(each_share * (1 + done)),
        )  # fmt: skip
    without_batch = None
    if has_batch:
        promised = replace(scenario, traffic=replace(scenario.traffic, batch=None))
        without_batch = _as_promised(
            promised, contender, alone, attainment, replay, lambda done: report(first_share - each_share * (1 - done))
        )
    equal = min(attainment, found.result.attainment)
    search = partial(bisect_to, free, attainment=equal, day=_day_of(free), replay=replay, replays=6, whole_replays=2)
    searched = [each for each in (references.oracle, references.rate_clairvoyant) if each]
    searched_for, bound_usd = _search_all(
        free, searched, search, references.bound, equal, jobs,
        lambda done: report(first_share + (1 - first_share) * done),
    )  # fmt: skip
    found_all = _comparison(scenario, attainment, [found, *searched_for], references, bound_usd)
    return replace(found_all, searched=False, without_batch=without_batch)


def _as_promised(
    scenario: Scenario, contender: Contender, found: Found, attainment: float, replay: Replay, progress: Progress
) -> Result:
    """The same setting on the same requests, all promised a time; inside the budget, where there is one."""
    if scenario.budget is not None:
        return _inside(scenario, scenario.budget, contender, found, attainment, replay, progress).result
    made = contender.make(scenario, found.result.knob)
    return replay(scenario, made, name=contender.name, progress=progress)


class _Steps:
    """A search's progress, in requests replayed out of those expected."""

    def __init__(self, day: int, whole: int, replays: int, whole_replays: int, progress: Progress | None) -> None:
        self._expected = day * replays + whole * whole_replays if day else whole * replays
        self._day = day * replays
        self._before = 0.0
        self._progress = progress

    def begin_whole(self) -> None:
        """The day's search is over, whether or not it took all its replays."""
        self._before = self._day

    def within(self, requests: int) -> Progress:
        """For one replay of so many requests."""
        before, self._before = self._before, self._before + requests

        def report(done: float) -> None:
            if self._progress is not None:
                self._progress(min(0.99, (before + done * requests) / max(1, self._expected)))

        return report


def _search_all(
    scenario: Scenario,
    contenders: Sequence[Contender],
    search: Callable[..., Found],
    bound: Callable[[Scenario, float], float] | None,
    attainment: float,
    jobs: int,
    progress: Progress | None,
) -> tuple[list[Found], float | None]:
    """All searches, and the bound, at the same time."""

    def searched(contender: Contender, report: Progress) -> Found | float:
        return search(contender, progress=report)

    tasks: list[Callable[[Progress], Found | float]] = [partial(searched, contender) for contender in contenders]
    if bound is not None:
        tasks.insert(0, lambda report: bound(scenario, attainment))
    values = run_all(tasks, jobs, progress)
    found = [value for value in values if isinstance(value, Found)]
    return found, next((value for value in values if not isinstance(value, Found)), None)


def _comparison(
    scenario: Scenario, attainment: float, found: list[Found], references: References, bound_usd: float | None
) -> Comparison:
    found = list(found)
    clairvoyant = found.pop() if references.rate_clairvoyant else None
    oracle = found.pop() if references.oracle else None

    def over(usd: float | None, each: Found) -> float | None:
        # Under a ceiling of spend less may be served than what the reference serves; and nothing is worth no price.
        has_ceiling = scenario.rules.usd_per_hour is not None or scenario.budget is not None
        is_cut = has_ceiling and not each.reached
        return each.result.cost_usd / usd if usd and not is_cut and each.result.attained else None

    def usd(reference: Found | None) -> float | None:
        return reference.result.cost_usd if reference is not None and reference.reached else None

    scores = tuple(
        Score(
            each,
            over(bound_usd, each),
            over(usd(oracle), each),
            over(usd(clairvoyant), each),
        )
        for each in found
    )
    return Comparison(scenario, attainment, scores, bound_usd, oracle, clairvoyant)


def _day_of(scenario: Scenario) -> Scenario | None:
    traffic = representative_day(scenario.traffic)
    return None if traffic is None or not len(traffic) else replace(scenario, traffic=traffic)


def _found(name: str, whole: Search, on_day: Search | None) -> Found:
    _, result = whole.best
    probes = [
        Probe(r.knob, r.attainment, r.cost_usd, is_whole)
        for search, is_whole in ((on_day, False), (whole, True))
        if search is not None
        for _, r in search.tried
    ]
    return Found(name, result, whole.reached, tuple(probes))


def _silent(done: float) -> None:
    """Nobody watches."""
