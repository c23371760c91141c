"""How a review is told: numbers for machines, a table, sentences and a diff for people."""

import difflib
from typing import TYPE_CHECKING, Any

from swell.cli.output import print_table
from swell.cli.review_cache_words import prefix_cache, prefix_cache_lines
from swell.server.review_report import money_text
from swell.server.review_reporting import words_of
from swell.units import usd

if TYPE_CHECKING:
    from swell.cli.review import File
    from swell.server.review_replays import Outcome
    from swell.server.review_run import Findings
    from swell.server.reviewing import Review, Reviewed

_IDLE_SHARE = 0.2  # of its capacity, under which a fleet is said to be larger than it need be
_SHARED_SHARE = 0.1  # of prompt tokens, from which shared prefixes are worth a word
_MOST_NAMED = 20


def document(read: "File", findings: "Findings") -> dict[str, Any]:
    """The review as JSON values. Amounts are nano-dollars, and decimal text of dollars."""
    return {
        "file": str(read.path),
        "days": findings.days,
        "models": [
            {**_model(read, each), "prefix_cache": prefix_cache(findings.caches.get(each.model.name))}
            for each in findings.reviews
        ],
        "not_reviewed": [{"model": name, "why": why} for name, why in findings.refused],
        "idle_models": None if findings.idle is None else list(findings.idle.models),
        "idle_keys": None
        if findings.idle is None
        else [dict(zip(("id", "name", "tenant"), key, strict=True)) for key in findings.idle.keys],
    }


def _model(read: "File", review: "Review") -> dict[str, Any]:
    recommended = review.recommended
    return {
        "model": review.model.name,
        "replayed_seconds": review.seconds,
        "attainment_asked": review.model.objectives.attainment,
        "now": _outcome(review.now),
        "changes": [_reviewed(read, review, each) for each in review.changes],
        "recommended": None if recommended is None else _reviewed(read, review, recommended),
        "what_ifs": [_reviewed(read, review, each) for each in review.what_ifs],
        "too_slow": [{"accelerator": name, "attainment": share} for name, share in review.machines.unusable],
        "busiest_share_of_capacity": review.now.busiest_share,
        "shared_prompt_share": review.shared_prompt_share,
        "excluded": review.excluded or None,
    }


def _outcome(outcome: "Outcome") -> dict[str, Any]:
    return {
        "requests": outcome.requests,
        "attainment": outcome.attainment,
        "reached": outcome.reached,
        "cost_usd_nanos": outcome.cost_usd_nanos,
        "cost_usd": format(usd(outcome.cost_usd_nanos), "f"),
        "ttft_p99_ms": outcome.ttft_p99_ms,
        "itl_p99_ms": outcome.itl_p99_ms,
        "most_replicas": outcome.most_replicas,
        "preemptions": outcome.preemptions,
    }


def _reviewed(read: "File", review: "Review", each: "Reviewed") -> dict[str, Any]:
    saving = each.saving
    diff, by_hand = diff_of(read, review, each)
    return {
        "lever": each.lever,
        "changes": {".".join(change.path): change.value for change in each.changes},
        "before": _outcome(each.before),
        "after": _outcome(each.after),
        "saving_usd_nanos": saving.usd_nanos,
        "saving_usd": format(usd(saving.usd_nanos), "f"),
        "saving_usd_nanos_per_month": saving.usd_nanos_per_month,
        "saving_usd_per_month": format(usd(saving.usd_nanos_per_month), "f"),
        "interval_usd_nanos": saving.interval,
        "interval_of": saving.unit or None,
        "confidence": saving.confidence,
        "pays": each.pays,
        "replayed": "all" if each.whole else "busiest day",
        "diff": diff or None,
        "by_hand": by_hand or None,
    }


def diff_of(read: "File", review: "Review", each: "Reviewed") -> tuple[str, str]:
    """The change as a unified diff; where the file is not edited safely, why, and lines to put in by hand."""
    from swell.server.review_edits import UnsafeEditError, edited, snippet

    name = str(read.path)
    try:
        text = edited(
            read.text, review.model.name, each.changes, origin=name, base=read.path.absolute().parent
        )  # fmt: skip
    except UnsafeEditError as error:
        return "", f"{name} is not edited, for {error}; put in by hand:\n{snippet(review.model, each.changes)}"
    lines = difflib.unified_diff(read.text.splitlines(), text.splitlines(), name, name, lineterm="")
    return "\n".join(lines) + "\n", ""


# For people


def print_review(read: "File", findings: "Findings") -> None:
    """Everything, model by model."""
    for review in findings.reviews:
        _print_model(read, review)
        for line in prefix_cache_lines(review.model, findings.caches.get(review.model.name)):
            print(f"  {line}")
    for name, why in findings.refused:
        print(f"{name} was not reviewed: {why}")
    if findings.idle is not None:
        _print_idle(findings)


def _print_model(read: "File", review: "Review") -> None:
    now, model = review.now, review.model
    cost = money_text(now.cost_usd_nanos)
    print(f"{model.name}: {now.requests:,} requests in {_duration(review.seconds)}, as {read.path} says")
    print(f"  costs {cost}; {now.attainment:.2%} meet the objective, {_asked(review)} asked for")
    if review.excluded:
        print(f"  take what follows with care: {review.excluded}")
    print_table(
        ("change", "saves", "a month", "95 % of", "confidence", "attained", "TTFT p99", "ITL p99", ""),
        [_row(each, is_best=each is review.recommended) for each in review.changes],
        empty="There is nothing that could be changed.",
    )
    for name, share in review.machines.unusable:
        print(f"  {name} is too slow: even an idle fleet meets the objective for only {share:.2%}")
    _print_recommended(read, review)
    for each in review.what_ifs:
        print(f"  {_what_if(each)}")
    if now.reached and now.busiest_share < _IDLE_SHARE:
        print(f"  its replicas were never above {now.busiest_share:.0%} of their capacity, ten minutes at a time")
    if review.shared_prompt_share is not None and review.shared_prompt_share >= _SHARED_SHARE:
        print(
            f"  {review.shared_prompt_share:.0%} of its prompt tokens are beginnings that other requests have as well"
        )


def _print_recommended(read: "File", review: "Review") -> None:
    best = review.recommended
    if best is None:
        print("Nothing is recommended: no change meets the objective and saves for sure.")
        return
    month = best.saving.usd_nanos_per_month
    what = f"saves {money_text(month)} a month" if month >= 0 else f"costs {money_text(-month)} a month more"
    print(f"Recommended: {words_of(best.changes)}; {what} (confidence {best.saving.confidence})")
    diff, by_hand = diff_of(read, review, best)
    print(diff or by_hand, end="")


def _row(each: "Reviewed", *, is_best: bool) -> tuple[object, ...]:
    saving, before, after = each.saving, each.before, each.after
    note = "recommended" if is_best else "" if after.reached else "misses the objective"
    if not each.whole:
        note = f"{note}; busiest day only".removeprefix("; ")
    interval = "" if saving.interval is None else " to ".join(money_text(end) for end in saving.interval)
    return (
        words_of(each.changes), money_text(saving.usd_nanos), money_text(saving.usd_nanos_per_month), interval,
        saving.confidence, f"{before.attainment:.2%} -> {after.attainment:.2%}",
        _pair(before.ttft_p99_ms, after.ttft_p99_ms), _pair(before.itl_p99_ms, after.itl_p99_ms), note,
    )  # fmt: skip


def _what_if(each: "Reviewed") -> str:
    month = each.saving.usd_nanos_per_month
    money = f"save {money_text(month)} more a month" if month >= 0 else f"cost {money_text(-month)} more a month"
    missed = "" if each.after.reached else f", and {each.after.attainment:.2%} would meet the objective"
    if each.lever == "precision":
        return f"besides, weights in fp8 would {money}{missed}; they answer differently, so it is yours to decide"
    goals = {change.path: change.value for change in each.changes}
    ttft, itl = goals[("objectives", "ttft_ms")], goals[("objectives", "itl_ms")]
    return (
        f"besides, an objective of {ttft:g} ms to the first token and {itl:g} ms between tokens would {money}{missed}"
    )


def _print_idle(findings: "Findings") -> None:
    idle = findings.idle
    if idle is None:
        return
    if idle.models:
        print(f"Models without a request in {findings.days:g} days: {', '.join(idle.models[:_MOST_NAMED])}")
    if idle.keys:
        shown = ", ".join(f"{key_id} ({name}, {tenant})" for key_id, name, tenant in idle.keys[:_MOST_NAMED])
        more = f" and {len(idle.keys) - _MOST_NAMED} more" if len(idle.keys) > _MOST_NAMED else ""
        print(f"Keys without a request in {findings.days:g} days: {shown}{more}")


def _asked(review: "Review") -> str:
    return f"{review.model.objectives.attainment:.2%}"


def _pair(before: float | None, after: float | None) -> str:
    return " -> ".join("none" if each is None else f"{each:,.0f} ms" for each in (before, after))


def _duration(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days" if seconds >= 2 * 86_400 else f"{seconds / 3600:.1f} hours"
