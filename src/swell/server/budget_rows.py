"""Budgets as people and scripts are shown them."""

from collections.abc import Callable, Sequence
from typing import Any

from swell.metering.accounts import Standing
from swell.metering.ladder import steps_now
from swell.ports.store import Store
from swell.server.budget_limits import limits_at
from swell.server.stages import Stages
from swell.spec import Spec
from swell.state.budgets import BudgetLimit
from swell.state.records import window_of
from swell.units import usd


def budget_rows(
    standings: Sequence[Standing], now_unix: float, holding: Callable[[Standing], tuple[str, ...]]
) -> list[dict[str, Any]]:
    """The limits that hold now, for people and scripts: amounts in nano-dollars, and as decimal dollars.

    `holding` names the steps that hold for one, the furthest last.
    """

    def steps_of(standing: Standing) -> tuple[str, ...]:
        return holding(standing) or steps_now(standing, (), ())  # one without steps is blocked at its end as well

    return [
        {
            "scope": standing.limit.scope,
            "owner": standing.limit.owner,
            "model": standing.limit.model,
            "period": standing.limit.label,
            "ends_unix": _ends_unix(standing.limit),
            "frees_unix": None if standing.frees_unix_ms is None else standing.frees_unix_ms / 1000,
            "steps": steps_of(standing),
            "stage": steps_of(standing)[-1] if steps_of(standing) else "",
            **{
                f"{name}_{unit}": value
                for name, nanos in (
                    ("cap", standing.limit.cap_usd_nanos),
                    ("raised", standing.limit.raised_usd_nanos),
                    ("grace", standing.limit.grace_usd_nanos),
                    ("grace_used", standing.grace_used_usd_nanos),
                    ("spent", standing.spent_usd_nanos),
                    ("reserved", standing.reserved_usd_nanos),
                    ("left", standing.left_usd_nanos),
                )
                for unit, value in (("usd_nanos", nanos), ("usd", f"{usd(nanos):f}"))
            },
        }
        for standing in standings
        if standing.limit.contains(now_unix * 1000)
    ]


def _ends_unix(limit: BudgetLimit) -> float | None:
    """When it begins anew; never, where it is not given again, or where it rolls."""
    return None if limit.end_unix_ms is None or limit.window_ms else limit.end_unix_ms / 1000


def ledger_rows(spec: Spec, store: Store, now_unix: float) -> list[dict[str, Any]]:
    """The same where no server runs, by what the ledger has."""
    overrides = store.overrides_in_force(now_unix)
    keys = store.list_keys()
    limits = limits_at(spec, now_unix, keys, overrides)
    present = [limit for limit in limits if limit.start_unix_ms <= now_unix * 1000]
    standings = [
        Standing(limit, sum(total.charge_usd_nanos for total in store.total_usage(window_of(limit))), 0)
        for limit in present
    ]
    stages = Stages(spec)
    stages.know(keys, now_unix)
    stages.look(standings, now_unix)
    return budget_rows(standings, now_unix, stages.holding)
