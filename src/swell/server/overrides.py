"""Raises of budgets for a while, made by hand: which budget is meant, by how much, until when, and why.

Each is checked here, stored with the act that explains it, and over by itself. Until when may be a moment, a length of
time, or the end of the budget's present period: then it is a credit, which can be spent once.
"""

import difflib
import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from swell.clock import Clock
from swell.errors import UserError
from swell.metering.periods import period_at, zone_of
from swell.ports.store import Store
from swell.server.budget_limits import Budget, budgets_of
from swell.spec import Spec
from swell.spec.budgets import canonical_period
from swell.spec.windows import window_hours
from swell.state.budgets import Scope
from swell.state.overrides import BudgetOverride
from swell.state.records import AuditEntry
from swell.units import MAX_USD_NANOS, usd_nanos, usd_text

MAX_OVERRIDE_SECONDS = 366 * 86_400.0  # what shall hold longer is another budget
MAX_IN_FORCE = 100  # raises of one budget at once
MAX_REASON_CHARACTERS = 500
MAX_NAMED = 10  # budgets that a refusal lists


class NewOverride(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be raised, as it was typed. Without `until` and `seconds`: to the end of the present period."""

    scope: str  # organisation, tenant:NAME, key:ID, or a tenant's name
    by_usd: str
    reason: str
    model: str = ""
    period: str = ""  # needed where the scope has several budgets
    until: str = ""
    seconds: float | None = None


class OverrideEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which raise is to end."""

    override_id: str


@dataclass(frozen=True)
class Overrides:
    """The acts, over one store. `spec` says which budgets there are; it is asked for when one is needed."""

    spec: Callable[[], Spec]
    store: Store
    clock: Clock

    def raise_budget(self, request: NewOverride, principal: str) -> BudgetOverride:
        """Raise a budget for a while. Raises UserError with what is wrong and what would be right."""
        now = self.clock.unix()
        budget = self._budget(request, now)
        amount = self._amount(request, budget, now)
        reason = request.reason.strip()
        if not reason or len(reason) > MAX_REASON_CHARACTERS or not reason.isprintable():
            raise UserError(f"a raise needs a reason of 1 to {MAX_REASON_CHARACTERS} printable characters: --reason")
        override = BudgetOverride(
            override_id=f"raise-{secrets.token_hex(4)}",
            budget_id=budget.budget_id,
            scope=budget.scope.value,
            owner=budget.owner,
            model=budget.spec.model or "",
            period=budget.spec.period,
            by_usd_nanos=amount,
            reason=reason,
            created_by=principal,
            created_at_unix=now,
            until_unix=_until(request, budget, now),
        )
        audit = AuditEntry(
            at_unix=now,
            principal=principal,
            action="budget.raise",
            subject=override.override_id,
            detail={
                "budget": named(budget),
                "by_usd_nanos": amount,
                "until_unix": override.until_unix,
                "reason": reason,
            },
        )
        self.store.add_override(override, audit)
        return override

    def end(self, override_id: str, principal: str) -> BudgetOverride:
        """End a raise before its time. Raises UserError where none of that id still holds."""
        now = self.clock.unix()
        audit = AuditEntry(at_unix=now, principal=principal, action="budget.end_raise", subject=override_id)
        ended = self.store.end_override(override_id, now, audit)
        if ended is not None:
            return ended
        known = [each.override_id for each in self.store.overrides_in_force(now)]
        near = difflib.get_close_matches(override_id, known, n=3, cutoff=0.5) or known[:MAX_NAMED]
        which = f"; there are: {', '.join(near)}" if near else "; none does"
        raise UserError(f"no raise with the id {override_id[:100]!r} holds now{which}")

    def list(self, limit: int) -> list[BudgetOverride]:
        """The newest, newest first."""
        return self.store.list_overrides(limit)

    def rows(self, limit: int, *, knows_budgets: bool = True) -> Sequence[dict[str, Any]]:
        """The newest, newest first; `has_budget` says whether there is the budget that is raised, None: not known.

        It is gone where its tenant, model, period or time zone was changed in the file, or its key was revoked.
        """
        now, known = self.clock.unix(), None
        if knows_budgets:
            known = {each.budget_id for each in budgets_of(self.spec(), self.store.list_keys(), now)}
        return [
            {**msgspec.structs.asdict(each), "has_budget": None if known is None else each.budget_id in known}
            for each in self.list(limit)
        ]

    def _budget(self, request: NewOverride, now: float) -> Budget:
        """The one budget that is meant."""
        budgets = list(budgets_of(self.spec(), self.store.list_keys(), now))
        scope, owner = _scope_of(request.scope, budgets)
        found = [each for each in budgets if (each.scope, each.owner) == (scope, owner)]
        if not found:
            raise UserError(f"{request.scope[:100]!r} has no budget; {_which(request.scope, budgets)}")
        right = [each for each in found if (each.spec.model or "") == request.model]
        if not right:
            what = f"for model {request.model[:100]!r}" if request.model else "for all models; give --model"
            raise UserError(f"{_scoped(found[0])} has no budget {what}; {_which('', found)}")
        if request.period:
            right = [each for each in right if each.spec.period == _canonical(request.period)]
        if not right:
            raise UserError(f"{_scoped(found[0])} has no budget per {request.period[:100]!r}; {_which('', found)}")
        if len(right) > 1:
            raise UserError(f"{_scoped(right[0])} has several budgets; say which with --period; {_which('', right)}")
        return right[0]

    def _amount(self, request: NewOverride, budget: Budget, now: float) -> int:
        try:
            amount = usd_nanos(request.by_usd.strip().removeprefix("$"))
        except ValueError as error:
            raise UserError(f"--by {request.by_usd[:100]!r} {error}") from None
        if amount <= 0:
            raise UserError(f"--by {request.by_usd[:100]!r} must be more than 0; to allow less, lower it in swell.yaml")
        others = [each for each in self.store.overrides_in_force(now) if each.budget_id == budget.budget_id]
        if len(others) >= MAX_IN_FORCE:
            raise UserError(f"{named(budget)} has {MAX_IN_FORCE} raises that hold; end some, or raise it in swell.yaml")
        most = MAX_USD_NANOS - budget.spec.usd_nanos - budget.spec.grace_usd_nanos
        most -= sum(each.by_usd_nanos for each in others)
        if amount > most:
            raise UserError(f"--by {request.by_usd[:100]!r} is too much; at most {usd_text(max(0, most))} can be added")
        return amount


def named(budget: Budget) -> str:
    """A budget for people: whose it is, of which model, and its period."""
    model = f" --model {budget.spec.model}" if budget.spec.model else ""
    return f"{_scoped(budget)}{model} --period {_quoted(budget.spec.period)}"


def _canonical(period: str) -> str:
    try:
        return canonical_period(period)
    except ValueError as error:
        raise UserError(f"--period {period[:100]!r} {error}") from None


def _quoted(text: str) -> str:
    return f"'{text}'" if " " in text else text


def _scoped(budget: Budget) -> str:
    return f"{budget.scope.value}:{budget.owner}" if budget.owner else budget.scope.value


def _scope_of(text: str, budgets: Sequence[Budget]) -> tuple[Scope, str]:
    """What is typed: a scope with its owner after a colon, the organisation, or a tenant's name alone."""
    text = text.strip()
    if text in (Scope.ORGANISATION, "organization"):
        return Scope.ORGANISATION, ""
    kind, colon, owner = text.partition(":")
    if colon and kind in (Scope.TENANT, Scope.KEY):
        return Scope(kind), owner
    owned = {(each.scope, each.owner) for each in budgets}
    is_key = (Scope.TENANT, text) not in owned and (Scope.KEY, text) in owned
    return (Scope.KEY if is_key else Scope.TENANT), text


def _which(given: str, budgets: Sequence[Budget]) -> str:
    """The nearest of what there is, or all of it."""
    if not given:
        return f"there are: {'; '.join(map(named, budgets[:MAX_NAMED]))}"
    scopes = {_scoped(each): each for each in budgets}
    names = {each.owner: _scoped(each) for each in budgets if each.owner} | {scope: scope for scope in scopes}
    near = difflib.get_close_matches(given.strip(), names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {names[near[0]]}?"
    return f"there are: {', '.join(sorted(scopes)[:MAX_NAMED])}" if scopes else "there are no budgets"


def _until(request: NewOverride, budget: Budget, now: float) -> float:
    if request.until and request.seconds is not None:
        raise UserError("--until and --for contradict each other; keep one of them")
    if request.until:
        until = _moment(request.until, zone_of(budget.spec.time_zone))
    elif request.seconds is not None:
        until = now + request.seconds
    elif budget.spec.is_rolling:
        until = now + window_hours(budget.spec.period) * 3600
    else:
        end = period_at(budget.spec.period, zone_of(budget.spec.time_zone), now).end_unix
        if end is None:
            raise UserError(f"{named(budget)} has no period that ends; say until when with --until or --for")
        until = end
    if not until > now or math.isinf(until):
        raise UserError("a raise must end in the future; give --until a later moment, or --for a length such as 2d")
    if until - now > MAX_OVERRIDE_SECONDS:
        days = round(MAX_OVERRIDE_SECONDS / 86_400)
        raise UserError(f"a raise holds for at most {days} days; raise the budget itself in swell.yaml")
    return until


def _moment(text: str, zone: ZoneInfo) -> float:
    """A moment as it is typed, in the budget's own time zone where it names none."""
    try:
        at = datetime.fromisoformat(text.strip())
        return (at if at.tzinfo else at.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"--until {text[:100]!r} is no moment; write 2026-12-01, 2026-12-01T18:00 or 2026-12-01T18:00+01:00"
        ) from None
