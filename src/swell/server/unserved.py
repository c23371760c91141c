"""Models that no replica will serve for a while, as workers are told: no money for one, or the server stops.

A replica is out of reach where a budget does not pay for its start, the time until a decision, and its drain out of
what is not spent. What others have bound does not count here: it may come back, and who waits may wait for that. What
is spent never does, so what is out of reach stays so until the budget begins anew (or its end is so near that the next
one pays for most of it).
"""

from collections.abc import Callable, Iterable, Mapping

from swell.control.decide import KILL_MARGIN_SECONDS
from swell.control.replica import Replica
from swell.metering.infrastructure_budgets import InfrastructureBudget
from swell.policy.scaling.spending import affords_one, cost_of_one
from swell.spec import ModelSpec, Spec
from swell.state.budgets import BudgetLimit
from swell.state.funding import Fund, Funding, Tariff
from swell.state.replica import Phase
from swell.state.snapshot import Unserved
from swell.units import usd_nanos, usd_text, usd_text_at_least

LATE_SECONDS = 60.0  # that a turn may come after its time, for what budgets must pay until then
GONE_SECONDS = 15.0  # from a replica's last second to where everybody knows that it ended
COMING = frozenset({Phase.PENDING, Phase.STARTING, Phase.READY})  # who has failed would be started again too late


def unfunded(
    spent: Iterable[tuple[BudgetLimit, int]], tariff: Tariff, starts: Mapping[str, float], unix: float
) -> Unserved | None:
    """The budget that keeps a model without replicas from having one, of those that count, with what is spent of each;
    None where one can be had. Of several, the one that begins anew last."""
    short = [limit for limit, used in spent if not affords_one(_alone(limit, used, tariff, unix), starts)]
    if not short:
        return None
    return Unserved(max(short, key=lambda limit: limit.end_unix_ms or 0), cost_of_one(tariff, starts))


def too_small(
    model: str, budgets: Iterable[InfrastructureBudget], tariff: Tariff, starts: Mapping[str, float]
) -> list[str]:
    """A sentence for each budget that would not pay for a single replica of the model if nothing of it were spent."""
    need = cost_of_one(tariff, starts)
    return [
        f"{budget_of(budget.model)} is {usd_text(budget.usd_nanos)} {_each(budget.period)}, less than the "
        f"{usd_text_at_least(need)} that one replica of {model} takes to start, wait for a decision and drain: none "
        "is started, and its requests are refused; raise it, or lower drain_seconds"
        for budget in budgets
        if budget.usd_nanos < need
    ]


def surely_gone_seconds(model: ModelSpec, stop_grace_seconds: float) -> float:
    """From letting a replica go until it has surely ended, for what budgets must pay."""
    drain = max(model.scaling.drain_seconds, model.drain_seconds)
    return drain + GONE_SECONDS + stop_grace_seconds + KILL_MARGIN_SECONDS


def surely_decided_seconds(model: ModelSpec) -> float:
    """From a decision until the next one is surely carried out."""
    return model.scaling.interval_seconds + LATE_SECONDS


def budgets_too_small(
    spec: Spec, budgets: Iterable[InfrastructureBudget], stop_grace_seconds: Callable[[ModelSpec], float]
) -> list[str]:
    """What a server would say of the file's budgets when it begins."""
    known, found = list(budgets), []
    for model in spec.models:
        if not model.is_ordered or model.usd_per_replica_hour is None:
            continue
        price, drain = usd_nanos(model.usd_per_replica_hour), surely_gone_seconds(model, stop_grace_seconds(model))
        tariff = Tariff(((model.name, price),), drain, surely_decided_seconds(model))
        own = [budget for budget in known if budget.model in ("", model.name)]
        found += too_small(model.name, own, tariff, {model.name: model.start_seconds})
    return found


def budget_of(owner: str) -> str:
    """Which it is, for people."""
    return f"the infrastructure budget of {owner}" if owner else "the organisation's infrastructure budget"


def _each(period: str) -> str:
    return f"an {period}" if period == "hour" else f"a {period}"


def ending(replicas: Iterable[Replica], model: str) -> Unserved | None:
    """While the server stops, who waits is served by what runs or is about to, and by nothing else."""
    # One that is not begun and waits does so for a place that does not answer.
    coming = [replica for replica in replicas if replica.phase in COMING]
    is_coming = any(each.serves == model and not (each.phase is Phase.PENDING and each.waiting) for each in coming)
    return None if is_coming else Unserved()


def _alone(limit: BudgetLimit, spent: int, tariff: Tariff, unix: float) -> Funding:
    left, ends_in = limit.cap_usd_nanos - spent, max(0.0, (limit.end_unix_ms or 0) / 1000 - unix)
    return Funding((Fund("", limit.cap_usd_nanos, left, limit.cap_usd_nanos, left, ends_in),), tariff)
