"""Models that need more than they may have, and models that have nothing that answers.

The first is read off scaling decisions: the rule that bound was the ceiling, turn after turn. The second off the fleet:
replicas are wanted, and none was ready for a while in which one failed again and again, or had all the time to start.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from swell.clock import Clock
from swell.control.replica import Replica
from swell.control.workload import Workload
from swell.server.alert_episodes import Finding
from swell.state.replica import Phase
from swell.state.scaling import Decision

CEILING = "ceiling"
CEILING_TURNS = 12  # decisions in a row that the ceiling bound
CEILING_SECONDS = 120.0  # that they took, at least: a burst is over before anybody could act
CEILING_CALM_SECONDS = 600.0  # since the ceiling last bound, and it is over
NONE_READY_SECONDS = 60.0  # a restart is no alert
NONE_READY_FAILURES = 3  # in a row, of one replica
READY_SECONDS = 120.0  # that a replica stayed ready, and it is over
UNWANTED_SECONDS = 3600.0  # that no replica was wanted, and it is over
MAX_REASON_LENGTH = 300  # characters of what a replica said last

_PASSING = frozenset({"stand-in", "handover"})  # say how replicas are had, not how many are needed


@dataclass
class _Ceiling:
    """One model's run of turns that the ceiling bound. Monotonic seconds."""

    since: float | None = None
    turns: int = 0
    last: float | None = None
    decision: Decision | None = None  # the last that it bound


@dataclass
class _Readiness:
    """How long one model has had a ready replica, none, or no need for one. Monotonic seconds."""

    ready_since: float | None = None
    none_since: float | None = None
    unwanted_since: float | None = None


class CeilingWatch:
    """`most` is `replicas.max` by model, of those that scale."""

    def __init__(self, most: Mapping[str, int], clock: Clock) -> None:
        self._most = dict(most)
        self._clock = clock
        self._begun = clock.monotonic()
        self._runs = {model: _Ceiling() for model in self._most}

    def decided(self, model: str, decision: Decision) -> None:
        """Take a scaling decision. One by which nothing was observed says nothing."""
        if not decision.inputs or decision.binding in _PASSING or model not in self._runs:
            return
        run, now = self._runs[model], self._clock.monotonic()
        if decision.binding == CEILING:
            run.since = now if run.since is None else run.since
            run.turns, run.last, run.decision = run.turns + 1, now, decision
        else:
            run.since, run.turns = None, 0

    def findings(self) -> list[Finding]:
        """What there is to say of each model."""
        now, found = self._clock.monotonic(), list[Finding]()
        for model, run in self._runs.items():
            lasts = run.turns >= CEILING_TURNS and run.since is not None and now - run.since >= CEILING_SECONDS
            calm_since = self._begun if run.last is None else run.last
            if lasts and run.decision is not None and run.since is not None:
                found.append(_exceeded(model, self._most[model], run.decision, now - run.since))
            elif now - calm_since >= CEILING_CALM_SECONDS:
                text = f"For {_span(CEILING_CALM_SECONDS)} it needed no more than its {_replicas(self._most[model])}."
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
            of_model.setdefault(replica.workload, []).append(replica)
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
                span = _span(READY_SECONDS if is_ready else UNWANTED_SECONDS)
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
    return fails or workload.provider == "external" or seconds >= workload.start_timeout_seconds + NONE_READY_SECONDS


def _exceeded(model: str, most: int, decision: Decision, seconds: float) -> Finding:
    inputs = dict(decision.inputs)
    demand, forecast = inputs.get("demand", 0.0), inputs.get("forecast", 0.0)
    return Finding(
        "capacity",
        model,
        "warning",
        f"needs more than its {_replicas(most)}",
        f"For {_span(seconds)} more was needed than replicas.max allows: demand is {demand:.1f} replicas, and "
        f"{forecast:.1f} are forecast. {inputs.get('queued', 0.0):.0f} requests wait now.\n"
        "To allow more, raise replicas.max in swell.yaml. Why each number was chosen: swell status --why",
        {"replicas_max": most, "demand_replicas": f"{demand:.2f}", "forecast_replicas": f"{forecast:.2f}"},
    )


def _none_ready(workload: Workload, own: list[Replica], seconds: float) -> Finding:
    failed = [replica for replica in own if replica.phase is Phase.FAILED or replica.last_error]
    worst = max(failed, key=lambda replica: replica.failures, default=None)
    said = "" if worst is None else worst.last_error.partition("\n")[0][:MAX_REASON_LENGTH]
    times = 0 if worst is None else worst.failures
    why = f" The last failure ({times} in a row): {said}." if said else ""
    where = "the endpoints in swell.yaml" if workload.provider == "external" else f"swell logs {workload.name}-0"
    return Finding(
        "replicas",
        workload.name,
        "critical",
        "has no replica that is ready",
        f"None of {workload.count} wanted was ready for {_span(seconds)}.{why} Requests for it fail.\n"
        f"Swell goes on trying. What is wrong: {where}; swell status",
        {"wanted": workload.count, "failures": times, "none_ready_seconds": int(seconds)},
    )


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 120:
        return "a minute" if minutes <= 1 else f"{minutes} minutes"
    return f"{minutes // 60} hours"
