"""What a comparison says: as numbers for machines, rows for tables, and sentences for whoever pays the bill."""

from math import floor, log10
from typing import Any

from swell.simulator.ceilings import most_spent
from swell.simulator.compare import Comparison, Found, Score
from swell.simulator.result import BatchOutcome, Result, Scenario
from swell.simulator.treasury import SimBudget
from swell.units import NANOS_PER_USD

HOURS_PER_MONTH = 730.0
LEAST_JUDGED_SECONDS = 600.0  # of a trace: in less, a policy has hardly decided anything
_FEWEST_PER_MILLION = 1000  # requests; what a million would cost cannot be told from a handful
_SAME = 0.0005  # of the attainment
_REASONS_SAID = 4
_POOLS_SAID = 5

_FIRST = ("policy", "attained", "cost")
_OTHERS = (
    "over bound", "over oracle", "over rate-clairvoyant", "TTFT p50 / p95 / p99", "ITL p50 / p95 / p99", "GPU-hours",
    "starts", "preempted", "spend by market",
)  # fmt: skip


def columns(comparison: Comparison) -> tuple[str, ...]:
    """Heads of `rows`: under a budget also what was spent of it, by which maximum, and what there would be without."""
    budget = comparison.scenario.budget
    of_budget = (
        (f"most in a{'n' if budget.period == 'hour' else ''} {budget.period}", "replicas", "without budget")
        if budget
        else ()
    )
    return (*_FIRST, *of_budget, *_OTHERS)


def as_json(comparison: Comparison, score: Score) -> dict[str, Any]:
    """One policy's scores. Costs in USD, times in the unit that the name says; what does not exist is null."""
    result, scenario = score.found.result, comparison.scenario
    objective = scenario.objective
    return {
        "policy": score.name,
        "trace": scenario.traffic.name,
        "requests": result.requests,
        "attained": result.attained,
        "attainment": result.attainment,
        "attainment_asked": comparison.attainment,
        "reached": score.found.reached,
        "cost_usd": result.cost_usd,
        "cost_over_bound": score.cost_over_bound,
        "cost_over_oracle": score.cost_over_oracle,
        "cost_over_rate_clairvoyant": score.cost_over_rate_clairvoyant,
        "bound_usd": comparison.bound_usd,
        "oracle_usd": comparison.oracle.result.cost_usd if comparison.oracle else None,
        "rate_clairvoyant_usd": comparison.rate_clairvoyant.result.cost_usd if comparison.rate_clairvoyant else None,
        "knob": result.knob,
        "ttft_ms": result.ttft_ms,
        "itl_ms": result.itl_ms,
        "objective": {
            "ttft_ms": objective.ttft_ms,
            "ttft_ms_per_1k_prompt_tokens": objective.ttft_ms_per_1k_prompt_tokens,
            "beyond_prefill": objective.beyond_prefill,
            "itl_ms": objective.itl_ms,
        },
        "pools": [pool.name for pool in scenario.pools],
        "replica_hours": result.replica_hours,
        "accelerator_hours": result.accelerator_hours,
        "starts": result.starts,
        "preemptions": result.preemptions,
        "usd_by_market": result.usd_by_market,
        "usd_by_pool": result.usd_by_pool,
        "reasons": result.reasons,
        "budget": _budget_numbers(comparison, score.found),
        "batch": _batch_numbers(comparison, result),
        "trace_seconds": scenario.traffic.seconds,
        "seed": scenario.seed,
        "wall_seconds": result.wall_seconds,
    }


def _budget_numbers(comparison: Comparison, found: Found) -> dict[str, Any] | None:
    """The budget, what was spent of it in each period, by which maximum, and what there would be without it."""
    budget, without = comparison.scenario.budget, found.without_budget
    if budget is None:
        return None
    return {
        "usd_nanos": budget.usd_nanos,
        "period": budget.period,
        "spent_usd_nanos": list(found.result.spent_usd_nanos),
        "max_replicas": found.max_replicas,
        "most_spent_usd_nanos_without": found.spent_usd_nanos_without,
        "cost_usd_without": without.cost_usd if without else None,
        "attainment_without": without.attainment if without else None,
    }


def _batch_numbers(comparison: Comparison, result: Result) -> dict[str, Any] | None:
    """Requests of priority batch, and what there would be if they were promised a time."""
    batch, without = result.batch, comparison.without_batch
    if batch is None:
        return None
    return {
        "requests": batch.requests,
        "answered": batch.answered,
        "first_token_seconds": {"p50": batch.first_token_p50_seconds, "p95": batch.first_token_p95_seconds},
        "cost_usd_promised": without.cost_usd if without else None,
        "attainment_promised": without.attainment if without else None,
    }


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row per policy, the cheapest that reaches the attainment first, those that do not reach it last.

    References know nothing of a budget: they attain more than the bound is of, which is then no measure of them.
    """
    bound = comparison.bound_usd if comparison.scenario.budget is None else None
    return [_row(comparison, score) for score in ranked(comparison)] + [
        _row(comparison, Score(found, _over(found, bound), None, None))
        for found in (comparison.rate_clairvoyant, comparison.oracle)
        if found is not None
    ]


def ranked(comparison: Comparison) -> list[Score]:
    """Scores by cost; policies that do not reach the attainment come last, by what they attain."""

    def order(score: Score) -> tuple[bool, float]:
        result = score.found.result
        return (not score.found.reached, result.cost_usd if score.found.reached else -result.attainment)

    return sorted(comparison.scores, key=order)


def telling(comparison: Comparison, score: Score) -> Score:
    """The score with only those ratios that say how good a policy is.

    None do where nothing was attained or the trace is of minutes. One below 1 does not where the reference attains
    more: what is cheaper is then another thing.
    """
    result = score.found.result
    if not result.attained or comparison.scenario.traffic.seconds < LEAST_JUDGED_SECONDS:
        return Score(score.found, None, None, None)

    def kept(ratio: float | None, reference: Found | None) -> float | None:
        attained = comparison.attainment if reference is None else reference.result.attainment
        return None if ratio is not None and ratio < 1 and attained > result.attainment + _SAME else ratio

    return Score(
        score.found,
        kept(score.cost_over_bound, None),
        kept(score.cost_over_oracle, comparison.oracle),
        kept(score.cost_over_rate_clairvoyant, comparison.rate_clairvoyant),
    )


def sentences(comparison: Comparison, score: Score) -> list[str]:
    """What it would cost, which objectives it meets, how far the best anybody could do is, and what set the number."""
    said = [_cost(comparison.scenario, score.found)]
    if score.found.result.promised:
        said += [_objectives(comparison, score.found), _distance(comparison, score)]
    if comparison.scenario.budget is not None:
        said.insert(1, _budget(comparison.scenario.budget, score.found))
    if score.found.result.batch is not None:
        said.insert(1, _batch(comparison, score.found.result, score.found.result.batch))
    if len(comparison.scenario.pools) > 1:
        said.append(_used(score.found))
    if score.found.result.reasons:
        said.append(_reasons(score.found))
    return said


def subject(comparison: Comparison, name: str | None = None) -> Score:
    """The policy that sentences and the report are about: the one of that name, else the first that was given."""
    return next((score for score in comparison.scores if score.name == name), comparison.scores[0])


def ranking(comparison: Comparison, score: Score) -> str:
    """How much more or less the others that reach the attainment cost, in a sentence; empty where there are none.

    Under a budget, what each of the others attains within it.
    """
    if comparison.scenario.budget is not None:
        return _within_budget(comparison, score)
    others = [each for each in ranked(comparison) if each.found.reached and each.name != score.name]
    if not score.found.reached or not others:
        return ""
    said = [f"{each.name} {_against(each, score)}" for each in others]
    return f"For the same attainment, {', '.join(said)}."


def _within_budget(comparison: Comparison, score: Score) -> str:
    others = [each for each in ranked(comparison) if each.name != score.name]
    if not others:
        return ""
    said = [f"{each.name} {share(each.found.result.attainment)}{_maximum(each.found)}" for each in others]
    return (
        f"Within the same budget attain: {', '.join(said)}; each with the largest maximum of replicas that its spend "
        "allows, which nobody knows ahead."
    )


def _maximum(found: Found) -> str:
    return "" if found.max_replicas is None else f" (at most {_counted(found.max_replicas, 'replica')})"


def _against(other: Score, score: Score) -> str:
    factor = other.found.result.cost_usd / score.found.result.cost_usd
    return f"costs {abs(factor - 1):.0%} {'more' if factor >= 1 else 'less'}"


def objective_text(scenario: Scenario) -> str:
    """The objective, as a person would say it."""
    objective = scenario.objective
    allowance = objective.ttft_ms_per_1k_prompt_tokens
    text = f"the first token within {duration(objective.ttft_ms)}"
    text += " beyond the time its own prompt takes" if objective.beyond_prefill else ""
    text += f" (and {duration(allowance)} more per 1,000 prompt tokens)" if allowance else ""
    return f"{text}, then a token every {duration(objective.itl_ms)} or faster"


def hardware_text(scenario: Scenario) -> str:
    """The machines, and what they cost."""
    return ", ".join(
        f"{pool.profile.name} ({pool.name}, ${pool.usd_per_hour:,.2f}/h)" for pool in scenario.pools[:3]
    ) + (f" and {len(scenario.pools) - 3} more" if len(scenario.pools) > 3 else "")


def usd(amount: float) -> str:
    """As on an invoice; cents only where they are seen, and parts of them where there is nothing else."""
    if 0 < amount < 0.01:
        return f"${amount:.{1 - floor(log10(amount))}f}" if amount >= 1e-6 else "less than $0.000001"
    return f"${amount:,.0f}" if amount >= 1000 else f"${amount:,.2f}"


def duration(milliseconds: float) -> str:
    """In the unit that reads best."""
    if milliseconds < 1000:
        return f"{milliseconds:.3g} ms"
    seconds = milliseconds / 1000
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def span(seconds: float) -> str:
    """The length of a trace."""
    if seconds >= 2 * 86400:
        return f"{seconds / 86400:.1f} days"
    if seconds >= 120:
        return f"{seconds / 3600:.1f} hours" if seconds >= 2 * 3600 else f"{seconds / 60:.0f} minutes"
    return "a moment" if seconds < 0.5 else _counted(round(seconds), "second")


def share(part: float) -> str:
    """A percentage with as many digits as an objective of several nines needs."""
    return f"{part:.2%}" if part < 0.9995 or part == 1 else f"{part:.3%}"


def ratio(value: float | None) -> str:
    """A multiple; nothing where there is none."""
    return "" if value is None else f"{value:.3f}" if value < 1000 else f"{value:,.0f}"


def spread(percentiles: dict[str, float]) -> str:
    """p50 / p95 / p99."""
    return " / ".join(duration(value) for value in percentiles.values())


def reason_shares(found: Found) -> list[tuple[str, float]]:
    """Which rule set the number in what share of all decisions, the most frequent first."""
    total = sum(found.result.reasons.values()) or 1
    counted = sorted(found.result.reasons.items(), key=lambda each: (-each[1], each[0]))
    return [(name, count / total) for name, count in counted]


def _row(comparison: Comparison, score: Score) -> tuple[str, ...]:
    score, result = telling(comparison, score), score.found.result
    markets = ", ".join(f"{name.replace('_', '-')} {usd(amount)}" for name, amount in result.usd_by_market.items())
    return (
        score.name,
        share(result.attainment) + ("" if score.found.reached else " (too little)"),
        usd(result.cost_usd),
        *_of_budget(comparison, score.found),
        ratio(score.cost_over_bound),
        ratio(score.cost_over_oracle),
        ratio(score.cost_over_rate_clairvoyant),
        spread(result.ttft_ms),
        spread(result.itl_ms),
        f"{result.accelerator_hours:,.1f}",
        f"{result.starts:,}",
        f"{result.preemptions:,}",
        markets,
    )


def _of_budget(comparison: Comparison, found: Found) -> tuple[str, ...]:
    """Cells under a budget: what was spent of it at most, by which maximum, and what there would be without it."""
    budget, without = comparison.scenario.budget, found.without_budget
    if budget is None:
        return ()
    if without is None:  # a reference
        return ("", "", "")
    spent, free = usd(most_spent(found.result) / NANOS_PER_USD), f"{share(without.attainment)}, {usd(without.cost_usd)}"
    most = found.spent_usd_nanos_without
    if most is not None and most > budget.usd_nanos and budget.usd_nanos:
        free += f", {most / budget.usd_nanos - 1:.0%} over"
    kept = "" if found.spent_usd_nanos_without is None else "any number"
    return spent, kept if found.max_replicas is None else f"at most {found.max_replicas:,}", free


def _over(found: Found, amount: float | None) -> float | None:
    return found.result.cost_usd / amount if amount else None


def _cost(scenario: Scenario, found: Found) -> str:
    result = found.result
    hours = max(scenario.traffic.seconds / 3600, 1e-9)
    seconds, requests = scenario.traffic.seconds, _counted(result.requests, "request")
    when = f"these {span(seconds)} and {requests}" if seconds >= 120 else f"{requests} in {span(seconds)}"
    said = f"{found.name} would cost {usd(result.cost_usd)} for {when}"
    if result.requests >= _FEWEST_PER_MILLION:
        said += f", {usd(result.cost_usd / result.requests * 1e6)} per million requests"
    monthly = result.cost_usd / hours * HOURS_PER_MONTH
    return f"{said}, or about {usd(monthly)} a month at that pace." if hours >= 24 else f"{said}."


def _budget(budget: SimBudget, found: Found) -> str:
    """What was spent of the budget, and what was given up for it."""
    result, most, without = found.result, most_spent(found.result), found.without_budget
    spent = f"at most {usd(most / NANOS_PER_USD)} of it in any {budget.period}"
    said = f"Of {usd(budget.usd_nanos / NANOS_PER_USD)} per {budget.period} it spends {spent}{_maximum(found)}."
    if without is None:
        return said
    lost = max(0.0, without.attainment - result.attainment)
    gives = f"gives up {share(lost)} of the requests for it" if lost else "gives nothing up for it"
    free = f"it would cost {usd(without.cost_usd)} and attain {share(without.attainment)}"
    return f"{said} Without the budget {free}: it {gives}."


def _batch(comparison: Comparison, result: Result, batch: BatchOutcome) -> str:
    """What became of batch, and what it costs less for being that."""
    left = batch.requests - batch.answered
    answered = "all are answered" if not left else f"{left:,} are not answered"
    said = (
        f"{batch.requests:,} of them are of priority batch and promised no time: {answered}, "
        f"half have their first token within {span(batch.first_token_p50_seconds)}, "
        f"95 % within {span(batch.first_token_p95_seconds)}."
    )
    without = comparison.without_batch
    if without is None:
        return said
    change = 1 - result.cost_usd / without.cost_usd if without.cost_usd else 0.0
    than = f"{abs(change):.0%} {'less' if change >= 0 else 'more'}"
    promised = f"If they were promised what the others are, it would cost {usd(without.cost_usd)}"
    return f"{said} {promised} and attain {share(without.attainment)}: batch makes it {than}."


def _used(found: Found) -> str:
    """What was bought, the most first."""
    spent = sorted(found.result.usd_by_pool.items(), key=lambda each: (-each[1], each[0]))
    listed = ", ".join(f"{name} {usd(amount)}" for name, amount in spent[:_POOLS_SAID])
    left = sum(amount for _, amount in spent[_POOLS_SAID:])
    return f"Of that went to {listed}" + (f", and {usd(left)} to others." if left else ".")


def _objectives(comparison: Comparison, found: Found) -> str:
    attained, asked = found.result.attainment, comparison.attainment
    verdict = "It meets the objective" if found.reached else "It misses the objective"
    who = "the other requests" if found.result.batch else "the requests"
    only = "" if found.reached else "only "
    part = f"{only}{share(attained)}" if found.result.attained else "none"
    return (
        f"{verdict}: {part} of {who}, where {asked:.4g} was asked for, get {objective_text(comparison.scenario)}."
    ).replace(f"{asked:.4g}", f"{asked * 100:.4g} %")


def _distance(comparison: Comparison, score: Score) -> str:
    if not score.found.result.attained:
        return "No request meets the objective, so there is nothing that its cost could be compared with."
    if comparison.scenario.traffic.seconds < LEAST_JUDGED_SECONDS:
        return (
            f"Less than {span(LEAST_JUDGED_SECONDS)} of traffic do not tell policies apart: each begins with the fleet "
            "that those need, and has hardly decided anything. Give a longer trace for a comparison."
        )
    found = telling(comparison, score)
    parts = []
    if found.cost_over_rate_clairvoyant:
        parts.append(f"{_times(found.cost_over_rate_clairvoyant)} what somebody would pay who knew the true rate ahead")
    if found.cost_over_oracle:
        no_optimum = " (which is not the best that there could be)" if found.cost_over_oracle < 1 else ""
        parts.append(f"{_times(found.cost_over_oracle)} a plan made with full hindsight{no_optimum}")
    if found.cost_over_bound and comparison.bound_usd:
        least = usd(comparison.bound_usd)
        parts.append(f"{_times(found.cost_over_bound)} {least}, which nobody can undercut by any means")
    dearer = _dearer(comparison, score, found)
    if not parts and not dearer:
        return "How far the best possible is from that was not computed."
    said = [f"That is {_listed(parts)}."] if parts else []
    if dearer:
        said.append(f"What costs more attains more, and does not compare: {_listed(dearer)}.")
    return " ".join(said)


def _dearer(comparison: Comparison, score: Score, found: Score) -> list[str]:
    """What costs more than the policy and attains more: ratios that `found` leaves out of `score`."""
    said = []
    for name, before, after, reference in (
        ("somebody who knew the true rate ahead", score.cost_over_rate_clairvoyant, found.cost_over_rate_clairvoyant,
         comparison.rate_clairvoyant),
        ("a plan made with full hindsight", score.cost_over_oracle, found.cost_over_oracle, comparison.oracle),
    ):  # fmt: skip
        if before and not after and reference is not None:
            said.append(f"{name} attains {share(reference.result.attainment)} for {usd(reference.result.cost_usd)}")
    if score.cost_over_bound and not found.cost_over_bound and comparison.bound_usd:
        said.append(f"anybody pays at least {usd(comparison.bound_usd)} for the attainment that was asked for")
    return said


def _listed(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])}{' and ' if len(parts) > 1 else ''}{parts[-1]}"


def _times(value: float) -> str:
    return f"{value:.2f} times" if value < 1000 else f"{value:,.0f} times"


def _counted(count: int, name: str) -> str:
    return f"{count:,} {name}" + ("" if count == 1 else "s")


def _reasons(found: Found) -> str:
    shares = [(name, part) for name, part in reason_shares(found) if part >= 0.001]
    said = [f"{name.replace('_', ' ')} {part:.1%}" for name, part in shares[:_REASONS_SAID]]
    rest = sum(part for _, part in shares[_REASONS_SAID:])
    said += [f"others {rest:.1%}"] if rest >= 0.001 else []
    return f"What set the number of replicas, in shares of all decisions: {', '.join(said)}."
