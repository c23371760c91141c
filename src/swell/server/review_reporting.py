"""From reviews to their report: what of them is told, in which order, and in which words."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from swell.server.review_cache import PrefixCache
from swell.server.review_edits import Change
from swell.server.review_replays import Outcome
from swell.server.review_report import (
    CENT,
    MAX_MISSES,
    MAX_MODELS,
    Effect,
    ReportedChange,
    ReportedMiss,
    ReviewReport,
    clipped,
)
from swell.server.review_saving import MONTH_SECONDS
from swell.server.reviewing import Review, Reviewed
from swell.spec.reviews import MAX_TOP

_NO_CACHES: Mapping[str, PrefixCache] = MappingProxyType({})


def report_of(
    reviews: Sequence[Review],
    refused: Sequence[tuple[str, str]],
    *,
    days: float,
    command: str,
    caches: Mapping[str, PrefixCache] = _NO_CACHES,
) -> ReviewReport:
    """The report of reviews of the last `days`, of what was not reviewed, and of prefix caches by model."""
    misses = _misses(caches)
    best = [(review, review.recommended) for review in reviews if review.recommended is not None]
    others = [(review, each) for review in reviews for each in _in_place_of_it(review)]
    changes = [_reported(review, each) for pairs in (best, others) for review, each in sorted(pairs, key=_by_saving)]
    return ReviewReport(
        days=days,
        requests=sum(review.now.requests for review in reviews),
        replayed_seconds=max((review.seconds for review in reviews), default=0.0),
        models=tuple(clipped(review.model.name) for review in reviews[:MAX_MODELS]),
        model_count=len(reviews),
        not_reviewed=tuple((clipped(name), clipped(why)) for name, why in refused[:MAX_MODELS]),
        not_reviewed_count=len(refused),
        recommended_count=len(best),
        cost_usd_nanos_per_month=sum(_per_month(review) for review in reviews),
        saving_usd_nanos_per_month=sum(each.saving.usd_nanos_per_month for _, each in best),
        changes=tuple(changes[:MAX_TOP]),
        command=command,
        misses=tuple(misses[:MAX_MISSES]),
        miss_count=len(misses),
    )


def words_of(changes: Sequence[Change]) -> str:
    """Changes on one line."""
    said: dict[str, list[str]] = {}
    for change in changes:
        value = ", ".join(change.value) if isinstance(change.value, tuple) else f"{change.value}"
        name, *inner = change.path
        said.setdefault(name, []).append(f"{inner[0]} {value}" if inner else value)
    return "; ".join(f"{name} {', '.join(parts)}" for name, parts in said.items())


def _in_place_of_it(review: Review) -> list[Reviewed]:
    """Of each lever that what is recommended does not move alone, the best that pays: it is ranked first."""
    best: dict[str, Reviewed] = {}
    for each in review.changes:
        if each.whole and each.pays and each.saving.usd_nanos_per_month >= CENT:
            best.setdefault(each.lever, each)
    if review.recommended is not None:
        best.pop(review.recommended.lever, None)
    return list(best.values())


def _by_saving(pair: tuple[Review, Reviewed]) -> int:
    return -pair[1].saving.usd_nanos_per_month


def _per_month(review: Review) -> int:
    return round(review.now.cost_usd_nanos * MONTH_SECONDS / max(review.seconds, 1.0))


def _reported(review: Review, each: Reviewed) -> ReportedChange:
    return ReportedChange(
        model=clipped(review.model.name),
        lever=each.lever,
        change=clipped(words_of(each.changes)),
        recommended=each is review.recommended,
        saving_usd_nanos_per_month=each.saving.usd_nanos_per_month,
        confidence=each.saving.confidence,
        attainment_asked=review.model.objectives.attainment,
        before=_effect(each.before),
        after=_effect(each.after),
    )


def _misses(caches: Mapping[str, PrefixCache]) -> list[ReportedMiss]:
    """Tenants that would save more than a cent a month, those that would save most first."""
    found = [
        ReportedMiss(
            model=clipped(model),
            tenant=clipped(each.tenant),
            cached_now=each.spread.share,
            cached_at_most=each.alone.share,
            prefill_seconds=each.prefill_seconds,
            saving_usd_nanos_per_month=each.saving.usd_nanos_per_month,
            confidence=each.saving.confidence,
        )
        for model, cache in caches.items()
        for each in cache.missed
        if each.saving.usd_nanos_per_month >= CENT
    ]
    return sorted(found, key=lambda miss: -miss.saving_usd_nanos_per_month)


def _effect(outcome: Outcome) -> Effect:
    return Effect(outcome.attainment, outcome.ttft_p99_ms, outcome.itl_p99_ms)
