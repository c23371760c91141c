"""The books in plain-text accounting: hledger's format, which Ledger reads too, and Beancount's.

A name that does not fit a format is written so that two names never become one account: hledger's are percent-encoded;
Beancount's accounts have letters, digits and dashes only, so that a name with anything else gets part of its hash.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from swell.metering.journal import Account, Transaction
from swell.units import usd

NOBODY = "nobody"  # of a request without a tenant
_HASH_DIGITS = 6


def hledger(books: Iterable[Transaction]) -> Iterator[str]:
    """Lines of a journal; dates are days of the calendar that was asked for."""
    yield "commodity 1000.000000000 USD"
    for transaction in books:
        yield ""
        yield f"{transaction.day} * {_plain(transaction.narration)}  ; reference: {_quoted(transaction.reference)}"
        for posting in transaction.postings:
            account = ":".join(_quoted(part or NOBODY, safe="._@/+-") for part in posting.account)
            yield f"    {account}  {usd(posting.amount_usd_nanos):f} USD"


def beancount(books: Iterable[Transaction]) -> Iterator[str]:
    """Lines of an input file. Accounts are opened by a plug-in, so that files of several periods go together."""
    yield 'plugin "beancount.plugins.auto_accounts"'
    yield 'option "operating_currency" "USD"'
    for transaction in books:
        yield ""
        yield f'{transaction.day} * "{_plain(transaction.narration)}"'
        yield f'  reference: "{_quoted(transaction.reference)}"'
        for posting in transaction.postings:
            yield f"  {_beancount_account(posting.account)}  {usd(posting.amount_usd_nanos):f} USD"


def _beancount_account(account: Account) -> str:
    kind, purpose, *names = account
    return ":".join([kind, purpose, *(_component(name or NOBODY) for name in names)])


def _component(name: str) -> str:
    capital = name[0].upper() + name[1:]
    if re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        return capital
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", capital).lstrip("-") or "X"
    return f"{plain[0].upper()}{plain[1:]}-{hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]}"


def _quoted(name: str, safe: str = ":._@/+-") -> str:
    return quote(name, safe=safe)


def _plain(text: str) -> str:
    """Without what ends a description or a string."""
    return re.sub(r'[\x00-\x1f;|"\\]+', " ", text)
