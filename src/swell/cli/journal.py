"""`swell journal`: the books of a period, double-entry."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from swell.cli.costs import WorkProfilesOption, cost_question
from swell.cli.output import DEFAULT_STATE_PATH, JsonOption, StateOption, command, print_table, to_json
from swell.cli.usage import SpecOption, ZoneOption
from swell.errors import UserError
from swell.units import usd, usd_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swell.metering.journal import Account, Transaction

_COLUMNS = ("date", "reference", "narration", "account", "debit_usd", "credit_usd")


class Each(StrEnum):
    """How much goes into one transaction."""

    DAY = "day"
    MONTH = "month"


class JournalFormat(StrEnum):
    """How the books are written. A table shows the trial balance alone."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    HLEDGER = "hledger"
    BEANCOUNT = "beancount"


_BY_SUFFIX = {".csv": "csv", ".json": "json", ".journal": "hledger", ".ledger": "hledger", ".beancount": "beancount",
              ".bean": "beancount"}  # fmt: skip


@command
def journal(
    period: Annotated[str, typer.Option(help="month, day, 2026-11, 2026-11-29, 2026 or all.")] = "month",
    each: Annotated[Each, typer.Option(help="A transaction per tenant or model and day, or month.")] = Each.DAY,
    form: Annotated[
        JournalFormat | None, typer.Option("--format", help="A table is the trial balance; files have it all.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write instead; - for standard output.")
    ] = None,
    time_zone: ZoneOption = "UTC",
    profiles: WorkProfilesOption = None,
    file: SpecOption = None,
    state: StateOption = DEFAULT_STATE_PATH,
    as_json: JsonOption = False,
) -> None:
    """The books: charges and replicas' costs as double-entry transactions, for accountants and their programs."""
    from swell.cli import formats, journal_text
    from swell.cli.access import server_or_store
    from swell.cli.usage_report import spec_of, wish_of
    from swell.metering.costs import span_of
    from swell.metering.journal import transactions

    chosen = _format(form, output, as_json=as_json)
    wish, spec = wish_of(None, period, time_zone, None), spec_of(file)
    with server_or_store(state) as access:
        question = cost_question(access, wish, spec, profiles)
        span = span_of(question.runs, access.usage_span())
        books = transactions(access.group_usage, question, span, each=each.value)
    title = f"{question.period.label}, {wish.zone.key}"
    if chosen is JournalFormat.TABLE:
        _show(books, title)
    elif chosen is JournalFormat.JSON:
        formats.write_text(to_json(_document(books, question.period.label, wish.zone.key)) + "\n", output)
    elif chosen is JournalFormat.CSV:
        formats.write_csv(_COLUMNS, _rows(books), output)
    else:
        write = journal_text.hledger if chosen is JournalFormat.HLEDGER else journal_text.beancount
        formats.write_text("".join(f"{line}\n" for line in write(books)), output)


def _format(given: JournalFormat | None, output: Path | None, *, as_json: bool) -> JournalFormat:
    if as_json and given not in (None, JournalFormat.JSON):
        raise UserError(f"--json and --format {given} contradict each other; leave one out")
    by_name = None if output is None else _BY_SUFFIX.get(output.suffix.lower())
    chosen = given or JournalFormat("json" if as_json else by_name or "table")
    if chosen is JournalFormat.TABLE and output is not None:
        raise UserError("a table is for the screen; give -o with --format csv, json, hledger or beancount")
    return chosen


def _show(books: "Sequence[Transaction]", title: str) -> None:
    from swell.metering.journal import balances

    found = balances(books)
    rows = [(_name(each.account), _amount(each.debit_usd_nanos), _amount(each.credit_usd_nanos)) for each in found]
    if rows:
        print(title)
        debits, credits = (sum(getattr(each, f"{side}_usd_nanos") for each in found) for side in ("debit", "credit"))
        rows.append(("total", usd_text(debits), usd_text(credits)))
    print_table(
        ("account", "debit", "credit"), rows, empty=f"Nothing was charged, and no replica cost anything: {title}."
    )


def _document(books: "Sequence[Transaction]", label: str, zone: str) -> dict[str, Any]:
    from swell.metering.journal import balances

    return {
        "period": {"label": label, "time_zone": zone},
        "transactions": [
            {
                "date": each.day,
                "reference": each.reference,
                "narration": each.narration,
                "postings": [
                    {
                        "account": list(posting.account),
                        "amount_usd_nanos": posting.amount_usd_nanos,
                        "amount_usd": format(usd(posting.amount_usd_nanos), "f"),
                    }
                    for posting in each.postings
                ],
            }
            for each in books
        ],
        "balances": [
            {
                "account": list(each.account),
                "debit_usd_nanos": each.debit_usd_nanos,
                "credit_usd_nanos": each.credit_usd_nanos,
            }
            for each in balances(books)
        ],
    }


def _rows(books: "Sequence[Transaction]") -> list[tuple[str, ...]]:
    return [
        (
            each.day, each.reference, each.narration, _name(posting.account),
            format(usd(max(posting.amount_usd_nanos, 0)), "f"), format(usd(max(-posting.amount_usd_nanos, 0)), "f"),
        )
        for each in books
        for posting in each.postings
    ]  # fmt: skip


def _name(account: "Account") -> str:
    return ":".join(account)


def _amount(nanos: int) -> str:
    return usd_text(nanos) if nanos else ""
