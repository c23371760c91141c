"""A long question to the ledger, asked in parts where the store would else be kept from others, and its one answer.

Pure. Sums add up whatever they are cut by, so the answer is the same as to the whole question asked at once, as far as
the ledger does not change between the parts.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from swell.errors import UserError
from swell.ports.store import UsageStore, require_few_groups
from swell.state.records import UsageFilter
from swell.state.usage_groups import BUCKET_MS, GROUP_COLUMNS, Bucket, GroupColumn, UsageGroup

LONGEST_MS = 25 * 3_600_000  # a day of any zone is asked for at once
MOST_PARTS = 20_000  # days of 54 years; beyond that a clock has lied
_SUMS = tuple(name for name in UsageGroup.__struct_fields__ if name not in (*GROUP_COLUMNS, "start_unix_ms"))


class Answer:
    """The sums of all parts."""

    def __init__(self, by: Sequence[GroupColumn], bucket: Bucket | None) -> None:
        self._keys: tuple[str, ...] = (*by, *(() if bucket is None else ("start_unix_ms",)))
        self._found: dict[tuple[Any, ...], UsageGroup] = {}

    def add(self, groups: Sequence[UsageGroup]) -> None:
        """What a part came to. Raises UserError where there are more than the store's MAX_GROUPS by now."""
        for group in groups:
            key = tuple(getattr(group, name) for name in self._keys)
            known = self._found.get(key)
            self._found[key] = group if known is None else _added(known, group)
        require_few_groups(len(self._found))

    def groups(self) -> list[UsageGroup]:
        """In the order of their values, as the store answers."""
        return [self._found[key] for key in sorted(self._found)]


def is_short(where: UsageFilter) -> bool:
    """Whether it is of a day at most, so that it is asked at once everywhere."""
    since, until = where.since_unix_ms, where.until_unix_ms
    return since is not None and until is not None and until - since <= LONGEST_MS


def parts(where: UsageFilter, span_ms: tuple[int, int] | None) -> Iterator[UsageFilter]:
    """The question for each day of UTC, as far as the ledger has anything; whole where it is no longer than a day."""
    if span_ms is None:
        return
    if is_short(where):
        yield where
        return
    since, until = where.since_unix_ms, where.until_unix_ms
    start = span_ms[0] if since is None else max(span_ms[0], since)
    end = span_ms[1] + 1 if until is None else min(span_ms[1] + 1, until)
    for _ in range(MOST_PARTS):
        if start >= end:
            return
        stop = min(end, start - start % BUCKET_MS["day"] + BUCKET_MS["day"])
        yield replace(where, since_unix_ms=start, until_unix_ms=stop)
        start = stop
    raise UserError(f"the ledger spans more than {MOST_PARTS:,} days; ask for one period after the other")


def _added(one: UsageGroup, other: UsageGroup) -> UsageGroup:
    return replace(one, **{name: getattr(one, name) + getattr(other, name) for name in _SUMS})


class LedgerQuestions:
    """`UsageStore.group_usage` of a store that nobody else uses: at once by a second way, or by days.

    SQLite sums a month up more quickly by days, since the groups of a day fit into its memory.
    """

    def __init__(self, store: UsageStore) -> None:
        self._store = store
        self._reader = store.reader()

    def group_usage(
        self, where: UsageFilter, by: Sequence[GroupColumn] = (), bucket: Bucket | None = None
    ) -> list[UsageGroup]:
        """The store's answer."""
        if self._reader is not None:
            return self._reader.group_usage(where, by, bucket)
        if is_short(where):
            return self._store.group_usage(where, by, bucket)
        answer = Answer(by, bucket)
        for part in parts(where, self._store.usage_span()):
            answer.add(self._store.group_usage(part, by, bucket))
        return answer.groups()

    def close(self) -> None:
        """Let go of the second way to the store, where there is one."""
        if self._reader is not None:
            self._reader.close()
