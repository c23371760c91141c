"""`python -m benchmarks.ledger`: a month of requests in each store; how long sums by tenant and model take.

From the ledger itself (raw) and from what is summed up of it: as `swell usage` asks, day by day, and in one question
on the server's own connection; how fast usage is entered, and how long that takes while a report runs.
Every answer is checked against what was generated.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from benchmarks.ledger.month import END_MS, HOUR_MS, MONTH, START_MS, Piece, pieces
from benchmarks.ledger.stores import Filled, PostgresMonth, postgres_month, sqlite_month
from swell.adapters.stores.sql_store import SqlStore
from swell.metering.periods import Period
from swell.metering.questions import LedgerQuestions
from swell.metering.reports import report, total
from swell.state.records import SpoolPosition, UsageChange, UsageFilter
from swell.state.usage_groups import UsageGroup

BARS = {"rolled": 1.0, "raw sqlite": 60.0, "raw postgres": 60.0}  # seconds, as the command asks
BATCH = 500  # requests that the spool reader enters at once
ENTERED = 20_000
MOST_MADE = 4_000_000  # for Postgres; more are these, several times
_BY = ("tenant", "model")
_WHERE = UsageFilter(since_unix_ms=START_MS, until_unix_ms=END_MS)
_UTC = ZoneInfo("UTC")
DAY_MS = 24 * HOUR_MS
_DAYS = range(START_MS, END_MS, DAY_MS)
_PERIOD = Period(START_MS / 1000, END_MS / 1000, f"{MONTH[:4]}-{MONTH[4:]}")
_T = TypeVar("_T")


def measure(kind: str, month: Filled, rows: int) -> dict[str, Any]:
    """Fill a store and ask it."""
    times = -(-rows // MOST_MADE) if isinstance(month, PostgresMonth) else 1
    rows -= rows % times
    seconds, expected = _timed(lambda: month.fill(pieces(rows // times), times))
    if isinstance(month, PostgresMonth):
        month.restart()
    store, found = month.store, {"store": kind, "rows": rows, "fill": seconds, "bytes": month.bytes()}
    _say(f"{kind}: {rows:,} rows in {seconds:.0f} s, {found['bytes'] / 2**30:.1f} GiB")
    for name in ("raw", "rolled"):
        if name == "rolled":
            steps, seconds = month.sum_up()
            found |= {"steps of summing up": steps, "a step": seconds / max(1, steps)}
            _say(f"{kind}: {steps:,} steps of summing up, {seconds / max(1, steps) * 1000:.1f} ms each")
        for way, asked in ((name, _asked), (f"{name} by day", _asked_by_day), (f"{name} at once", _asked_at_once)):
            used = month.cpu_seconds()
            found[way] = asked(store, expected)
            found[f"{way}, processor"] = month.cpu_seconds() - used
            _say(f"{kind}: {way}: {found[way]:.2f} s, {found[f'{way}, processor']:.2f} s of a processor")
    found |= _beside_a_report(store)
    found["entered a second"] = _enter(store)
    if "longest batch beside it" in found:
        longest, seconds = found["longest batch beside it"] * 1000, found["report beside entering"]
        _say(f"{kind}: {found['batches']:,} batches beside a report of {seconds:.2f} s, the longest {longest:.0f} ms")
    _say(f"{kind}: {found['entered a second']:,.0f} requests a second are entered")
    return found


def _asked(store: SqlStore, expected: tuple[int, int]) -> float:
    """As `swell usage --by tenant,model` does."""
    with closing(LedgerQuestions(store)) as questions:
        seconds, rows = _timed(
            lambda: report(questions.group_usage, UsageFilter(), _BY, _PERIOD, _UTC, store.usage_span())
        )
    whole = total(rows)
    if (whole.requests, whole.charge_usd_nanos) != expected:
        raise SystemExit(f"the report says {whole}, and {expected} was entered")
    return seconds


def _asked_at_once(store: SqlStore, expected: tuple[int, int]) -> float:
    seconds, groups = _timed(lambda: store.group_usage(_WHERE, _BY))
    _check(groups, expected)
    return seconds


def _check(groups: Sequence[UsageGroup], expected: tuple[int, int]) -> None:
    found = sum(group.requests for group in groups), sum(group.charge_usd_nanos for group in groups)
    if found != expected:
        raise SystemExit(f"the store says {found}, and {expected} was entered")


def _asked_by_day(store: SqlStore, expected: tuple[int, int]) -> float:
    seconds, days = _timed(
        lambda: [store.group_usage(replace(_WHERE, since_unix_ms=at, until_unix_ms=at + DAY_MS), _BY) for at in _DAYS]
    )
    _check([group for groups in days for group in groups], expected)
    return seconds


def _beside_a_report(store: SqlStore) -> dict[str, float]:
    """How long entering a batch takes at worst while a report of raw usage runs, and how many were entered."""
    reader = store.reader()
    if reader is None:
        return {}
    made = _made(BATCH)
    with closing(reader), ThreadPoolExecutor(1) as threads:
        asked = threads.submit(_timed, lambda: reader.total_usage(_WHERE))  # which is never from sums
        longest, batches = 0.0, 0
        while not asked.done():
            rows = [_moved(row, "b", batches * BATCH + number) for number, row in enumerate(made)]
            seconds, _ = _timed(
                lambda rows=rows, batches=batches: store.apply_usage(rows, SpoolPosition("b", 1, batches))
            )
            longest, batches = max(longest, seconds), batches + 1
        return {"report beside entering": asked.result()[0], "longest batch beside it": longest, "batches": batches}


def _enter(store: SqlStore) -> float:
    rows = [_moved(row, "w", number) for number, row in enumerate(_made(ENTERED))]
    begun = time.perf_counter()
    for first in range(0, ENTERED, BATCH):
        store.apply_usage(rows[first : first + BATCH], SpoolPosition("w", 1, first))
    return ENTERED / (time.perf_counter() - begun)


def _made(count: int) -> list[UsageChange]:
    piece: Piece = next(pieces(count * 1000))
    return list(islice(piece.rows(), count))


def _moved(row: UsageChange, worker: str, number: int) -> UsageChange:
    request_id = f"req-202611-{worker * 12}-{number:08x}"
    return row._replace(request_id=request_id, reserved_at_unix_ms=END_MS + number, spool=worker)


def _timed(act: Callable[[], _T]) -> tuple[float, _T]:
    begun = time.perf_counter()
    result = act()
    return time.perf_counter() - begun, result


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what was asked for; 1 where a bar was asked for and missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--sqlite", type=int, default=0, metavar="ROWS")
    parser.add_argument("--postgres", type=int, default=0, metavar="ROWS")
    parser.add_argument("--folder", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")))  # noqa: S108
    parser.add_argument("--json", type=Path, help="where to write every figure")
    parser.add_argument("--check", action="store_true", help="exit code 1 where a bar is missed")
    given = parser.parse_args(arguments)
    if not given.sqlite and not given.postgres:
        given.sqlite = given.postgres = 1_000_000
    found = []
    if given.sqlite:
        with sqlite_month(given.folder) as month:
            found.append(measure("sqlite", month, given.sqlite))
    if given.postgres:
        with postgres_month(given.folder) as month:
            found.append(measure("postgres", month, given.postgres))
    text = json.dumps(found, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text)
    missed = [
        each["store"] for each in found if each["rolled"] > BARS["rolled"] or each["raw"] > BARS[f"raw {each['store']}"]
    ]
    return int(given.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
