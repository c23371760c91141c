"""What the models' replicas cost over a calendar period and who used it: hour by hour, added up. Pure.

Only models whose replicas' lives are known have a cost: what runs elsewhere is somebody else's bill. Hours are those of
UTC, cut where the period's days begin and end; the ledger is asked for one day at a time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from swell.metering.attribution import Attribution, Capability, Group, attribute, summed
from swell.metering.infrastructure import MS_PER_HOUR, replica_ms_by_market
from swell.metering.periods import Period
from swell.metering.reports import Ask, Slice, slices
from swell.metering.work import NO_LOAD, Load
from swell.state.records import UsageFilter
from swell.state.replica_runs import ReplicaRun
from swell.state.usage_groups import GroupColumn, UsageGroup

_BY: tuple[GroupColumn, ...] = ("model", "tenant", "key_id")
_Hours = dict[tuple[str, int], dict[Group, Load]]


@dataclass(frozen=True, slots=True)
class ModelCost:
    """One model's replicas in the period."""

    model: str
    attribution: Attribution
    replica_ms: dict[str, int]  # by market, summed over replicas


@dataclass(frozen=True, slots=True)
class CostQuestion:
    """What is to be added up. `model_of` is the model whose replicas serve a name: its own, or its adapters'."""

    runs: Sequence[ReplicaRun]
    period: Period
    zone: ZoneInfo
    capability: Callable[[str], Capability]
    model_of: Callable[[str], str] = lambda name: name


def span_of(runs: Iterable[ReplicaRun], ledger_ms: tuple[int, int] | None) -> tuple[int, int] | None:
    """From the first to the last moment of which ledger or runs know something; Unix milliseconds."""
    bounds = [*(ledger_ms or ()), *(at for run in runs for at in (run.started_unix_ms, run.until_unix_ms))]
    return (min(bounds), max(bounds)) if bounds else None


def model_costs(ask: Ask, question: CostQuestion, span_ms: tuple[int, int] | None) -> list[ModelCost]:
    """Every model that has runs in the period, by name. `span_ms` is what ledger and runs span."""
    models = sorted({run.model for run in question.runs})
    capabilities = {model: question.capability(model) for model in models}
    hours: dict[str, list[Attribution]] = {model: [] for model in models}
    lived: dict[str, dict[str, int]] = {model: {} for model in models}
    for part in slices(question.period, question.zone, span_ms):
        asked = _loads(ask, part, question.model_of)
        for model in models:
            runs = [run for run in question.runs if run.model == model and _is_in(run, part)]
            for market, ms in replica_ms_by_market(runs, part.start_unix_ms, part.end_unix_ms).items():
                lived[model][market] = lived[model].get(market, 0) + ms
            for low, high in _hours(part):
                loads = asked.get((model, low), {})
                if runs or loads:
                    hours[model].append(attribute(runs, loads, low, high, capabilities[model]))
    return [ModelCost(model, summed(hours[model]), lived[model]) for model in models]


def load_of(group: UsageGroup) -> Load:
    """What a group of the ledger asked for."""
    return Load(group.requests, group.prompt_tokens, group.completion_tokens, group.charge_usd_nanos)


def _loads(ask: Ask, part: Slice, model_of: Callable[[str], str]) -> _Hours:
    """What was asked in each hour, by model and group. The hour is named by its first millisecond in the slice."""
    where = UsageFilter(since_unix_ms=part.start_unix_ms, until_unix_ms=part.end_unix_ms)
    found: _Hours = {}
    for group in ask(where, _BY, "hour"):
        if not group.requests:
            continue
        place = model_of(group.model or ""), max(group.start_unix_ms or 0, part.start_unix_ms)
        loads = found.setdefault(place, {})
        whose = group.tenant or "", group.key_id or ""
        loads[whose] = loads.get(whose, NO_LOAD) + load_of(group)
    return found


def _hours(part: Slice) -> Iterator[tuple[int, int]]:
    low = part.start_unix_ms
    while low < part.end_unix_ms:
        high = min(low - low % MS_PER_HOUR + MS_PER_HOUR, part.end_unix_ms)
        yield low, high
        low = high


def _is_in(run: ReplicaRun, part: Slice) -> bool:
    return run.started_unix_ms < part.end_unix_ms and run.until_unix_ms > part.start_unix_ms
