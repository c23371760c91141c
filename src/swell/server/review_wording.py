"""What the alert of a review says: what could be saved, by which changes, at what price for requests. Pure."""

import shlex

from swell.server.review_report import Effect, ReportedChange, ReviewReport, money_text
from swell.state.alerts import Alert, AlertValue, money_values

SENT = "sent"  # in the place of a week: somebody asked for it
SUBJECT = "what is paid for"
_MAX_NAMED = 5  # models in one sentence


def review_alert(report: ReviewReport, week: str, top: int, *, alert_id: str, at_unix: float) -> Alert:
    """Of a review that was made, with at most `top` changes. `week` is such as 2026-W48, or SENT."""
    changes = report.changes[:top]
    lines = [_replayed(report)]
    lines += [f"{number}. {_line(each, report.command)}" for number, each in enumerate(changes, 1)]
    unseen = report.recommended_count - sum(change.recommended for change in changes)
    if unseen:
        lines.append(f"Recommended changes of {unseen} more models: {report.command}")
    if not report.recommended_count:
        lines.append("Nothing is recommended: no change meets the objective and saves for sure.")
    lines += _missed_hits(report)
    if report.not_reviewed:
        lines.append(_not_reviewed(report))
    lines.append("These are simulated costs of that time's requests: good to compare, no bill.")
    return Alert(
        alert_id=alert_id,
        kind="review",
        severity="info",
        title=f"{_whose(report, week)}: {_conclusion(report)}",
        text="\n".join(lines),
        subject=SUBJECT,
        at_unix=at_unix,
        values=_values(report, changes, week),
    )


def no_review_alert(reason: str, week: str, *, alert_id: str, at_unix: float) -> Alert:
    """Of one that could not be made, in a line."""
    return Alert(
        alert_id=alert_id,
        kind="review",
        severity="info",
        title=f"Weekly review of {week}: it could not be made",
        text=reason,
        subject=SUBJECT,
        at_unix=at_unix,
        values={"period": week, "problem": reason},
    )


def _whose(report: ReviewReport, week: str) -> str:
    return f"Review of the last {_days(report.days)}" if week == SENT else f"Weekly review of {week}"


def _conclusion(report: ReviewReport) -> str:
    month = report.saving_usd_nanos_per_month
    if not report.recommended_count:
        return "nothing to change"
    if month < 0:
        return f"meeting every objective costs {money_text(-month)} more a month"
    return f"{money_text(month)} less a month"


def _replayed(report: ReviewReport) -> str:
    names = ", ".join(report.models[:_MAX_NAMED])
    more = report.model_count - len(report.models[:_MAX_NAMED])
    others = f" and {more} more" if more else ""
    cost = money_text(report.cost_usd_nanos_per_month)
    return (
        f"Replayed: {report.requests:,} requests of {names}{others} in {_span(report.replayed_seconds)} of the last "
        f"{_days(report.days)}. As it is, a month costs {cost}."
    )


def _line(change: ReportedChange, command: str) -> str:
    month = change.saving_usd_nanos_per_month
    saves = f"saves {money_text(month)}" if month >= 0 else f"costs {money_text(-month)} more"
    how = _apply(change, command) if change.recommended else "in place of what is recommended; put it in by hand"
    return (
        f"{change.model}: {change.change}; {saves} a month (confidence {change.confidence}); "
        f"{_effects(change)}. To apply: {how}"
    )


def _apply(change: ReportedChange, command: str) -> str:
    return f"{command} --model {shlex.quote(change.model)} --apply"


def _effects(change: ReportedChange) -> str:
    before, after = change.before, change.after
    parts = [
        f"{_percent(before.attainment)} -> {_percent(after.attainment)} meet the objective, "
        f"{_percent(change.attainment_asked)} asked for"
    ]
    for name, old, new in (
        ("TTFT p99", before.ttft_p99_ms, after.ttft_p99_ms),
        ("ITL p99", before.itl_p99_ms, after.itl_p99_ms),
    ):
        parts.append(f"{name} {_milliseconds(old)} -> {_milliseconds(new)}")
    return ", ".join(parts)


def _missed_hits(report: ReviewReport) -> list[str]:
    """Tenants whose requests are spread, so that what one replica has in its prefix cache another computes again."""
    lines = [
        f"Prefix cache: tenant {each.tenant} of {each.model} finds {_whole_percent(each.cached_now)} of its prompt "
        f"tokens and would find up to {_whole_percent(each.cached_at_most)}; worth up to "
        f"{money_text(each.saving_usd_nanos_per_month)} a month (confidence {each.confidence}). "
        "For it, by hand: routing: prefix_affinity"
        for each in report.misses
    ]
    unseen = report.miss_count - len(report.misses)
    return [*lines, f"Prefix cache: {unseen} more tenants: {report.command}"] if unseen else lines


def _whole_percent(share: float) -> str:
    return f"{share * 100:.0f}%"


def _not_reviewed(report: ReviewReport) -> str:
    shown = report.not_reviewed[:_MAX_NAMED]
    more = report.not_reviewed_count - len(shown)
    others = f"; and {more} more" if more else ""
    return f"Not reviewed: {'; '.join(f'{name}: {why}' for name, why in shown)}{others}."


def _values(report: ReviewReport, changes: tuple[ReportedChange, ...], week: str) -> dict[str, AlertValue]:
    return {
        "period": week,
        "days": f"{report.days:g}",
        "models": report.model_count,
        "requests": report.requests,
        "replayed_seconds": round(report.replayed_seconds),
        **money_values("saving_per_month", report.saving_usd_nanos_per_month),
        **money_values("cost_per_month", report.cost_usd_nanos_per_month),
        "changes": [_facts(each, report.command) for each in changes],
        "not_reviewed": [{"model": name, "why": why} for name, why in report.not_reviewed],
        "missed_hits": [
            {
                "model": each.model,
                "tenant": each.tenant,
                "cached_now": _share(each.cached_now),
                "cached_at_most": _share(each.cached_at_most),
                **money_values("saving_at_most_per_month", each.saving_usd_nanos_per_month),
                "confidence": each.confidence,
            }
            for each in report.misses
        ],
    }


def _facts(change: ReportedChange, command: str) -> dict[str, str | int]:
    facts: dict[str, str | int] = {
        "model": change.model,
        "lever": change.lever,
        "change": change.change,
        "recommended": "yes" if change.recommended else "no",
        **money_values("saving_per_month", change.saving_usd_nanos_per_month),
        "confidence": change.confidence,
        "attainment_asked": _share(change.attainment_asked),
        **_effect_facts("before", change.before),
        **_effect_facts("after", change.after),
    }
    return facts | ({"apply": _apply(change, command)} if change.recommended else {})


def _effect_facts(when: str, effect: Effect) -> dict[str, str | int]:
    facts: dict[str, str | int] = {f"attainment_{when}": _share(effect.attainment)}
    for name, value in (("ttft_p99_ms", effect.ttft_p99_ms), ("itl_p99_ms", effect.itl_p99_ms)):
        if value is not None:
            facts[f"{name}_{when}"] = round(value)
    return facts


def _share(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _percent(value: float) -> str:
    return f"{value * 100:.2f}".rstrip("0").rstrip(".") + "%"


def _milliseconds(value: float | None) -> str:
    return "none" if value is None else f"{value:,.0f} ms"


def _span(seconds: float) -> str:
    return f"{seconds / 86_400:.1f} days" if seconds >= 2 * 86_400 else f"{seconds / 3600:.1f} hours"


def _days(days: float) -> str:
    return "day" if days == 1 else f"{days:g} days"
