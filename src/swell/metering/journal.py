"""The books of a period: charges and costs as double-entry transactions, each of which adds up to nothing. Pure.

Two kinds, per day or month of the calendar: what a tenant was charged (owed by the tenant, earned by the models), and
what a model's replicas cost (used by tenants, idle, starting; owed to whoever runs the machines). Charges of requests
whose outcome is not known stand at their bound in an account of their own, `Income:Reserved`, as they may yet shrink.

Amounts are nano-dollars: debits positive, credits negative. The books are made anew from the ledger each time. What is
over does not change any more once the requests of its last minutes have ended, and a transaction keeps its reference.
"""

from calendar import monthrange
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from msgspec.structs import replace as replaced

from swell.metering.costs import CostQuestion, ModelCost, model_costs
from swell.metering.periods import DAY, MONTH, Period, period_at
from swell.metering.reports import Ask, Slice, slices
from swell.ports.store import require_few_groups
from swell.state.records import UsageFilter
from swell.state.usage import UsageStatus
from swell.state.usage_groups import GroupColumn

Account = tuple[str, ...]
"""From the kind down: ("Assets", "Receivable", "search")."""
_BY: tuple[GroupColumn, ...] = ("tenant", "model", "status")


@dataclass(frozen=True, slots=True)
class Posting:
    """A change of one account."""

    account: Account
    amount_usd_nanos: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """What happened to accounts on one day, `2026-11-29`, or by the end of a month. `reference` is unique."""

    day: str
    reference: str
    narration: str
    postings: tuple[Posting, ...]

    def __post_init__(self) -> None:
        if sum(posting.amount_usd_nanos for posting in self.postings):
            raise ValueError(f"the postings of {self.reference} do not add up to nothing")


@dataclass(frozen=True, slots=True)
class Balance:
    """What was posted to an account in the period: debits and credits are summed apart, neither is negative."""

    account: Account
    debit_usd_nanos: int
    credit_usd_nanos: int


@dataclass(slots=True)
class _Draft:
    day: str
    narration: str
    amounts: dict[Account, int] = field(default_factory=dict)

    def post(self, account: Account, amount: int) -> None:
        self.amounts[account] = self.amounts.get(account, 0) + amount


def transactions(
    ask: Ask, question: CostQuestion, span_ms: tuple[int, int] | None, *, each: str = DAY
) -> list[Transaction]:
    """The period's transactions, one per subject and day (or month, where `each` says so), by day and reference.

    Raises UserError where there are more than the store's MAX_GROUPS.
    """
    drafts: dict[str, _Draft] = {}
    for part in slices(question.period, question.zone, span_ms):
        time = _time(part, question, each)
        _charge(drafts, ask, part, time)
        day = Period(part.start_unix_ms / 1000, part.end_unix_ms / 1000, part.label)
        for cost in model_costs(ask, replace(question, period=day), (part.start_unix_ms, part.end_unix_ms - 1)):
            _cost(drafts, cost, time)
        require_few_groups(len(drafts))
    return sorted(_finished(drafts), key=lambda each: (each.day, each.reference))


def balances(books: Iterable[Transaction]) -> list[Balance]:
    """The trial balance, by account: all debits together are all credits together."""
    sums: dict[Account, tuple[int, int]] = {}
    for posting in (posting for transaction in books for posting in transaction.postings):
        debit, credit = sums.get(posting.account, (0, 0))
        amount = posting.amount_usd_nanos
        sums[posting.account] = (debit + max(amount, 0), credit + max(-amount, 0))
    return [Balance(account, *sums[account]) for account in sorted(sums)]


def _time(part: Slice, question: CostQuestion, each: str) -> tuple[str, str]:
    """What a slice's transactions are named by, and the day on which they are entered."""
    if each == DAY:
        return part.label, part.label
    month = period_at(MONTH, question.zone, part.start_unix_ms / 1000).label
    year, number = map(int, month.split("-"))
    return month, f"{month}-{monthrange(year, number)[1]:02d}"


def _charge(drafts: dict[str, _Draft], ask: Ask, part: Slice, time: tuple[str, str]) -> None:
    where = replaced(UsageFilter(), since_unix_ms=part.start_unix_ms, until_unix_ms=part.end_unix_ms)
    for group in ask(where, _BY, None):
        if not group.charge_usd_nanos:
            continue
        tenant, model = group.tenant or "", group.model or ""
        is_open = group.status is UsageStatus.RESERVED
        draft = _draft(drafts, time, "charges", tenant, f"Requests of {tenant or 'nobody'}")
        draft.post(("Assets", "Receivable", tenant), group.charge_usd_nanos)
        draft.post(("Income", "Reserved" if is_open else "Tokens", model), -group.charge_usd_nanos)


def _cost(drafts: dict[str, _Draft], cost: ModelCost, time: tuple[str, str]) -> None:
    lines, total = cost.attribution, cost.attribution.total_usd_nanos
    if not total:
        return
    draft = _draft(drafts, time, "replicas", cost.model, f"Replicas of {cost.model}")
    for (tenant, _), line in lines.used.items():
        draft.post(("Expenses", "Used", cost.model, tenant), line.cost_usd_nanos)
    draft.post(("Expenses", "Idle", cost.model), lines.idle_usd_nanos)
    draft.post(("Expenses", "Starting", cost.model), lines.starting_usd_nanos)
    draft.post(("Liabilities", "Replicas", cost.model), -total)


def _draft(drafts: dict[str, _Draft], time: tuple[str, str], kind: str, subject: str, narration: str) -> _Draft:
    return drafts.setdefault(f"swell:{time[0]}:{kind}:{subject}", _Draft(time[1], narration))


def _finished(drafts: dict[str, _Draft]) -> Iterator[Transaction]:
    for reference, draft in drafts.items():
        postings = tuple(Posting(account, amount) for account, amount in sorted(draft.amounts.items()) if amount)
        if postings:
            yield Transaction(draft.day, reference, draft.narration, postings)
