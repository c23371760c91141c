"""The ledger against the journals of the upstreams and against what the clients saw."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kill_asks import DEFAULT_MAX_TOKENS, End, Outcome

from swell.testing.upstream_journal import Line

_BOUNDS = {0, 64, 128, DEFAULT_MAX_TOKENS, 2 * DEFAULT_MAX_TOKENS}  # of the asks that `kill_asks.draw` makes


@dataclass
class Journaled:
    """What the journals of all upstreams say of one request."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    arrivals: int = 0  # more than one: it was sent again
    delivered: int | None = 0  # content chunks at most; None: an upstream was killed while it answered

    @property
    def most_delivered(self) -> int:
        return self.completion_tokens if self.delivered is None else self.delivered


@dataclass
class Tally:
    """What was found, for the report; `problems` must be empty."""

    rows: Counter[str] = field(default_factory=Counter)
    journaled: int = 0
    sent_twice: int = 0
    reserved_unseen: int = 0  # marked as sent in the instant before the kill
    estimated_unseen: int = 0  # cut off before the upstream had read it
    reserved_answered: int = 0  # the kill came between the last byte to the client and the record of it
    problems: list[str] = field(default_factory=list)


def read_journals(journals: Iterable[Sequence[Line]]) -> dict[str, Journaled]:
    """All requests of all upstreams, by id."""
    found: dict[str, Journaled] = defaultdict(Journaled)
    for lines in journals:
        outcomes = Counter(line.id for line in lines if line.event != "request")
        arrivals = Counter(line.id for line in lines if line.event == "request")
        for line in lines:
            entry = found[line.id]
            if line.event == "request":
                entry.prompt_tokens, entry.completion_tokens = line.prompt_tokens, line.completion_tokens
                entry.arrivals += 1
            elif entry.delivered is not None:
                entry.delivered = max(entry.delivered, line.delivered)
        for request_id, count in arrivals.items():
            if outcomes[request_id] < count:
                found[request_id].delivered = None
    return dict(found)


def compare(rows: Sequence[dict[str, Any]], journal: dict[str, Journaled], outcomes: Sequence[Outcome]) -> Tally:
    """Hold every row to its journal and its client."""
    tally = Tally(rows=Counter(row["status"] for row in rows), journaled=len(journal))
    by_id: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["request_id"] in by_id:
            tally.problems.append(f"twice in the ledger: {row}")
        by_id[row["request_id"]] = row
    tally.problems += [f"in a journal and not in the ledger: {one}" for one in journal.keys() - by_id.keys()]
    tally.sent_twice = sum(entry.arrivals > 1 for entry in journal.values())
    for request_id, row in by_id.items():
        entry = journal.get(request_id)
        fault = _unseen(row, tally) if entry is None else _against_journal(row, entry)
        if fault:
            tally.problems.append(f"{fault}: {row} {entry}")
    for outcome in outcomes:
        row = by_id.get(outcome.request_id)
        if outcome.end is End.COMPLETE and row is not None and row["status"] == "reserved":
            tally.reserved_answered += 1
            continue
        fault = _against_client(outcome, row)
        if fault:
            tally.problems.append(f"{fault}: {row} {outcome}")
    return tally


def _unseen(row: dict[str, Any], tally: Tally) -> str:
    """A row whose request no upstream has read."""
    match row["status"]:
        case "void":
            return "" if row["prompt_tokens"] == row["completion_tokens"] == 0 else "void, and counts tokens"
        case "reserved":
            tally.reserved_unseen += 1
            return ""
        case "estimated" if row["completion_tokens"] == 0:
            tally.estimated_unseen += 1
            return ""
    return "counts what no upstream was asked"


def _against_journal(row: dict[str, Any], entry: Journaled) -> str:
    tokens, journaled = (row["prompt_tokens"], row["completion_tokens"]), (entry.prompt_tokens, entry.completion_tokens)
    match row["status"]:
        case "settled" if tokens != journaled:
            return "settled with other tokens than the journal's"
        case "estimated" if row["completion_tokens"] > entry.most_delivered:
            return "estimated at more than was delivered"
        case "reserved" if tokens[0] < journaled[0] or tokens[1] < journaled[1] or tokens[1] not in _BOUNDS:
            return "does not stand at its bound"
        case "void":
            return "void, though an upstream was asked"
    return ""


def _against_client(outcome: Outcome, row: dict[str, Any] | None) -> str:
    match outcome.end:
        case End.HUNG:
            return "a client got no end"
        case End.COMPLETE if row is None or row["status"] != "settled":
            return "answered in full, and not settled"
        case End.COMPLETE if outcome.usage and outcome.usage != (row["prompt_tokens"], row["completion_tokens"]):
            return "the client was told other tokens"
        case End.ERROR_EVENT if row is None or row["status"] not in ("estimated", "settled"):
            return "cut with an error, and neither estimated nor settled"
        case End.ERROR_EVENT if row["status"] == "estimated" and row["completion_tokens"] != outcome.content_events:
            return "estimated at something else than the client received"
        case End.LEFT if row is None or row["status"] == "void":
            return "a stream that had begun is not counted"
        case End.LEFT if row["completion_tokens"] < outcome.content_events:
            return "counts less than the client received"
        case End.BROKEN if outcome.request_id and (row is None or row["completion_tokens"] < outcome.content_events):
            return "counts less than the client received"
    return ""
