"""Models that need more than they may have, and models that have nothing that answers.

The first is read off scaling decisions: the rule that bound was the ceiling or a budget, turn after turn. Of replicas
whose number is fixed, it is off what would be decided if it were not (`fixed_demand`). The second is read off the
fleet: replicas are wanted, and none was ready for a while in which one failed again and again, or had all the time to
start.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from swell.clock import Clock
from swell.control.replica import Replica
from swell.control.workload import Workload
from swell.policy.scaling.funded import BINDING as BUDGET
from swell.policy.scaling.funded import span
from swell.server.alert_episodes import Finding
from swell.server.model_alert_words import replica_count, roughly
from swell.spec import ModelSpec
from swell.spec.replicas import MAX_REPLICAS
from swell.state.alerts import money_values
from swell.state.funding import Fund
from swell.state.replica import Phase
from swell.state.scaling import Decision
from swell.units import usd_text

CEILING = "ceiling"
BOUND_TURNS = 12  # decisions in a row that the ceiling or a budget bound
BOUND_SECONDS = 120.0  # that they took, at least: a burst is over before anybody could act
BOUND_CALM_SECONDS = 600.0  # since neither bound any, and it is over
NONE_READY_SECONDS = 60.0  # a restart is no alert
NONE_READY_FAILURES = 3  # in a row, of one replica
READY_SECONDS = 120.0  # that a replica stayed ready, and it is over
UNWANTED_SECONDS = 3600.0  # that no replica was wanted, and it is over
MAX_REASON_LENGTH = 300  # characters of what a replica said last

_PASSING = frozenset({"stand-in", "handover"})  # say how replicas are had, not how many are needed


@dataclass
class _Run:
    """One model's run of turns in which it needed more than it may have. Monotonic seconds."""

    since: float | None = None
    turns: int = 0
    last: float | None = None
    decision: Decision | None = None  # the last that was bound


@dataclass
class _Readiness:
    """How long one model has had a ready replica, none, or no need for one. Monotonic seconds."""

    ready_since: float | None = None
    none_since: float | None = None
    unwanted_since: float | None = None


class CapacityWatch:
    """Which of the models whose replicas Swell orders need more than they may have. One of none is left out."""

    def __init__(self, models: Sequence[ModelSpec], clock: Clock) -> None:
        self._models = {model.name: model for model in models if model.is_ordered and model.replicas.max}
        self._clock = clock
        self._begun = clock.monotonic()
        self._runs = {model: _Run() for model in self._models}

    def decided(self, model: str, decision: Decision) -> None:
        """Take a scaling decision. One by which nothing was observed says nothing."""
        observed = any(name == "demand" for name, _ in decision.inputs)
        if not observed or decision.binding in _PASSING or model not in self._runs:
            return
        run, now = self._runs[model], self._clock.monotonic()
        if decision.binding in (CEILING, BUDGET):
            run.since = now if run.since is None else run.since
            run.turns, run.last, run.decision = run.turns + 1, now, decision
        else:
            run.since, run.turns = None, 0

    def findings(self) -> list[Finding]:
        """What there is to say of each model."""
        now, found = self._clock.monotonic(), list[Finding]()
        for model, run in self._runs.items():
            lasts = run.turns >= BOUND_TURNS and run.since is not None and now - run.since >= BOUND_SECONDS
            calm_since = self._begun if run.last is None else run.last
            if lasts and run.decision is not None and run.since is not None:
                found.append(_exceeded(self._models[model], run.decision, now - run.since))
            elif now - calm_since >= BOUND_CALM_SECONDS:
                text = f"For {roughly(BOUND_CALM_SECONDS)} it needed no more than it may have."
                found.append(Finding("capacity", model, "resolved", "has enough replicas again", text))
        return found


class ReadyWatch:
    """Which models have a replica that answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, _Readiness] = {}

    def look(self, workloads: Iterable[Workload], replicas: Iterable[Replica]) -> list[Finding]:
        """What there is to say of each model, by the fleet as it is now."""
        now, found = self._clock.monotonic(), list[Finding]()
        of_model: dict[str, list[Replica]] = {}
        for replica in replicas:
            of_model.setdefault(replica.serves, []).append(replica)
        known, self._known = self._known, {}
        for workload in workloads:
            state = self._known[workload.name] = known.get(workload.name, _Readiness())
            own = of_model.get(workload.name, [])
            is_ready, is_wanted = any(replica.routable for replica in own), workload.count > 0
            state.ready_since = _since(state.ready_since, now, holds=is_ready)
            state.none_since = _since(state.none_since, now, holds=is_wanted and not is_ready)
            state.unwanted_since = _since(state.unwanted_since, now, holds=not is_wanted)
            if state.none_since is not None and _is_stuck(workload, own, now - state.none_since):
                found.append(_none_ready(workload, own, now - state.none_since))
            elif _lasts(state.ready_since, now, READY_SECONDS) or _lasts(state.unwanted_since, now, UNWANTED_SECONDS):
                what = "A replica has been ready" if is_ready else "No replica was wanted"
                span = roughly(READY_SECONDS if is_ready else UNWANTED_SECONDS)
                found.append(Finding("replicas", workload.name, "resolved", "is served again", f"{what} for {span}."))
        return found


def _since(before: float | None, now: float, *, holds: bool) -> float | None:
    if not holds:
        return None
    return now if before is None else before


def _lasts(since: float | None, now: float, seconds: float) -> bool:
    return since is not None and now - since >= seconds


def _is_stuck(workload: Workload, own: list[Replica], seconds: float) -> bool:
    if seconds < NONE_READY_SECONDS:
        return False
    fails = any(replica.failures >= NONE_READY_FAILURES for replica in own)
    is_there = workload.provider == "external" and not workload.is_advised  # and need not start
    return fails or is_there or seconds >= workload.start_timeout_seconds + NONE_READY_SECONDS


def _exceeded(model: ModelSpec, decision: Decision, seconds: float) -> Finding:
    inputs = dict(decision.inputs)
    demand, forecast = inputs.get("demand", 0.0), inputs.get("forecast", 0.0)
    needed = f"demand is {demand:.1f} replicas, and {forecast:.1f} are forecast"
    values: dict[str, str | int] = {"demand_replicas": f"{demand:.2f}", "forecast_replicas": f"{forecast:.2f}"}
    enough = min(MAX_REPLICAS, max(model.replicas.max + 1, ceil(max(demand, forecast))))
    if decision.binding == BUDGET:
        does, bound, advice = _over_budget(model, decision)
        values |= _budget_values(decision)
    elif model.scales:
        does, bound = f"needs more than its {replica_count(model.replicas.max)}", "replicas.max allows"
        advice = f"To allow more, raise replicas.max in swell.yaml; {enough} would carry this"
        values |= {"bound": "replicas.max", "replicas_max": model.replicas.max}
    else:
        fixed = model.replicas.max
        does = f"needs more than its {replica_count(fixed)}, whose number is fixed"
        bound = f"the fixed {replica_count(fixed)} carr{'ies' if fixed == 1 else 'y'}"
        advice = f"To let Swell add replicas, give a range in swell.yaml, such as replicas: {fixed}..{enough}"
        values |= {"bound": "fixed", "replicas_max": fixed}
    is_told_why = decision.binding == BUDGET or model.scales  # nothing is decided of a fixed number
    why = ". Why each number was chosen: swell status --why" if is_told_why else ""
    text = (
        f"For {roughly(seconds)} more was needed than {bound}: {needed}. "
        f"{inputs.get('queued', 0.0):.0f} requests wait now.\n{advice}{why}"
    )
    return Finding("capacity", model.name, "warning", does, text, values)


def _over_budget(model: ModelSpec, decision: Decision) -> tuple[str, str, str]:
    """What a title, and two sentences about a budget that binds say."""
    has = f"{replica_count(decision.replicas)} of {dict(decision.inputs).get('without_budget', 0.0):.0f}"
    does = f"needs more than its infrastructure budget pays for: it has {has}"
    fund = decision.fund
    if fund is None:
        return does, "its infrastructure budget pays for", "To allow more, raise infrastructure_budget in swell.yaml"
    left = f"{usd_text(max(0, fund.left_usd_nanos))} of {usd_text(fund.cap_usd_nanos)} is left for it"
    bound = f"{fund.name} pays for ({left}, and it begins anew in {span(fund.ends_in_seconds)})"
    return does, bound, f"To allow more, raise {_setting(fund)} in swell.yaml"


def _budget_values(decision: Decision) -> dict[str, str | int]:
    values: dict[str, str | int] = {"bound": "infrastructure_budget", "replicas": decision.replicas}
    fund = decision.fund
    if fund is None:
        return values
    values["setting"] = _setting(fund)
    return values | money_values("cap", fund.cap_usd_nanos) | money_values("left", max(0, fund.left_usd_nanos))


def _setting(fund: Fund) -> str:
    return f"infrastructure_budget of model {fund.owner}" if fund.owner else "organisation.infrastructure_budget"


def _none_ready(workload: Workload, own: list[Replica], seconds: float) -> Finding:
    failed = [replica for replica in own if replica.phase is Phase.FAILED or replica.last_error]
    worst = max(failed, key=lambda replica: replica.failures, default=None)
    said = "" if worst is None else worst.last_error.partition("\n")[0][:MAX_REASON_LENGTH]
    times = 0 if worst is None else worst.failures
    waiting = next((replica.waiting for replica in own if replica.waiting), "")[:MAX_REASON_LENGTH]
    why = f" The last failure ({times} in a row): {said}." if said else f" It waits: {waiting}." if waiting else ""
    where = "the endpoints in swell.yaml" if workload.provider == "external" else f"swell logs {workload.name}-0"
    return Finding(
        "replicas",
        workload.name,
        "critical",
        "has no replica that is ready",
        f"None of {workload.count} wanted was ready for {roughly(seconds)}.{why} Requests for it fail.\n"
        f"Swell goes on trying. What is wrong: {where}; swell status",
        {"wanted": workload.count, "failures": times, "none_ready_seconds": int(seconds)},
    )
