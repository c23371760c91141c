"""What a review takes from the ledger: a model's requests as traffic, and who sent none.

The ledger is read in pages, newest first, and becomes columns page by page: 16 bytes a request. Requests that no
replica saw, or whose outcome is unknown, are left out, as `swell simulate --format swell` leaves them out. The ledger
holds no prompts, so it does not tell which of them share a beginning.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from swell.ports.store import MAX_LISTED
from swell.spec import ModelSpec
from swell.state.records import UsageFilter
from swell.state.traffic import Traffic
from swell.state.usage import UsageStatus
from swell.state.usage_groups import Bucket, GroupColumn, UsageGroup

MOST_REQUESTS = 2_000_000  # of a model that are replayed: the newest
_MOST_TOKENS = 2**31 - 1  # of one request, as a column holds it
_KNOWN = (UsageStatus.SETTLED.value, UsageStatus.ESTIMATED.value)

_Columns = NDArray[np.int64]
Seen = Callable[[Sequence[Mapping[str, Any]]], None]
"""What else is done with the requests that are read, page by page."""


class Usage(Protocol):
    """Where requests are read. Records are plain JSON values."""

    def usage(self, where: UsageFilter, limit: int) -> Any:
        """The newest requests that match, newest first, at most MAX_LISTED."""


class Ledger(Usage, Protocol):
    """Where keys and sums are read as well, such as `swell.cli.access.Access`. Keys are plain JSON values."""

    def list_keys(self) -> Any:
        """All keys, as `swell keys list --json` shows them."""

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        """Sums by group."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Who was there for the whole time and sent or got nothing."""

    keys: tuple[tuple[str, str, str], ...]  # id, name, tenant
    models: tuple[str, ...]


def idle(ledger: Ledger, models: Sequence[ModelSpec], since_unix_ms: int) -> Idle:
    """Live keys that are older than `since_unix_ms` and models of the spec, without a request since then."""
    where = UsageFilter(since_unix_ms=since_unix_ms)
    used = {group.key_id for group in ledger.group_usage(where, ("key_id",))}
    served = {group.model for group in ledger.group_usage(where, ("model",))}
    keys = [
        (key["id"], key["name"], key["tenant"])
        for key in ledger.list_keys()
        if key["state"] in ("live", "rotating")
        and key["created_at_unix"] * 1000 <= since_unix_ms
        and key["id"] not in used
    ]
    return Idle(tuple(keys), tuple(model.name for model in models if not served.intersection(names_of(model))))


def traffic_of(
    ledger: Usage,
    model: ModelSpec,
    since_unix_ms: int,
    *,
    page_rows: int = MAX_LISTED,
    seen: Seen = lambda page: None,
) -> Traffic | None:
    """The model's requests since then, its adapters' included; None where there is none. Read by `page_rows`.

    Each request is `seen` once. The trace begins at `since_unix_ms` where the model was used before, else with its
    first request.
    """
    parts = [part for name in names_of(model) for part in _pages(ledger, name, since_unix_ms, page_rows, seen)]
    rows = np.concatenate(parts) if parts else np.empty((0, 3), dtype=np.int64)
    if not len(rows):
        return None
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    is_cut = len(rows) > MOST_REQUESTS
    rows = rows[-MOST_REQUESTS:]
    begin = int(rows[0, 0]) if is_cut or not _was_used_before(ledger, model, since_unix_ms) else since_unix_ms
    return Traffic(
        (rows[:, 0] - begin) / 1000,
        rows[:, 1].astype(np.int32),
        rows[:, 2].astype(np.int32),
        start_unix=begin / 1000,
        name=model.name,
    )


def names_of(model: ModelSpec) -> list[str]:
    """Its own and its adapters': they share its replicas."""
    return [model.name, *(adapter.name for adapter in model.lora)]


def _was_used_before(ledger: Usage, model: ModelSpec, since_unix_ms: int) -> bool:
    return any(
        ledger.usage(UsageFilter(model=name, until_unix_ms=since_unix_ms), 1) for name in names_of(model)
    )  # fmt: skip


def _pages(ledger: Usage, model: str, since_unix_ms: int, page_rows: int, seen: Seen) -> list[_Columns]:
    where = UsageFilter(model=model, since_unix_ms=since_unix_ms)
    found: list[_Columns] = []
    last: set[str] = set()  # requests of the millisecond that the next page begins with, which were counted
    count = 0
    while count < MOST_REQUESTS:
        page: list[Mapping[str, Any]] = ledger.usage(where, page_rows)
        new = [row for row in page if row["request_id"] not in last]
        seen(new)
        found.append(_rows(new))
        count += len(found[-1])
        if len(page) < page_rows or not new:
            break
        oldest = _arrived_ms(page[-1])
        last = {row["request_id"] for row in page if _arrived_ms(row) == oldest}
        where = replace(where, until_unix_ms=oldest + 1)
    return found


def _arrived_ms(row: Mapping[str, Any]) -> int:
    """As the ledger sorts: by arrival, or by the end where the arrival is not known."""
    arrived = row["reserved_at_unix_ms"]
    return int(row["settled_at_unix_ms"] if arrived is None else arrived)


def _rows(page: Sequence[Mapping[str, Any]]) -> _Columns:
    """(arrival in milliseconds, prompt tokens, output tokens) of those that can be replayed."""
    kept = [
        (row["reserved_at_unix_ms"], *(min(max(row[name], 1), _MOST_TOKENS) for name in _TOKENS))
        for row in page
        if row["reserved_at_unix_ms"] is not None and row["status"] in _KNOWN
    ]
    return np.array(kept, dtype=np.int64).reshape(-1, 3)


_TOKENS = ("prompt_tokens", "completion_tokens")
