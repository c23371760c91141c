"""How a review tells of prefix caches: what they had, and which tenants miss hits because their requests are spread."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from swell.server.review_report import money_text
from swell.units import usd

if TYPE_CHECKING:
    from swell.server.review_cache import Hits, MissedHits, PrefixCache
    from swell.spec import ModelSpec

_MOST_NAMED = 5


def prefix_cache(found: "PrefixCache | None") -> dict[str, Any] | None:
    """As JSON values; None where nothing is known. Amounts are nano-dollars, and decimal text of dollars."""
    if found is None or found.share is None:
        return None
    return {
        "cached_share": found.share,
        "compared": found.is_compared,
        "missed_hits": [_missed(each) for each in found.missed],
    }


def _missed(each: "MissedHits") -> dict[str, Any]:
    saving = each.saving
    return {
        "tenant": each.tenant,
        "on_one_replica": _hits(each.alone),
        "over_several": _hits(each.spread),
        "at_most": {
            "prefill_seconds": each.prefill_seconds,
            "saving_usd_nanos": saving.usd_nanos,
            "saving_usd": format(usd(saving.usd_nanos), "f"),
            "saving_usd_nanos_per_month": saving.usd_nanos_per_month,
            "saving_usd_per_month": format(usd(saving.usd_nanos_per_month), "f"),
            "interval_usd_nanos": saving.interval,
            "interval_of": saving.unit,
        },
        "confidence": saving.confidence,
        "changes": {"routing": "prefix_affinity"},
    }


def _hits(hits: "Hits") -> dict[str, Any]:
    return {
        "hours": hits.hours,
        "replicas": hits.replicas,
        "prompt_tokens": hits.prompt_tokens,
        "cached_tokens": hits.cached_tokens,
        "cached_share": hits.share,
    }


def prefix_cache_lines(model: "ModelSpec", found: "PrefixCache | None") -> Iterator[str]:
    """Sentences for people; none where no engine told what it had."""
    if found is None or found.share is None:
        return
    yield f"{found.share:.0%} of its prompt tokens were found in a prefix cache"
    if found.is_spread and not found.is_compared:
        yield (
            "what routing by prefix would make of that is not known: no tenant whose requests were spread had hours on "
            "one replica to compare with; --trace with a file that tells prefixes replays it"
        )
    for each in found.missed[:_MOST_NAMED]:
        yield _sentence(each)
    if len(found.missed) > _MOST_NAMED:
        yield f"and {len(found.missed) - _MOST_NAMED} more tenants, which --json names"
    if found.missed:
        fleet = "the fleet can shrink" if model.replicas.min < model.replicas.max else "you run fewer replicas"
        yield (
            f"saved prefill is money as far as {fleet}, and sooner first tokens otherwise; for it, say of "
            f"{model.name}: `routing: prefix_affinity`"
        )


def _sentence(each: "MissedHits") -> str:
    alone, spread, saving = each.alone, each.spread, each.saving
    low, high = saving.interval or (saving.usd_nanos, saving.usd_nanos)
    now = f"{spread.share:.0%} in {spread.hours} hours over {spread.replicas:.1f}"
    interval = f"{money_text(low)} to {money_text(high)}"
    return (
        f"tenant {each.tenant}: {alone.share:.0%} of its prompt tokens were cached in {alone.hours} hours on one "
        f"replica, and {now}; routing by prefix would save up to {each.prefill_seconds:,.0f} s of prefill, worth "
        f"{money_text(saving.usd_nanos)} ({interval}) and {money_text(saving.usd_nanos_per_month)} a month "
        f"(confidence {saving.confidence})"
    )
