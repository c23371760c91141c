"""What alerts of budgets say: what happened, by how much, and what to do. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from swell.metering.accounts import Standing
from swell.metering.thresholds import INTERVAL, Forecast
from swell.spec.steps import BLOCK, CHEAPER_VARIANT, SHED_BATCH, THROTTLE
from swell.spec.thresholds import Threshold
from swell.state.alerts import Alert, Severity, money_values
from swell.state.budgets import BudgetLimit, Scope
from swell.units import NANOS_PER_USD, usd_text

WARNING_PERCENT = 75  # of actual spend; less is told without any alarm
_CENT = NANOS_PER_USD // 100
_HOLDERS = {Scope.TENANT: "tenant", Scope.KEY: "key"}
_EFFECTS = {
    SHED_BATCH: "requests of priority batch are refused",
    CHEAPER_VARIANT: "requests go to cheaper variants of their models",
    THROTTLE: "requests are throttled",
}
_OPTIONS = {Scope.TENANT: "--tenant", Scope.KEY: "--key"}


@dataclass(frozen=True, slots=True)
class StepBegun:
    """A step of a budget's ladder holds now; it is alerted about as a threshold is."""

    name: str

    @property
    def text(self) -> str:
        """Under which it is stored, beside the thresholds'."""
        return f"step {self.name}"


def step_alert(standing: Standing, step: StepBegun, *, alert_id: str, at_unix: float) -> Alert:
    """The alert of a step that has begun."""
    limit = standing.limit
    subject, is_over = _subject(limit), step.name == BLOCK
    share = f"{standing.spent_usd_nanos * 100 // limit.cap_usd_nanos}% of " if limit.cap_usd_nanos else ""
    does = "has used up its budget and its grace" if is_over else f"has spent {share}its budget"
    effect = _EFFECTS.get(step.name, "")
    what = _refused_until(limit) if is_over else f"{effect[0].upper()}{effect[1:]} {_while(limit)}."
    return Alert(
        alert_id=alert_id,
        kind="budget",
        severity="critical" if is_over else "warning",
        title=f"{subject[0].upper()}{subject[1:]} {does}{_of_period(limit)}{'' if is_over else f': {effect}'}",
        text=f"{_so_far(standing)} {what}\n{_advice(limit)}",
        subject=subject,
        at_unix=at_unix,
        values=_values(standing, step.text) | {"step": step.name},
    )


def budget_alert(
    standing: Standing,
    threshold: Threshold,
    forecast: Forecast | None,
    passed: Sequence[str] = (),
    *,
    alert_id: str,
    at_unix: float,
) -> Alert:
    """The alert of a threshold that is due. A forecast one needs the `forecast` by which it is.

    `passed` are lower thresholds, in rising order, that were passed with it and have no alerts of their own.
    """
    limit, spent = standing.limit, standing.spent_usd_nanos
    subject, so_far, values = _subject(limit), _so_far(standing), _values(standing, threshold.text)
    if passed:
        so_far += f" It passed {', '.join(passed)} and {threshold.text} since one last looked."
        values |= {"passed": ", ".join(passed)}
    and_so = ""
    is_infrastructure = limit.scope == Scope.INFRASTRUCTURE
    is_, has, its = ("are", "have", "their") if is_infrastructure else ("is", "has", "its")
    if threshold.is_forecast and forecast is not None:
        does = f"{is_} forecast to spend {threshold.share_percent}% of {its} budget"
        so_far += _coming(forecast)
        values |= money_values("forecast", forecast.expected_usd_nanos)
        values |= money_values("forecast_low", forecast.low_usd_nanos)
        values |= money_values("forecast_high", forecast.high_usd_nanos)
    elif threshold.share_percent == 100:
        does = f"{has} used up {its} budget"
        and_so = " and spends its grace" if _is_in_grace(standing) else ""
        if spent < limit.most_usd_nanos and not _is_in_grace(standing) and not is_infrastructure:
            so_far += " What is left is less than the next requests may cost."
    else:
        does = f"{has} spent {threshold.share_percent}% of {its} budget"
    return Alert(
        alert_id=alert_id,
        kind="budget",
        severity=_severity(threshold),
        title=f"{subject[0].upper()}{subject[1:]} {does}{_of_period(limit)}{and_so}",
        text=f"{so_far} {_consequence(standing, threshold)}\n{_advice(limit)}",
        subject=subject,
        at_unix=at_unix,
        values=values,
    )


def _so_far(standing: Standing) -> str:
    cap, spent = standing.limit.cap_usd_nanos, standing.spent_usd_nanos
    return f"{usd_text(spent)} of {usd_text(cap)} is spent" + (f" ({spent * 100 // cap}%)." if cap else ".")


def _values(standing: Standing, threshold: str) -> dict[str, str | int]:
    limit = standing.limit
    values: dict[str, str | int] = {
        "scope": limit.scope,
        "owner": limit.owner,
        "model": limit.owner if limit.scope == Scope.INFRASTRUCTURE else limit.model,
        "period": limit.label,
        "threshold": threshold,
        **money_values("cap", limit.cap_usd_nanos),
        **money_values("spent", standing.spent_usd_nanos),
    }
    if limit.grace_usd_nanos:
        values |= money_values("grace", limit.grace_usd_nanos)
    if limit.end_unix_ms is not None and not limit.window_ms:
        values["ends_unix"] = limit.end_unix_ms // 1000
    return values


def _severity(threshold: Threshold) -> Severity:
    if threshold.is_forecast:
        return "warning"
    if threshold.share_percent >= 100:
        return "critical"
    return "warning" if threshold.share_percent >= WARNING_PERCENT else "info"


def _subject(limit: BudgetLimit) -> str:
    if limit.scope == Scope.INFRASTRUCTURE:
        return f"replicas of {limit.owner}" if limit.owner else "replicas of all models"
    holder = f"{_HOLDERS[Scope(limit.scope)]} {limit.owner}" if limit.scope in _HOLDERS else "the organisation"
    return f"{holder} on model {limit.model}" if limit.model else holder


def _of_period(limit: BudgetLimit) -> str:
    if limit.window_ms:
        return f" ({limit.label})"
    return "" if limit.end_unix_ms is None else f" of {limit.label}"


def _coming(forecast: Forecast) -> str:
    expected, low, high = map(_about, (forecast.expected_usd_nanos, forecast.low_usd_nanos, forecast.high_usd_nanos))
    return f" By the end of the period it will be {expected}, and {low} to {high} with {INTERVAL:.0%} probability."


def _about(nanos: int) -> str:
    """An estimate, to the cent where it is dollars."""
    return usd_text(nanos // _CENT * _CENT if nanos >= NANOS_PER_USD else nanos)


def _is_in_grace(standing: Standing) -> bool:
    most = standing.limit.most_usd_nanos
    return standing.limit.cap_usd_nanos <= standing.spent_usd_nanos < most and not standing.is_used_up


def _consequence(standing: Standing, threshold: Threshold) -> str:
    limit = standing.limit
    grace = f"its grace of {usd_text(limit.grace_usd_nanos)}" if limit.grace_usd_nanos else ""
    if limit.scope == Scope.INFRASTRUCTURE:
        return "Fewer replicas run where it would not last, and none once it is used up."
    if threshold.is_forecast or threshold.share_percent < 100:
        return f"Requests are refused once it {f'and {grace} are' if grace else 'is'} used up."
    if _is_in_grace(standing):
        return f"Requests are admitted until {grace} is spent too, and refused then."
    return _refused_until(limit)


def _while(limit: BudgetLimit) -> str:
    if limit.end_unix_ms is None or limit.window_ms:
        return "while that is so"
    return f"until the period ends at {datetime.fromtimestamp(limit.end_unix_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _refused_until(limit: BudgetLimit) -> str:
    if limit.window_ms:
        return "Requests are refused until enough of what was spent has left the window."
    if limit.end_unix_ms is None:
        return "Requests are refused until it is raised."
    return f"Requests are refused {_while(limit)}."


def _advice(limit: BudgetLimit) -> str:
    if limit.scope == Scope.INFRASTRUCTURE:
        return "What is given up: swell status --why. To allow more, raise infrastructure_budget in swell.yaml."
    options = [f"{_OPTIONS[Scope(limit.scope)]} {limit.owner}"] if limit.scope in _OPTIONS else []
    options += [f"--model {limit.model}"] if limit.model else []
    scope = f"{limit.scope}:{limit.owner}" if limit.owner else limit.scope
    model = f" --model {limit.model}" if limit.model else ""
    # A key's budget is as old as the key: there is no file to raise it in.
    where = "make a key with a larger budget" if limit.scope == Scope.KEY else "raise the budget in swell.yaml"
    return (
        f"Who spends it: {' '.join(['swell usage', *options])}. To allow more, {where}, or for "
        f"a while: swell budget raise {scope}{model} --by USD --reason WHY"
    )
