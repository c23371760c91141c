"""Entering a batch of usage: what was said first about a request stands, in any order and however often it is said.

It is on the cost path of every request, so it is one statement through the driver itself. The statement merges: the
first reservation seen gives identity and bound, the first settlement gives the outcome, and a row that already has
both is left alone. SQLite takes it row by row at no cost; Postgres takes a whole piece as arrays in one round trip,
where no request may come twice.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Boolean, Connection, Integer

from swell.adapters.stores.schema import usage
from swell.state.records import UsageChange

Values = tuple[Any, ...]
"""A `UsageChange` as a plain tuple: drivers are slow with subclasses."""

_IDENTITY = ("key_id", "tenant", "model", "endpoint", "prompt_rate", "completion_rate")
_OUTCOME = ("status", "replica_id", "http_status", "duration_ms", "first_token_ms")
TOKENS = ("prompt_tokens", "completion_tokens", "charge_usd_nanos", "cached_tokens")
_NAMES = UsageChange._fields


def enter(connection: Connection, rows: Sequence[Values]) -> None:
    """Merge the rows into the ledger, inside the caller's transaction."""
    if connection.dialect.name != "postgresql":
        connection.exec_driver_sql(_BY_ROWS, list(rows))
        return
    for piece in _without_repeats(rows):
        connection.exec_driver_sql(_BY_ARRAYS, tuple(map(list, zip(*piece, strict=True))))


def _without_repeats(rows: Sequence[Values]) -> Iterator[list[Values]]:
    """The rows in their order, cut wherever a request would come a second time."""
    piece: dict[str, Values] = {}
    for row in rows:
        if row[0] in piece:
            yield list(piece.values())
            piece = {}
        piece[row[0]] = row
    if piece:
        yield list(piece.values())


def _merge(source: str) -> str:
    reserves = "(usage.reserved_at_unix_ms IS NULL AND excluded.reserved_at_unix_ms IS NOT NULL)"
    settles = "(usage.settled_at_unix_ms IS NULL AND excluded.settled_at_unix_ms IS NOT NULL)"
    unsettled_bound = f"({reserves} AND usage.settled_at_unix_ms IS NULL)"
    assignments = [
        "reserved_at_unix_ms = coalesce(usage.reserved_at_unix_ms, excluded.reserved_at_unix_ms)",
        "settled_at_unix_ms = coalesce(usage.settled_at_unix_ms, excluded.settled_at_unix_ms)",
        "sent = usage.sent OR excluded.sent",
    ]
    for condition, columns in (
        (reserves, _IDENTITY),
        (settles, _OUTCOME),
        (f"{settles} OR {unsettled_bound}", TOKENS),
    ):
        assignments += [
            f"{name} = CASE WHEN {condition} THEN excluded.{name} ELSE usage.{name} END" for name in columns
        ]
    return (
        f"INSERT INTO usage ({', '.join(_NAMES)}) {source} ON CONFLICT (request_id) DO UPDATE "
        f"SET {', '.join(assignments)} WHERE {reserves} OR {settles} OR excluded.sent > usage.sent"
    )


def _array_type(name: str) -> str:
    kind = usage.c[name].type
    return "boolean[]" if isinstance(kind, Boolean) else "bigint[]" if isinstance(kind, Integer) else "text[]"


_BY_ROWS = _merge(f"VALUES ({', '.join('?' * len(_NAMES))})")
_ARRAYS = ", ".join(f"%s::{_array_type(name)}" for name in _NAMES)
_BY_ARRAYS = _merge(f"SELECT * FROM unnest({_ARRAYS})")  # noqa: S608 - constants
