"""Budgets of a key as they are typed: an amount and a period, or the fields that a tenant's budget has in a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swell.errors import UserError
from swell.state.budgets import KeyBudget
from swell.units import usd_text

_SHOWN_CHARACTERS = 100
_NOT_OF_KEYS = ("alerts",)


@dataclass(frozen=True)
class BudgetOptions:
    """What the options say of every `--budget` that does not say it itself."""

    time_zone: str = "UTC"
    grace: str = ""
    at_limit: tuple[str, ...] = ()
    throttle_requests_per_minute: int | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """As a budget of a file has them; an amount of grace has a unit of its own."""
        grace = self.grace.strip()
        return {
            **({"time_zone": self.time_zone} if self.time_zone != "UTC" else {}),
            **({"grace" if grace.endswith("%") else "grace_usd": grace.removeprefix("$")} if grace else {}),
            **({"at_limit": list(self.at_limit)} if self.at_limit else {}),
            **(
                {"throttle_requests_per_minute": self.throttle_requests_per_minute}
                if self.throttle_requests_per_minute is not None
                else {}
            ),
        }


def key_budgets_of(given: Sequence[str], options: BudgetOptions) -> tuple[KeyBudget, ...]:
    """The budgets that `--budget` gives, each with the options. Raises UserError with what is wrong."""
    if not given and options != BudgetOptions():
        raise UserError("--grace, --at-limit, --throttle-rpm and --time-zone belong to a budget; give --budget as well")
    return tuple(_budget(text, options) for text in given)


def shown_budget(budget: dict[str, Any]) -> str:
    """One for a table: amount, period, grace and steps."""
    grace, steps = budget.get("grace_usd_nanos") or 0, budget.get("at_limit") or ()
    words = [f"{usd_text(budget['usd_nanos'])} / {budget['period']}"]
    words += [f"on {budget['model']}"] if budget.get("model") else []
    words += [f"+ {usd_text(grace)} grace"] if grace else []
    words += [f"({', '.join(steps)})"] if steps else []
    return " ".join(words)


def _budget(text: str, options: BudgetOptions) -> KeyBudget:
    from pydantic import ValidationError  # late: commands that ask a server need no spec

    from swell.spec.budgets import BudgetSpec
    from swell.spec.problems import problems_of

    what = f"--budget {text[:_SHOWN_CHARACTERS]!r}"
    try:
        spec = BudgetSpec.model_validate(_document(text, options, what))
    except ValidationError as error:
        raise UserError(f"{what}: {problems_of(error, BudgetSpec)[0]}") from None
    return KeyBudget(
        spec.usd_nanos,
        spec.period,
        spec.time_zone,
        spec.model or "",
        spec.grace_usd_nanos,
        spec.at_limit,
        spec.throttle_requests_per_minute,
    )


def _document(text: str, options: BudgetOptions, what: str) -> dict[str, Any]:
    """What is typed, as a mapping of fields."""
    from swell.spec.windows import is_rolling

    stated = _mapping(text, what) if text.lstrip().startswith("{") else _short(text)
    for name in _NOT_OF_KEYS:
        if name in stated:
            raise UserError(f"{what}: {name}: a key's budget alerts at the usual thresholds; leave it out")
    usual = options.fields
    if "grace" in stated or "grace_usd" in stated:
        usual = {name: value for name, value in usual.items() if not name.startswith("grace")}
    period = stated.get("period", stated.get("budget_duration", ""))
    if isinstance(period, str) and is_rolling(period) and "time_zone" not in stated:
        usual.pop("time_zone", None)  # it is of the other budgets
    return usual | stated


def _short(text: str) -> dict[str, Any]:
    amount, _, period = text.partition("/")
    return {"usd": amount.strip(), **({"period": period.strip()} if period else {})}


def _mapping(text: str, what: str) -> dict[str, Any]:
    from swell.spec.yaml_text import YamlError, read_yaml

    try:
        stated = read_yaml(text)
    except YamlError as error:
        raise UserError(f"{what}: {error.problem}") from None
    if not isinstance(stated, dict) or not all(isinstance(name, str) for name in stated):
        raise UserError(f"{what}: is no mapping of fields; write one such as '{{usd: 10, period: month, grace: 5%}}'")
    return stated
