"""Budgets and their leases as rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, Row, and_, delete, select, update

from swell.adapters.stores.database import Database, insert
from swell.adapters.stores.schema import budget_leases, budgets
from swell.adapters.stores.usage_reads import quick_charge
from swell.adapters.stores.usage_rows import HOUR_MS, hourly_charges, total_charge
from swell.state.budgets import BudgetLease, BudgetLimit, BudgetSpend
from swell.state.records import requests_of


class BudgetRows:
    """`swell.ports.store.BudgetStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open_budgets(self, limits: Sequence[BudgetLimit]) -> list[BudgetSpend]:
        if not limits:
            return []
        with self._database.writing() as connection:
            return [BudgetSpend(limit.name, _opened(connection, limit)) for limit in limits]

    def put_leases(self, leases: Sequence[BudgetLease]) -> None:
        if not leases:
            return
        with self._database.writing() as connection:
            for lease in leases:
                if lease.granted_usd_nanos <= 0:
                    connection.execute(
                        delete(budget_leases).where(
                            budget_leases.c.limit_name == lease.limit,
                            budget_leases.c.incarnation == lease.incarnation,
                        )
                    )
                    continue
                granted = {"granted_usd_nanos": lease.granted_usd_nanos}
                statement = insert(connection, budget_leases).values(
                    limit_name=lease.limit, incarnation=lease.incarnation, **granted
                )
                connection.execute(
                    statement.on_conflict_do_update(index_elements=["limit_name", "incarnation"], set_=granted)
                )

    def list_leases(self) -> list[BudgetLease]:
        order = (budget_leases.c.limit_name, budget_leases.c.incarnation)
        with self._database.reading() as connection:
            return [BudgetLease(*row) for row in connection.execute(select(budget_leases).order_by(*order))]

    def settle_leases(self, incarnation: str) -> list[BudgetSpend]:
        held = select(budgets, budget_leases.c.granted_usd_nanos).join_from(
            budget_leases, budgets, budgets.c.limit_name == budget_leases.c.limit_name
        )
        with self._database.writing() as connection:
            names = []
            for row in connection.execute(held.where(budget_leases.c.incarnation == incarnation)).all():
                where = requests_of(_limit_of(row), incarnation)
                # The ledger may know of requests from before there was this budget: they are in its first figure.
                used = min(row.granted_usd_nanos, total_charge(connection, where))
                change = update(budgets).where(budgets.c.limit_name == row.limit_name)
                connection.execute(change.values(spent_usd_nanos=budgets.c.spent_usd_nanos + used))
                names.append(row.limit_name)
            connection.execute(delete(budget_leases).where(budget_leases.c.incarnation == incarnation))
            spent = _spent(connection, names)
            return [BudgetSpend(name, spent[name]) for name in names]

    def hourly_spend(self, limit: BudgetLimit, first_unix_ms: int, hours: int) -> list[int]:
        until_unix_ms = first_unix_ms + hours * HOUR_MS
        hourly = replace(limit, start_unix_ms=first_unix_ms, end_unix_ms=until_unix_ms)
        where = requests_of(hourly)
        with self._database.reading() as connection:
            found = hourly_charges(connection, where, first_unix_ms)
        return [found.get(hour, 0) for hour in range(hours)]

    def forget_budgets(self, ended_before_unix_ms: int, sooner: Mapping[str, int] | None = None) -> None:
        unleased = budgets.c.limit_name.not_in(select(budget_leases.c.limit_name))
        with self._database.writing() as connection:
            connection.execute(delete(budgets).where(budgets.c.end_unix_ms < ended_before_unix_ms, unleased))
            for budget_id, before in (sooner or {}).items():
                # Names are an id, a colon and a start; a range of them is found by the key.
                own = and_(budgets.c.limit_name > f"{budget_id}:", budgets.c.limit_name < f"{budget_id};")
                connection.execute(delete(budgets).where(own, budgets.c.end_unix_ms < before, unleased))


def _opened(connection: Connection, limit: BudgetLimit) -> int:
    """What is spent of a limit: what was, or what the ledger has beyond what living workers' leases cover, if more."""
    leases = select(budget_leases.c.incarnation, budget_leases.c.granted_usd_nanos)
    covered = sum(
        min(granted, total_charge(connection, requests_of(limit, incarnation)))
        for incarnation, granted in connection.execute(leases.where(budget_leases.c.limit_name == limit.name)).all()
    )
    known = _spent(connection, [limit.name]).get(limit.name, 0)
    spent: int = max(known, quick_charge(connection, requests_of(limit)) - covered)
    row = {
        "limit_name": limit.name,
        "scope": limit.scope,
        "owner": limit.owner,
        "model": limit.model,
        "start_unix_ms": limit.start_unix_ms,
        "end_unix_ms": limit.end_unix_ms,
        "spent_usd_nanos": spent,
    }
    statement = insert(connection, budgets).values(row)
    changed = {"spent_usd_nanos": spent}
    connection.execute(statement.on_conflict_do_update(index_elements=["limit_name"], set_=changed))
    return spent


def _limit_of(row: Row[Any]) -> BudgetLimit:
    return BudgetLimit(
        row.limit_name, "", row.scope, row.owner, 0, "", row.start_unix_ms, row.end_unix_ms, model=row.model
    )


def _spent(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    query = select(budgets.c.limit_name, budgets.c.spent_usd_nanos).where(budgets.c.limit_name.in_(names))
    return {row.limit_name: row.spent_usd_nanos for row in connection.execute(query)}
