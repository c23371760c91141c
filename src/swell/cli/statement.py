"""`swell statement`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_json
from swell.cli.usage import SpecOption, ZoneOption
from swell.errors import UserError
from swell.units import usd, usd_text

if TYPE_CHECKING:
    from swell.metering.statement import BudgetTerm
    from swell.spec import Spec

MAX_RAISES = 1000  # the newest raises of budgets that are looked through


@command
def statement(
    tenant: Annotated[str, typer.Option(help="Whose statement it is.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write; - for standard output.")],
    period: Annotated[
        str, typer.Option(help="A month such as 2026-11; or month, day, 2026-11-29, 2026, all.")
    ] = "month",
    time_zone: ZoneOption = "UTC",
    file: SpecOption = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """Write a tenant's statement: requests, tokens, rates and charges by model and day, and its budgets."""
    from swell.cli import formats
    from swell.cli.access import server_or_store
    from swell.cli.usage_report import period_of, spec_of, wish_of
    from swell.metering import statement as statements
    from swell.metering.statement_page import statement_page

    if output == formats.STDOUT and as_json:
        raise UserError("--json and -o - both write to standard output; leave one out")
    wish = wish_of(None, period, time_zone, None)
    spec = spec_of(file)
    with server_or_store(state) as access:
        span = access.usage_span()
        made = statements.statement(
            access.group_usage,
            organisation="organisation" if spec is None else spec.organisation.name,
            tenant=tenant,
            period=period_of(wish, span),
            zone=wish.zone,
            span_ms=span,
            terms=_terms(spec, tenant, access.overrides(MAX_RAISES)),
            now_unix=time.time(),
        )
    if not made.days and not (spec is not None and any(known.name == tenant for known in spec.tenants)):
        raise UserError(
            f"tenant {tenant[:100]!r} has no requests in {made.period.label}; who has, says: "
            f"swell usage --by tenant --period {period}"
        )
    formats.write_text(statement_page(made), output)
    requests, void, prompt, completion, charge, _ = made.total
    if output == formats.STDOUT:
        return  # the page is all that is said, so that it can be piped
    if as_json:
        sums = {"requests": requests, "void_requests": void, "prompt_tokens": prompt, "completion_tokens": completion,
                "charge_usd_nanos": charge, "charge_usd": format(usd(charge), "f")}  # fmt: skip
        print_json({"written": str(output), "tenant": tenant, "period": made.period.label, "total": sums})
    else:
        print(f"{output}: {tenant}, {made.period.label}, {requests:,} requests, {usd_text(charge)}")


def _terms(spec: "Spec | None", tenant: str, raises: Any) -> "list[BudgetTerm]":
    import msgspec

    from swell.metering.periods import zone_of
    from swell.metering.statement import BudgetTerm
    from swell.server.budget_limits import Budget
    from swell.state.budgets import Scope
    from swell.state.overrides import BudgetOverride

    known = msgspec.convert(raises, list[BudgetOverride])
    return [
        BudgetTerm(
            budget.period, zone_of(budget.time_zone), budget.usd_nanos, budget.model or "", budget.grace_usd_nanos,
            tuple(each for each in known if each.budget_id == Budget(Scope.TENANT, tenant, budget).budget_id),
        )
        for declared in (() if spec is None else spec.tenants)
        if declared.name == tenant
        for budget in declared.budget
    ]  # fmt: skip
